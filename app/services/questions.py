"""What is done about a question beside deciding it: who is told, what is shown, and whether it still is the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import Connection, Row, select

from app import marks
from app.engine.state import Ask
from app.errors import Conflict
from app.services import notify, subjects
from app.store import executions as rows
from app.store import scripts
from app.store.approvals import EXPIRED, Asked
from app.store.head import Head
from app.store.tables import Approval, Script, table

approvals, saved = table(Approval), table(Script)

MOST_TOLD: Final = 20
"""Questions of one step that people are told of one by one."""

_LONGEST_PROMPT: Final = 500


# telling


def tell_asked(
    connection: Connection, head: Head, asks: Sequence[Ask], asked: Mapping[str, Asked], now: float
) -> None:
    """Notify people of new questions, in the transaction that asks them."""
    for ask in asks[:MOST_TOLD]:
        data = {
            **_of(head, ask.task, ask.kind, ask.prompt),
            "approval": asked[ask.job].id,
            "requester": asked[ask.job].requester,
            "approvers": list(ask.approvers),
            "quorum": ask.quorum,
            "expires_at": None if ask.expires_at is None else _moment(ask.expires_at),
        }
        notify.tell(connection, notify.ASKED, asked[ask.job].id, data, now)
    if len(asks) > MOST_TOLD:
        data = {"execution": head.state.id, "workflow": head.workflow, "more": len(asks) - MOST_TOLD}
        notify.tell(connection, notify.ASKED, head.state.id, data, now)


def tell_decided(
    connection: Connection, head: Head, row: Row[Any], outcome: str, people: Sequence[str], now: float
) -> None:
    """Notify people of a decision, in its transaction."""
    data = {**_of(head, row.task, row.kind, row.prompt), "approval": row.id, "requester": row.requester}
    notify.tell(connection, notify.DECIDED, row.id, {**data, "outcome": outcome, "people": list(people)}, now)


def tell_expired(connection: Connection, head: Head, jobs: Collection[str], now: float) -> None:
    """Notify people of questions that nobody decided in time, of those that were just given up."""
    if not jobs:
        return
    query = select(
        approvals.c.id, approvals.c.task, approvals.c.kind, approvals.c.prompt, approvals.c.requester
    )
    found = query.where(approvals.c.job.in_(list(jobs)), approvals.c.status == EXPIRED)
    for row in connection.execute(found.order_by(approvals.c.id).limit(MOST_TOLD)):
        data = {**_of(head, row.task, row.kind, row.prompt), "approval": row.id, "requester": row.requester}
        notify.tell(connection, notify.EXPIRED, row.id, data, now)


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _of(head: Head, task: str, kind: str, prompt: str) -> dict[str, Any]:
    about = {"execution": head.state.id, "workflow": head.workflow, "task": task, "kind": kind}
    return {**about, "prompt": marks.shown(prompt)[:_LONGEST_PROMPT]}


# showing


def about(connection: Connection, row: Row[Any]) -> dict[str, Any]:
    """What would run where, from the text that was asked about: with the script itself, secrets by name.

    `row` is that of the question, with its execution's `plan_digest`. `is_genuine` says that the text is the one that
    the digest is over; of one that is not, nothing else is told.
    """
    if subjects.digest_of(row.subject) != row.digest:
        return {"is_genuine": False}
    subject = json.loads(row.subject)
    bodies = _bodies(connection, subject) if not row.task else {}
    runs = [{**entry, "body": bodies.get(entry["script"])} for entry in subject.get("runs", ())]
    shown: dict[str, Any] = marks.shown({**subject, "runs": runs})
    return {"is_genuine": True, **shown}


def _bodies(connection: Connection, subject: Mapping[str, Any]) -> dict[str, str]:
    """Texts of scripts by their digests, from the plan that was asked about."""
    found = {}
    plan = rows.plan(connection, subject["plan"])
    for entry in subject["runs"]:
        task = plan.tasks.get(entry["task"])
        if entry["script"] is None or task is None:
            continue
        texts = [task.input.get("script"), task.input.get("command")]
        texts += [plan.actions[task.action]["script"]] if task.scripted else []
        for text in texts:
            if isinstance(text, str):
                found[hashlib.sha256(text.encode()).hexdigest()] = text
    return found


# deciding


def check_unchanged(connection: Connection, row: Row[Any], plan: str) -> None:
    """That what people were asked about is still what would run. Raises Conflict: the question stays open.

    The saved script's row is locked until the transaction ends.
    """
    subject = json.loads(row.subject) if subjects.digest_of(row.subject) == row.digest else None
    if subject is None or subject["plan"] != plan:
        raise _changed(row, "what it is about was changed in the database")
    script = subject["script"]
    if script is None:
        return
    lock = select(saved.c.version).where(saved.c.id == script["id"]).with_for_update(read=True)
    newest = connection.execute(lock).scalar()
    called = script["name"] or script["id"]
    if newest is None:
        raise _changed(row, f"the script {called} was deleted")
    if script["newest"] and newest != script["version"]:
        raise _changed(
            row, f"version {script['version']} of {called} was asked for, {newest} is the newest now"
        )
    found = scripts.load(connection, script["id"], script["version"])
    if found is None or found.digest != script["digest"]:
        raise _changed(row, f"version {script['version']} of {called} is not what it was")


def _changed(row: Row[Any], why: str) -> Conflict:
    return Conflict(
        f"approval {row.id} cannot be given: {why}",
        hint=f"reject it, or cancel the execution, and execute it anew: `muster approval reject {row.id}`",
        code="subject-changed",
    )
