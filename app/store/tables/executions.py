"""One invocation of a workflow: its tasks, jobs, variables, timers, events and kept output."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, LargeBinary, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from app.engine.status import EXECUTION_STATUSES, JOB_STATUSES, TASK_STATUSES
from app.store.tables.root import Base
from app.store.types import Instant, Json

Blob = bytes


def _one_of(column: str, values: tuple[str, ...]) -> CheckConstraint:
    return CheckConstraint(f"{column} IN ({', '.join(repr(value) for value in values)})", name=column)


class Execution(Base):
    """`kind` is workflow, script (a saved one: `script` is its id, kept when it is deleted) or adhoc.

    `gate` is where the approval is that it waits for before any task is born: pending, approved, rejected, expired or
    closed; empty where it needs none. `gates` is how often people were asked for it. `schedule` is the id of the one
    that started it, kept when that is deleted. `askers` are the logins of those who had a hand in it beside the
    requester, the last one last: who wrote what its schedule runs, and whoever tried it again. `workspace` is the
    snapshot of its files as they are now, "" for none.
    """

    __tablename__ = "executions"
    __table_args__ = (
        _one_of("status", EXECUTION_STATUSES),
        Index("ix_executions_status_id", "status", "id"),
        Index("ix_executions_workflow_ref_id", "workflow_ref", "id"),
        Index("ix_executions_ended_at", "ended_at"),
        Index("ix_executions_kind_id", "kind", "id"),
        Index("ix_executions_script_id", "script", "id"),
        Index("ix_executions_schedule_status", "schedule", "status"),
    )

    id: Mapped[str] = mapped_column(String(26), primary_key=True)
    workflow_ref: Mapped[str] = mapped_column(String(129))
    workflow_revision: Mapped[int | None]
    kind: Mapped[str] = mapped_column(String(8), default="workflow")
    script: Mapped[str] = mapped_column(String(26), default="")
    script_version: Mapped[int] = mapped_column(default=0)
    schedule: Mapped[str | None] = mapped_column(String(26))
    plan_digest: Mapped[str] = mapped_column(ForeignKey("plans.digest"))
    requester: Mapped[str] = mapped_column(String(64))
    askers: Mapped[Any] = mapped_column(Json, default=list)
    origin: Mapped[str] = mapped_column(String(8), default="stored")
    guard: Mapped[str] = mapped_column(String(8), default="")
    trace_id: Mapped[str] = mapped_column(String(32))
    parent_span: Mapped[str] = mapped_column(String(16), default="")
    parent: Mapped[str | None] = mapped_column(String(26), index=True)
    parent_job: Mapped[str | None] = mapped_column(String(200), unique=True)
    depth: Mapped[int] = mapped_column(default=0)
    held: Mapped[bool] = mapped_column(default=False)
    status: Mapped[str] = mapped_column(String(16))
    intent: Mapped[str] = mapped_column(String(8), default="run")
    gate: Mapped[str] = mapped_column(String(8), default="")
    gates: Mapped[int] = mapped_column(default=0)
    workspace: Mapped[str] = mapped_column(String(64), default="")
    halt: Mapped[str] = mapped_column(String(16), default="")
    live: Mapped[int] = mapped_column(default=0)
    waiting: Mapped[int] = mapped_column(default=0)
    unhandled: Mapped[int] = mapped_column(default=0)
    handled: Mapped[int] = mapped_column(default=0)
    ended_badly: Mapped[str] = mapped_column(String(32), default="")
    error_message: Mapped[str] = mapped_column(Text, default="")
    finally_at: Mapped[int] = mapped_column(default=-1)
    var_seq: Mapped[int] = mapped_column(default=0)
    var_bytes: Mapped[int] = mapped_column(default=0)
    event_seq: Mapped[int] = mapped_column(default=0)
    parameters: Mapped[Any] = mapped_column(Json, default=dict)
    config: Mapped[Any] = mapped_column(Json, default=dict)
    output: Mapped[Any] = mapped_column(Json, nullable=True)
    degraded: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[float] = mapped_column(Instant)
    started_at: Mapped[float | None] = mapped_column(Instant)
    ended_at: Mapped[float | None] = mapped_column(Instant)


class Task(Base):
    """A task's record inside an execution (seed 004: workflow_task_execution).

    `snapshot` is what its jobs are given of the workspace, all of them the same, None until the first of them goes out;
    a retry of the execution takes it anew.
    """

    __tablename__ = "tasks"
    __table_args__ = (_one_of("status", TASK_STATUSES),)

    execution: Mapped[str] = mapped_column(ForeignKey("executions.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    task_index: Mapped[int]
    is_finally: Mapped[bool] = mapped_column(default=False)
    status: Mapped[str] = mapped_column(String(16))
    wait_reason: Mapped[str] = mapped_column(String(16), default="")
    open: Mapped[int] = mapped_column(default=0)
    fired: Mapped[int] = mapped_column(default=0)
    units: Mapped[int] = mapped_column(default=0)
    started: Mapped[int] = mapped_column(default=0)
    over: Mapped[int] = mapped_column(default=0)
    succeeded: Mapped[int] = mapped_column(default=0)
    failed: Mapped[int] = mapped_column(default=0)
    skipped: Mapped[int] = mapped_column(default=0)
    cancelled: Mapped[int] = mapped_column(default=0)
    stopping: Mapped[str] = mapped_column(String(16), default="")
    input: Mapped[Any] = mapped_column(Json, nullable=True)
    nodes: Mapped[Any] = mapped_column(Json, nullable=True)
    total: Mapped[int] = mapped_column(default=0)
    window: Mapped[int] = mapped_column(default=0)
    items: Mapped[Any] = mapped_column(Json, nullable=True)
    timeout: Mapped[float | None]
    result: Mapped[Any] = mapped_column(Json, nullable=True)
    error: Mapped[Any] = mapped_column(Json, nullable=True)
    went: Mapped[Any] = mapped_column(Json, nullable=True)
    started_at: Mapped[float | None] = mapped_column(Instant)
    ended_at: Mapped[float | None] = mapped_column(Instant)
    first_attempt: Mapped[int] = mapped_column(default=1)
    base_attempt: Mapped[int] = mapped_column(default=1)
    retry_count: Mapped[int] = mapped_column(default=0)
    max_retries: Mapped[int] = mapped_column(default=0)
    snapshot: Mapped[str | None] = mapped_column(String(64))


class Job(Base):
    """One task x unit x attempt: what travels through a queue. The row is the outbox."""

    __tablename__ = "jobs"
    __table_args__ = (
        _one_of("status", JOB_STATUSES),
        Index("ix_jobs_execution_task", "execution", "task", "status", "unit"),
        Index("ix_jobs_node_status", "node", "status", "created_at", "id"),
        Index("ix_jobs_settled_status", "settled", "status"),
        # The tick looks for the few that are out among all that are kept.
        Index("ix_jobs_status", "status", "node"),
    )

    id: Mapped[str] = mapped_column(String(200), primary_key=True)
    execution: Mapped[str] = mapped_column(ForeignKey("executions.id", ondelete="CASCADE"))
    task: Mapped[str] = mapped_column(String(64))
    unit: Mapped[int]
    attempt: Mapped[int]
    node: Mapped[str] = mapped_column(String(64))
    status: Mapped[str] = mapped_column(String(16))
    settled: Mapped[bool] = mapped_column(default=False)
    digest: Mapped[str] = mapped_column(String(64), default="")
    canvas_digest: Mapped[str] = mapped_column(String(64), default="")
    first_canvas_digest: Mapped[str] = mapped_column(String(64), default="")
    epoch: Mapped[str] = mapped_column(String(64), default="")
    sends: Mapped[int] = mapped_column(default=0)
    send_after: Mapped[float | None] = mapped_column(Instant)
    order_expires_at: Mapped[float | None] = mapped_column(Instant)
    queue_timeout: Mapped[float] = mapped_column(default=3600.0)
    given: Mapped[Any] = mapped_column(Json, nullable=True)
    along: Mapped[Any] = mapped_column(Json, nullable=True)
    snapshot: Mapped[str | None] = mapped_column(String(64))
    give_up_at: Mapped[float | None] = mapped_column(Instant)
    missing: Mapped[int] = mapped_column(default=0)
    stop_asked_at: Mapped[float | None] = mapped_column(Instant)
    stop_sent_at: Mapped[float | None] = mapped_column(Instant)
    effect_unknown: Mapped[bool] = mapped_column(default=False)
    exit_code: Mapped[int | None]
    result: Mapped[Any] = mapped_column(Json, nullable=True)
    error: Mapped[Any] = mapped_column(Json, nullable=True)
    late: Mapped[Any] = mapped_column(Json, nullable=True)
    created_at: Mapped[float] = mapped_column(Instant)
    dispatched_at: Mapped[float | None] = mapped_column(Instant)
    accepted_at: Mapped[float | None] = mapped_column(Instant)
    started_at: Mapped[float | None] = mapped_column(Instant)
    time_limit: Mapped[float | None]
    backstop_at: Mapped[float | None] = mapped_column(Instant)
    ended_at: Mapped[float | None] = mapped_column(Instant)
    recorded_at: Mapped[float | None] = mapped_column(Instant)


class Variable(Base):
    """Published variables, append-only: the one with the highest seq of a name counts, unless it is void.

    What a task published is void once a retry of the execution has reset the task.
    """

    __tablename__ = "variables"
    __table_args__ = (Index("ix_variables_execution_name_seq", "execution", "name", "seq"),)

    execution: Mapped[str] = mapped_column(ForeignKey("executions.id", ondelete="CASCADE"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(64))
    value: Mapped[Any] = mapped_column(Json, nullable=True)
    task: Mapped[str] = mapped_column(String(64), default="")
    void: Mapped[bool] = mapped_column(default=False)


class Timer(Base):
    """Every delay is a row: no ETA, no countdown."""

    __tablename__ = "timers"

    execution: Mapped[str] = mapped_column(ForeignKey("executions.id", ondelete="CASCADE"), primary_key=True)
    task: Mapped[str] = mapped_column(String(64), primary_key=True)
    unit: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(16), primary_key=True)
    due_at: Mapped[float] = mapped_column(Instant, index=True)


class Event(Base):
    """Every input of the engine with what came of it, append-only."""

    __tablename__ = "events"

    execution: Mapped[str] = mapped_column(ForeignKey("executions.id", ondelete="CASCADE"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(32))
    at: Mapped[float] = mapped_column(Instant)
    data: Mapped[Any] = mapped_column(Json, default=dict)


class Pin(Base):
    """Which plan held from which event on. Only executions whose plan was changed have any, the first for event 1."""

    __tablename__ = "pins"

    execution: Mapped[str] = mapped_column(ForeignKey("executions.id", ondelete="CASCADE"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    plan_digest: Mapped[str] = mapped_column(ForeignKey("plans.digest"))


class Output(Base):
    """What was kept of one stream of one job. `verified`: its digest is the one in the signed outcome."""

    __tablename__ = "outputs"
    __table_args__ = (
        # Of what was kept, next to all is verified: what is not is looked for every second.
        Index(
            "ix_outputs_unverified",
            "job",
            sqlite_where=text("verified IS 0"),
            postgresql_where=text("verified IS false"),
        ),
    )

    job: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    stream: Mapped[str] = mapped_column(String(8), primary_key=True)
    execution: Mapped[str] = mapped_column(String(26), index=True)
    bytes: Mapped[int] = mapped_column(BigInteger)
    kept: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64))
    truncated: Mapped[bool] = mapped_column(default=False)
    verified: Mapped[bool] = mapped_column(default=True)
    content: Mapped[Blob] = mapped_column(LargeBinary)
