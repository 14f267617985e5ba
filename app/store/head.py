"""The row of an execution, as whoever holds its lock has it."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from app.engine.state import ExecutionState
from app.store.tables import Execution, table

executions = table(Execution)

_EXECUTION_COLUMNS = [one.name for one in fields(ExecutionState) if one.name != "system"]

_BESIDE = (
    "plan_digest",
    "requester",
    "origin",
    "guard",
    "trace_id",
    "parent",
    "parent_span",
    "workflow",
    "workspace",
    "event_seq",
)
HEAD_COLUMNS = (
    *(executions.c[name] for name in _EXECUTION_COLUMNS),
    executions.c.plan_digest,
    executions.c.requester,
    executions.c.origin,
    executions.c.guard,
    executions.c.trace_id,
    executions.c.parent,
    executions.c.parent_span,
    executions.c.workflow_ref,
    executions.c.workspace,
    executions.c.event_seq,
    executions.c.created_at,
)


class Head:
    """The execution's row with what the engine does not see: which plan, who asked, its trace, how many events.

    `origin` is where its workflow came from, `guard` the mode of the allowlist that it is held to ("" for none),
    `parent` the execution that started this one, `parent_span` the span that its own stands under, `workspace` the
    snapshot of its files as they are now.
    """

    __slots__ = (*_BESIDE, "state")
    plan_digest: str
    requester: str
    origin: str
    guard: str
    trace_id: str
    parent: str | None
    parent_span: str
    workflow: str
    workspace: str
    event_seq: int

    def __init__(self, *values: Any) -> None:
        """Takes the values of `HEAD_COLUMNS`."""
        count = len(_EXECUTION_COLUMNS)
        known, created_at = values[:count], values[-1]
        for name, value in zip(_BESIDE, values[count:-1], strict=True):
            setattr(self, name, value)
        columns = dict(zip(_EXECUTION_COLUMNS, known, strict=True))
        system = {
            "execution_id": columns["id"],
            "timestamp": created_at,
            "identity": {"login": self.requester},
        }
        self.state = ExecutionState(**columns, system=system)
