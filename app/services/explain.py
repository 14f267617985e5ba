"""The graph of an execution, and why each of its tasks ran, waits, or will never run.

Each takes a bounded number of statements, whatever it finds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, func, select

from app.compiler import graph
from app.compiler.plan import Plan
from app.engine.edges import states
from app.engine.reasons import Wait
from app.engine.state import ExecutionState, TaskState
from app.engine.status import (
    ACCEPTED,
    DISPATCHED,
    GATE_PENDING,
    JOB_OUT,
    JOB_OVER,
    PAUSE,
    QUEUED,
    RUNNING,
    SUSPECT,
    TASK_LIVE,
    UNKNOWN,
)
from app.engine.why import Explanation, Story, explain
from app.errors import NotFound
from app.services import relatives
from app.services.handover import ORDERS_PER_SLOT
from app.services.queries import unknown
from app.settings import Settings
from app.store import executions as rows
from app.store.approvals import PENDING as UNDECIDED
from app.store.tables import Approval, Decision, Execution, Job, Node, Task, Timer, table

executions, tasks, jobs = table(Execution), table(Task), table(Job)
timers, approvals, decisions, nodes = table(Timer), table(Approval), table(Decision), table(Node)

MOST_WAITS = 200
"""Timers, questions and jobs of one execution that are told, of each so many."""


def graph_of(connection: Connection, execution: str) -> dict[str, Any]:
    """The graph of an execution: each node with how it went, each edge with where it stands. Raises NotFound.

    Four statements at the most. Times are Unix seconds, durations seconds.
    """
    plan, head = _head(connection, execution)
    found = relatives.states(connection, [execution])[execution]
    counted = select(jobs.c.task, func.count()).where(jobs.c.execution == execution).group_by(jobs.c.task)
    attempts = {name: count for name, count in connection.execute(counted)}
    drawn = graph.shape(plan)
    for node in drawn["nodes"]:
        node |= _went(found[node["name"]], attempts.get(node["name"], 0))
    lines = graph.edges(plan)
    for edge, state in zip(drawn["edges"], states(plan.tasks, found, lines), strict=True):
        edge["state"] = state
    return {"execution": execution, "status": head.status, **drawn}


def _went(state: TaskState, attempts: int) -> dict[str, Any]:
    ended = state.started_at is not None and state.ended_at is not None
    names = ("started", "over", "succeeded", "failed", "skipped", "cancelled")
    return {
        "status": state.status,
        "wait_reason": state.wait_reason,
        "started_at": state.started_at,
        "ended_at": state.ended_at,
        "duration": max(0.0, (state.ended_at or 0.0) - (state.started_at or 0.0)) if ended else None,
        "attempts": attempts,
        "retry_count": state.retry_count,
        "max_retries": state.max_retries,
        "units": {"total": state.units, **{name: getattr(state, name) for name in names}},
    }


def explanations(
    connection: Connection, settings: Settings, execution: str, now: float, task: str | None = None
) -> list[dict[str, Any]]:
    """One for each task, or for the one named. Raises NotFound for an execution or a task that is not there.

    Ten statements at the most, and one for the plan of each child that was not read before.
    """
    plan, head = _head(connection, execution)
    if task is not None and task not in plan.tasks:
        raise NotFound(
            f"execution {execution} has no task {task}",
            hint=f"its tasks: `muster execution tasks {execution}`",
            code="unknown-task",
        )
    found = relatives.states(connection, [execution])[execution]
    wanted = plan.tasks if task is None else [task]
    live = {name for name in wanted if found[name].status in TASK_LIVE}
    is_shut = head.gate == GATE_PENDING
    waits = _waits(connection, settings, head, found, live, now) if live or is_shut else {}
    story = Story(plan, head, found, _moment, waits)
    started = [name for name in wanted if plan.tasks[name].has_child]
    children = relatives.children(connection, execution, started, _moment) if started else {}
    return [_with_children(explain(story, name), children.get(name, ())) for name in wanted]


def _with_children(told: Explanation, children: Sequence[dict[str, Any]]) -> dict[str, Any]:
    told.children = list(children)
    told.sentences += [
        f"its child {one['execution']} ({one['workflow']}) is {one['status']}: {one['says']}"
        for one in children
    ]
    return asdict(told)


def parent_of(connection: Connection, execution: str) -> dict[str, Any] | None:
    """The execution that started this one, if one did: two statements, and one for its plan."""
    return relatives.parent(connection, execution, _moment)


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _head(connection: Connection, execution: str) -> tuple[Plan, ExecutionState]:
    query = select(*(executions.c[name] for name in relatives.HEAD), executions.c.plan_digest)
    row = connection.execute(query.where(executions.c.id == execution)).mappings().first()
    if row is None:
        raise unknown(execution)
    return rows.plan(connection, row["plan_digest"]), ExecutionState(
        **{name: row[name] for name in relatives.HEAD}
    )


def _waits(
    connection: Connection,
    settings: Settings,
    head: ExecutionState,
    found: Mapping[str, TaskState],
    live: Collection[str],
    now: float,
) -> dict[str, list[Wait]]:
    gathered = [
        *_timers(connection, head.id, live),
        # The question of the gate belongs to no task.
        *_questions(connection, head.id, {*live, ""} if head.gate == GATE_PENDING else live),
        *_Jobs(connection, settings, head, found, now).waits(live),
    ]
    waits: dict[str, list[Wait]] = {}
    for wait in gathered:
        waits.setdefault(wait.task, []).append(wait)
    return waits


def _timers(connection: Connection, execution: str, live: Collection[str]) -> Iterable[Wait]:
    query = select(timers).where(timers.c.execution == execution, timers.c.task.in_(live))
    for row in connection.execute(query.order_by(timers.c.due_at).limit(MOST_WAITS)):
        yield Wait("timer", name=row.kind, until=row.due_at, task=row.task, unit=row.unit)


def _questions(connection: Connection, execution: str, live: Collection[str]) -> Iterable[Wait]:
    said = (
        select(func.count())
        .where(decisions.c.approval == approvals.c.id)
        .correlate(approvals)
        .scalar_subquery()
    )
    query = select(approvals, said.label("said")).where(
        approvals.c.execution == execution, approvals.c.task.in_(live), approvals.c.status == UNDECIDED
    )
    for row in connection.execute(query.order_by(approvals.c.id).limit(MOST_WAITS)):
        yield Wait(
            "person",
            name=row.kind,
            until=row.expires_at,
            since=row.created_at,
            task=row.task,
            unit=row.unit,
            job=row.job,
            approval=row.id,
            approvers=tuple(row.approvers),
            approved=row.said,
            quorum=row.quorum,
        )


class _Jobs:
    """What each open job waits for, as a handover would decide now."""

    def __init__(
        self,
        connection: Connection,
        settings: Settings,
        head: ExecutionState,
        found: Mapping[str, TaskState],
        now: float,
    ) -> None:
        self.connection = connection
        self.settings = settings
        self.head = head
        self.found = found
        self.now = now

    def waits(self, live: Collection[str]) -> Iterable[Wait]:
        query = (
            select(
                *(jobs.c[name] for name in ("id", "task", "unit", "node", "status", "give_up_at")),
                *(jobs.c[name] for name in ("dispatched_at", "accepted_at", "started_at", "backstop_at")),
                *(nodes.c[name] for name in ("last_seen", "state", "slots")),
            )
            .outerjoin(nodes, nodes.c.name == jobs.c.node)
            .where(
                jobs.c.execution == self.head.id,
                jobs.c.task.in_(live),
                jobs.c.node != "",
                jobs.c.status.not_in(JOB_OVER),
                jobs.c.settled.is_(False),
            )
            .order_by(jobs.c.unit, jobs.c.attempt, jobs.c.id)
            .limit(MOST_WAITS)
        )
        open_ = list(self.connection.execute(query).mappings())
        queued = [row for row in open_ if row["status"] == QUEUED]
        on_node = self._out(jobs.c.node, {row["node"] for row in queued})
        mine = jobs.c.execution == self.head.id
        of_task = self._out(jobs.c.task, {row["task"] for row in queued}, mine)
        for row in open_:
            same = {"task": row["task"], "unit": row["unit"], "job": row["id"], "node": row["node"]}
            yield Wait(**same, **self._why(row, on_node, of_task))

    def _out(self, column: Any, names: Collection[str], *more: Any) -> dict[str, int]:
        """How many jobs are outstanding, by the column."""
        query = select(column, func.count()).where(column.in_(names), jobs.c.status.in_(JOB_OUT), *more)
        if not names:
            return {}
        return {name: count for name, count in self.connection.execute(query.group_by(column))}

    def _why(self, row: RowMapping, on_node: Mapping[str, int], of_task: Mapping[str, int]) -> dict[str, Any]:
        status = row["status"]
        if status == QUEUED:
            return self._why_queued(row, on_node, of_task)
        if status == DISPATCHED:
            return {"kind": "order", "since": row["dispatched_at"]}
        if status == SUSPECT:
            return {"kind": "silent", "since": row["last_seen"]}
        if status == UNKNOWN:
            return {"kind": "unknown", "since": row["last_seen"]}
        since = {ACCEPTED: row["accepted_at"], RUNNING: row["started_at"]}.get(status)
        return {"kind": "job", "name": status, "since": since, "until": row["backstop_at"]}

    def _why_queued(
        self, row: RowMapping, on_node: Mapping[str, int], of_task: Mapping[str, int]
    ) -> dict[str, Any]:
        if self.head.gate == GATE_PENDING:
            return {"kind": "gate"}
        if self.head.intent == PAUSE:
            return {"kind": "pause"}
        seen = row["last_seen"]
        if row["state"] != "active":
            return {"kind": "node", "name": row["state"] or "removed", "until": row["give_up_at"]}
        if seen is None or seen <= self.now - self.settings.offline_after:
            return {"kind": "node", "name": "offline", "since": seen, "until": row["give_up_at"]}
        if on_node.get(row["node"], 0) >= ORDERS_PER_SLOT * row["slots"]:
            return {"kind": "room"}
        cap = self.settings.fanout_window
        own = self.found[row["task"]].window
        is_wide = self.found[row["task"]].units > 1
        if is_wide and of_task.get(row["task"], 0) >= min(own or cap, cap):
            return {"kind": "window"}
        return {"kind": "handover"}
