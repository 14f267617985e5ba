"""The row of an execution, as whoever holds its lock has it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from app.engine.state import ExecutionState
from app.store.tables import Execution, table
from app.store.types import as_kept

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
_AT_FIRST: Mapping[str, Any] = {"parent": None, "parent_span": "", "workspace": "", "event_seq": 0}
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
        self.state = ExecutionState(**columns, system=self._system(columns["id"], created_at))

    @classmethod
    def of_new(cls, columns: Mapping[str, Any]) -> Head:
        """That of a row that is not written yet, from its columns; one that is not among them has its default."""
        head = cls.__new__(cls)
        given = {**_AT_FIRST, **columns, "workflow": columns["workflow_ref"]}
        for name in _BESIDE:
            setattr(head, name, given[name])
        known = {name: columns[name] for name in _EXECUTION_COLUMNS if name in columns}
        head.state = ExecutionState(
            **known, system=head._system(columns["id"], as_kept(columns["created_at"]))
        )
        return head

    def _system(self, execution: str, created_at: float) -> dict[str, Any]:
        return {
            "execution_id": execution,
            "timestamp": created_at,
            "identity": {"login": self.requester},
        }
