"""Whether an order is among what people approved: looked at as it is built, from the stored text alone.

Whoever may write to the database may change a task's input, parameters, a plan or a node behind the approval; none of
that is asked here. Only the text whose digest was decided on says what may run, and an order that it does not hold is
not signed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from sqlalchemy import Connection, func, select

from app import marks
from app.engine.question import APPROVE
from app.engine.state import ExecutionState
from app.errors import NotAllowed
from app.services import subjects
from app.store.approvals import APPROVED, EXPIRED
from app.store.tables import Approval, Execution, table
from app.transport.messages import Job

approvals, executions = table(Approval), table(Execution)

_KEPT: Final = 64
_SUBJECTS: dict[str, Mapping[str, Any]] = {}
"""Texts that had the digest they are kept under."""


class NotApproved(NotAllowed):
    """An order that is not what was approved."""

    code = "not-approved"


def check(connection: Connection, execution: str, message: Job, node: str) -> None:
    """That this job, for this node, is what was approved of the execution. Raises NotApproved."""
    subject = _subject(connection, execution)
    of_task = [entry for entry in subject["runs"] if entry["task"] == message.task]
    if not of_task:
        raise _refused(f"task {message.task} is not in what was approved")
    if not any(node in entry["nodes"] for entry in of_task):
        raise _refused(f"node {node} is not in what was approved for {message.task}")
    what = subjects.what_runs(message)
    (entry, *_) = [entry for entry in of_task if entry["digest"] == what] or [None]
    if entry is None:
        raise _refused(f"the script, values, shell or timeout of {message.task} are not what was approved")
    _check_secrets(connection, execution, entry, message)


def _subject(connection: Connection, execution: str) -> Mapping[str, Any]:
    """What the newest question was about, if that was approved."""
    query = select(approvals.c.id, approvals.c.status, approvals.c.digest)
    mine = query.where(approvals.c.execution == execution, approvals.c.task == "")
    # Those of one execution differ in their number only.
    newest = mine.order_by(func.length(approvals.c.job).desc(), approvals.c.job.desc())
    row = connection.execute(newest.limit(1)).first()
    if row is None:
        raise _refused("nobody was asked for it")
    subject = _read(connection, row.id, row.digest)
    in_time = row.status == EXPIRED and subject["gate"].get("on_expire") == APPROVE
    if row.status != APPROVED and not in_time:
        raise _refused(f"approval {row.id} is {row.status}")
    if subject["execution"] != execution:
        raise _refused(f"approval {row.id} is about another execution")
    return subject


def _read(connection: Connection, approval: str, digest: str) -> Mapping[str, Any]:
    found = _SUBJECTS.get(digest)
    if found is None:
        query = select(approvals.c.subject).where(approvals.c.id == approval)
        text = connection.execute(query).scalar_one()
        if subjects.digest_of(text) != digest:
            raise _refused(f"the text of approval {approval} is not the one that was decided on")
        found = json.loads(text)
        if len(_SUBJECTS) >= _KEPT:
            _SUBJECTS.pop(next(iter(_SUBJECTS)), None)
        _SUBJECTS[digest] = found
    return found


def _check_secrets(connection: Connection, execution: str, entry: Mapping[str, Any], message: Job) -> None:
    """A secret that was changed behind the approval is another value."""
    used = list(marks.references([message.env, message.stdin, message.input]))
    if not used:
        return
    now = subjects.held(connection, _state(connection, execution, used), used)
    for reference in sorted(now):
        if now[reference] != entry["secrets"].get(reference):
            what = marks.shown_reference(reference)
            raise _refused(f"{what} is not the one, or not the version, that was approved")


def _state(connection: Connection, execution: str, used: Iterable[str]) -> ExecutionState:
    """As much of the execution as secrets are read from."""
    config: Mapping[str, Any] = {}
    if any(one.startswith(f"{marks.CONFIG}:") for one in used):
        query = select(executions.c.config).where(executions.c.id == execution)
        config = connection.execute(query).scalar_one()
    return ExecutionState(execution, config=config)


def _refused(why: str) -> NotApproved:
    return NotApproved(
        f"not approved: {why}", hint="`muster approval show` tells what was approved; execute it anew"
    )
