"""What became of scripts on their nodes: a row for every node from the first moment, and one word for all of them.

A bounded number of statements, however many nodes there are. The word is `engine.rollup`; a list asks for it in SQL,
from the counters of the one task, so that it can be filtered by.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    Select,
    and_,
    case,
    exists,
    func,
    or_,
    select,
)

from app import marks
from app.compiler.plan import FANOUT_ACTION, Plan, PlanTask
from app.engine import rollup
from app.engine.status import (
    CANCEL,
    CANCELLED,
    DISPATCHED,
    EXECUTION_OVER,
    FAILED,
    JOB_HELD,
    JOB_OVER,
    NOT_REACHED,
    PENDING,
    QUEUED,
    REJECTED,
    RUNNING,
    SKIPPED,
    SUCCEEDED,
    TIMED_OUT,
    UNKNOWN,
)
from app.errors import NotFound
from app.services import script_output
from app.services.script_output import Texts
from app.services.scripted import PACK, TASK
from app.store import executions as rows
from app.store.tables import Execution, Job, Output, Task, table

executions, tasks, jobs, outputs = table(Execution), table(Task), table(Job), table(Output)

KINDS: Final = ("script", "adhoc")

# the word, in SQL


def _any_started() -> ColumnElement[bool]:
    """Whether anything happened on a node, by the newest job of each: those kept by a retry are in the counters."""
    open_or_not_folded = exists().where(
        jobs.c.execution == executions.c.id,
        jobs.c.task == tasks.c.name,
        jobs.c.status.in_(sorted(rollup.STARTED)),
        jobs.c.attempt >= tasks.c.first_attempt,
    )
    return or_(tasks.c.succeeded + tasks.c.failed > 0, open_or_not_folded)


def _is(*statuses: str) -> ColumnElement[bool]:
    return executions.c.status.in_(sorted(statuses))


_WORD: Final = case(
    (_is(REJECTED), REJECTED),
    (
        ~_is(*EXECUTION_OVER),
        case(
            (executions.c.gate == rollup.GATE_PENDING, rollup.PENDING_APPROVAL),
            (_any_started(), RUNNING),
            else_=QUEUED,
        ),
    ),
    (or_(_is(CANCELLED), executions.c.intent == CANCEL), CANCELLED),
    (or_(_is(FAILED), tasks.c.failed > 0), FAILED),
    (and_(tasks.c.units > 0, tasks.c.skipped == tasks.c.units), SKIPPED),
    else_=SUCCEEDED,
)
_OPEN_WORDS: Final = frozenset({rollup.PENDING_APPROVAL, RUNNING, QUEUED})

_COLUMNS: Final = tuple(
    executions.c[name]
    for name in (
        "id",
        "kind",
        "workflow_ref",
        "script",
        "script_version",
        "requester",
        "gate",
        "intent",
        "error_message",
        "created_at",
        "started_at",
        "ended_at",
    )
)
_COUNTS: Final = tuple(tasks.c[name] for name in ("units", "succeeded", "failed", "skipped", "cancelled"))


def _select(*more: Any) -> Select[Any]:
    found = select(*_COLUMNS, *_COUNTS, _WORD.label("word"), *more)
    of_script = and_(tasks.c.execution == executions.c.id, tasks.c.name == TASK)
    return found.join(tasks, of_script).where(executions.c.kind.in_(KINDS))


def list_executions(
    connection: Connection,
    *,
    limit: int,
    before: str | None = None,
    words: Sequence[str] = (),
    script: str | None = None,
    within: ColumnElement[bool] | None = None,
) -> list[dict[str, Any]]:
    """Executions of scripts, the newest first, those with an id less than `before`; `words` are of the roll-up.

    `script` is the id or the name of a saved one, also of one that was deleted. `within` bounds what is found.
    """
    query = _select().order_by(executions.c.id.desc()).limit(limit)
    if before is not None:
        query = query.where(executions.c.id < before)
    if within is not None:
        query = query.where(within)
    if script is not None:
        named = executions.c.workflow_ref == f"{PACK}.{script}"
        query = query.where(executions.c.script != "", or_(executions.c.script == script, named))
    if words:
        query = query.where(_WORD.in_(list(words)))
        if _OPEN_WORDS.issuperset(words):
            query = query.where(~_is(*EXECUTION_OVER))
        elif _OPEN_WORDS.isdisjoint(words):
            query = query.where(_is(*EXECUTION_OVER))
    return [_summary(row) for row in connection.execute(query).mappings()]


def _summary(row: RowMapping) -> dict[str, Any]:
    name = row["workflow_ref"].partition(".")[2]
    script = {"id": row["script"], "name": name, "version": row["script_version"]}
    return {
        **{key: row[key] for key in ("id", "kind", "requester", "gate", "error_message", "created_at")},
        "script": script if row["script"] else None,
        "status": row["word"],
        "started_at": row["started_at"],
        "completed_at": row["ended_at"],
        "succeeded_count": row["succeeded"],
        "failed_count": row["failed"],
        "skipped_count": row["skipped"],
        "total_count": row["units"] or None,
    }


# one execution


def check(connection: Connection, id_: str) -> None:
    """Raises NotFound unless there is such an execution of a script."""
    word(connection, id_)


def word(connection: Connection, id_: str) -> str:
    """The one word for an execution. Raises NotFound."""
    found = connection.execute(_select().where(executions.c.id == id_)).mappings().first()
    if found is None:
        raise unknown(id_)
    return str(found["word"])


def execution(connection: Connection, id_: str, *, folded: bool = False) -> dict[str, Any]:
    """One execution with a row for each node; `folded` tells outputs that are the same once. Raises NotFound.

    At most six statements.
    """
    more = (
        executions.c.plan_digest,
        executions.c.parameters,
        executions.c.status,
        tasks.c.nodes,
        tasks.c.base_attempt,
        tasks.c.started.label("begun"),
        tasks.c.status.label("task_status"),
        tasks.c.error.label("task_error"),
    )
    row = connection.execute(_select(*more).where(executions.c.id == id_)).mappings().first()
    if row is None:
        raise unknown(id_)
    plan = rows.plan(connection, row["plan_digest"])
    task = plan.tasks[TASK]
    hosts = _hosts(connection, row, _nodes(row, task))
    wrote = [host["job"] for host in hosts if host["raw"] in _MAY_HAVE_WRITTEN]
    texts = Texts(connection, id_, wrote)
    groups = script_output.groups(hosts, texts) if folded else None
    texts.read(None if groups is None else [group["of"]["job"] for group in groups])
    shown = [texts.put(host, with_text=groups is None) for host in hosts]
    word = rollup.roll_up(row["status"], row["gate"], row["intent"], (host["raw"] for host in hosts))
    return {
        **_summary(row),
        "status": word,
        "total_count": len(hosts),
        "parameters": marks.shown(row["parameters"]),
        **_told(plan, task),
        "hosts": [_without(host, "raw", "job") for host in shown],
        "skipped_hosts": [
            {"host_id": host["host_id"], "reason": (host["error"] or {}).get("message", "")}
            for host in hosts
            if host["status"] == SKIPPED
        ],
        **({} if groups is None else script_output.fold(groups, texts)),
    }


def unknown(execution: str) -> NotFound:
    """That there is no such execution of a script."""
    return NotFound(
        f"there is no execution {execution} of a script",
        hint=f"`muster script executions` lists them; any other is shown by `muster execution show {execution}`",
        code="unknown-execution",
    )


def _told(plan: Plan, task: PlanTask) -> dict[str, Any]:
    """What ran, and how it was spread."""
    given = task.input
    return {
        "shell": given.get("shell"),
        "body": given.get("script"),
        "command": given.get("command"),
        "timeout": given.get("timeout", task.timeout),
        "batch": given.get("batch"),
        "max_failures": given.get("max_failures", 0),
        "requires_approval": plan.gate is not None,
    }


def _nodes(row: RowMapping, task: PlanTask) -> list[str]:
    """Every node that is meant, also before the task has begun."""
    if row["nodes"]:
        return list(row["nodes"])
    if task.action != FANOUT_ACTION:
        return [str(task.delegate_to)]
    nodes = task.input.get("nodes")
    return list(nodes) if isinstance(nodes, list | tuple) else []


_MAY_HAVE_WRITTEN: Final = JOB_OVER | JOB_HELD | {UNKNOWN}
_STATUS: Final = {
    **dict.fromkeys((PENDING, QUEUED, DISPATCHED), QUEUED),
    **dict.fromkeys(JOB_HELD, RUNNING),
}
"""What a job is called here; what is not in here keeps its name."""


def _hosts(connection: Connection, row: RowMapping, nodes: list[str]) -> list[dict[str, Any]]:
    if not row["begun"]:
        return [_host(row, node, None) for node in nodes]
    latest = (
        select(jobs.c.unit, func.max(jobs.c.attempt).label("attempt"))
        .where(jobs.c.execution == row["id"], jobs.c.task == TASK, jobs.c.attempt >= row["base_attempt"])
        .group_by(jobs.c.unit)
        .subquery()
    )
    columns = ("id", "unit", "status", "exit_code", "error", "created_at", "started_at", "ended_at")
    query = select(*(jobs.c[name] for name in columns)).join(
        latest, and_(jobs.c.unit == latest.c.unit, jobs.c.attempt == latest.c.attempt)
    )
    of_task = query.where(jobs.c.execution == row["id"], jobs.c.task == TASK)
    by_unit = {job["unit"]: job for job in connection.execute(of_task).mappings()}
    return [_host(row, node, by_unit.get(unit)) for unit, node in enumerate(nodes)]


def _host(row: RowMapping, node: str, job: RowMapping | None) -> dict[str, Any]:
    if job is None:
        # Without a job: not begun, never to begin, or what there was to begin with could not be had.
        over = row["status"] in EXECUTION_OVER
        failed = over and row["task_status"] in (FAILED, TIMED_OUT) and not row["units"]
        raw = FAILED if failed else NOT_REACHED if over else QUEUED
        told: dict[str, Any] = {"exit_code": None, "started_at": None, "ended_at": None}
        told |= {"error": row["task_error"] if failed else None, "created_at": row["created_at"]}
    else:
        raw, told = job["status"], dict(job)
    return {
        "host_id": node,
        "status": _STATUS.get(raw, raw),
        "queued_at": told["created_at"],
        "started_at": told["started_at"],
        "completed_at": told["ended_at"],
        "return_code": None if raw == TIMED_OUT else told["exit_code"],
        "error": told["error"],
        "raw": raw,
        "job": None if job is None else job["id"],
    }


def _without(host: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in host.items() if name not in names}
