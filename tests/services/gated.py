"""Executions that people are asked for before anything runs: a saved script on nodes, as an execution of it is made."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import func, insert, select, update

from app.compiler.build import build
from app.ids import ulid
from app.language.model import Parameter, Retry, Task, Workflow
from app.services.approvals import Word, decide
from app.services.control import Control
from app.services.runnable import Runnable, kind_of
from app.services.submit import Submission, submit
from app.store.tables import Approval, Notification, Script, ScriptVersion, table

approvals, notifications = table(Approval), table(Notification)
scripts, versions = table(Script), table(ScriptVersion)

BODY = 'echo "$word"\n'


@dataclass
class Saved:
    """A saved script, `edit` makes its next version."""

    control: Control
    id: str
    version: int = 0
    body: str = ""

    @classmethod
    def save(cls, control: Control, body: str = BODY) -> Saved:
        now = control.clock()
        made = cls(control, ulid(now))
        values = {"id": made.id, "name": f"script-{made.id.lower()}", "timeout": 60.0, "updated_by": "ann"}
        with control.store.write() as connection:
            connection.execute(insert(Script).values(**values, created_at=now, updated_at=now))
        made.edit(body)
        return made

    def edit(self, body: str) -> None:
        self.version, self.body = self.version + 1, body
        values = {"script_id": self.id, "version": self.version, "shell": "bash", "body": body}
        values["digest"] = hashlib.sha256(body.encode()).hexdigest()
        with self.control.store.write() as connection:
            connection.execute(insert(ScriptVersion).values(**values, created_at=self.control.clock()))
            connection.execute(update(Script).where(scripts.c.id == self.id).values(version=self.version))


def runnable(
    nodes: Sequence[str] | Mapping[str, Any],
    *,
    saved: Saved | None = None,
    body: str = BODY,
    retry: int = 0,
    **gate: Any,
) -> Runnable:
    """A fan-out of one script that takes `word`, and `token` as a secret. `gate` is as the input of core.approval."""
    env = {"word": "{{ parameters.word }}", "token": "{{ parameters.token }}"}
    task = Task(
        name="script",
        type="distributed_shell",
        action="core.distributed_shell",
        input={"env": env},
        retry=Retry(retry) if retry else None,
    )
    declared = (Parameter("word", required=True), Parameter("token", type="secret"))
    plan = build(Workflow("script.test", tasks=(task,), parameters=declared))
    body = body if saved is None else saved.body
    wanted = list(nodes) if not isinstance(nodes, Mapping) else dict(nodes)
    given = {"script": body, "shell": "bash", "nodes": wanted, "timeout": 60}
    planned = plan.tasks["script"]
    planned = replace(planned, input={**planned.input, **given}, literal=tuple(given))
    asked = {"prompt": "Run it?", **gate}
    script = ("", 0) if saved is None else (saved.id, saved.version)
    return Runnable(replace(plan, tasks={"script": planned}, gate=asked), body, None, *script)


def execute(control: Control, found: Runnable, requester: str = "ada", **parameters: Any) -> str:
    """A new execution of it."""
    given = {"word": "hello", **parameters}
    asked = Submission(
        found.plan, found.source, requester, given, origin="stored", kind=kind_of(found, "stored")
    )
    asked = replace(asked, script=found.script, script_version=found.script_version)
    return submit(control, asked).execution


def questions(control: Control, execution: str) -> list[Any]:
    """The rows of the questions for the whole execution, the oldest first."""
    query = select(approvals).where(approvals.c.execution == execution, approvals.c.task == "")
    with control.store.read() as connection:
        return list(connection.execute(query.order_by(func.length(approvals.c.job), approvals.c.job)))


def approve(control: Control, execution: str, person: str = "bob", verb: str = "approve") -> dict[str, Any]:
    """A person's word on the newest question."""
    return decide(control, questions(control, execution)[-1].id, Word(person, verb))


def told(control: Control) -> list[tuple[str, str, Any]]:
    """Kind, subject and data of every notification, the oldest first."""
    query = select(notifications.c.kind, notifications.c.subject, notifications.c.data)
    with control.store.read() as connection:
        return [tuple(row) for row in connection.execute(query.order_by(notifications.c.id))]
