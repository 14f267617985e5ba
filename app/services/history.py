"""What an execution left behind: kept output, and the events in their order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, RowMapping, and_, case, func, select, tuple_

from app.engine.events import JobEnded
from app.engine.status import JOB_OUT, QUEUED
from app.errors import NotFound
from app.services.queries import state
from app.store.tables import Event, Job, Output, Task

tasks, jobs = Task.__table__, Job.__table__
events, outputs = Event.__table__, Output.__table__

OUTPUT_BYTES = 8_000_000
"""Kept output in one answer at the most, but for a single stream that is larger."""


@dataclass(frozen=True, slots=True)
class OutputFilter:
    task: str | None = None
    node: str | None = None
    stream: str | None = None
    content: bool = True


Place = tuple[int, int, int, str]
"""Where a stream stands in the listing: task_index, unit, attempt, stream."""

_LAST = 1_000_000
"""The place of tasks that a newer version of the workflow no longer has."""

_index = func.coalesce(tasks.c.task_index, _LAST).label("task_index")
_ORDER = (_index, jobs.c.unit, jobs.c.attempt, outputs.c.stream)


def list_output(
    connection: Connection, execution: str, wanted: OutputFilter, *, limit: int, after: Place | None = None
) -> tuple[list[dict[str, Any]], Place | None]:
    """Kept output with its `content` (bytes; None if not wanted), and where to go on. Raises NotFound. Three
    statements at the most."""
    state(connection, execution)
    query = (
        select(
            outputs.c.job,
            jobs.c.task,
            jobs.c.unit,
            jobs.c.attempt,
            jobs.c.node,
            outputs.c.stream,
            *(outputs.c[name] for name in ("bytes", "kept", "truncated", "verified", "sha256")),
            _index,
        )
        .join(jobs, jobs.c.id == outputs.c.job)
        .outerjoin(tasks, and_(tasks.c.execution == jobs.c.execution, tasks.c.name == jobs.c.task))
        .where(outputs.c.execution == execution)
    )
    filters = (jobs.c.task, wanted.task), (jobs.c.node, wanted.node), (outputs.c.stream, wanted.stream)
    for column, value in filters:
        if value is not None:
            query = query.where(column == value)
    if after is not None:
        query = query.where(tuple_(*_ORDER) > tuple_(*after))
    found = list(connection.execute(query.order_by(*_ORDER).limit(limit + 1)).mappings())
    page = _fitting(found[:limit]) if wanted.content else found[:limit]
    content = _contents(connection, [row["job"] for row in page] if wanted.content else [])
    nothing = b"" if wanted.content else None
    items = [{**row, "content": content.get((row["job"], row["stream"]), nothing)} for row in page]
    if len(page) == len(found):
        return items, None
    last = page[-1]
    return items, (last["task_index"], last["unit"], last["attempt"], last["stream"])


def _fitting(found: list[RowMapping]) -> list[RowMapping]:
    total = 0
    for position, row in enumerate(found):
        total += row["kept"]
        if total > OUTPUT_BYTES and position:
            return found[:position]
    return found


def _contents(connection: Connection, wanted: Sequence[str]) -> dict[tuple[str, str], bytes]:
    query = select(outputs.c.job, outputs.c.stream, outputs.c.content).where(outputs.c.job.in_(set(wanted)))
    return {(job, stream): content for job, stream, content in connection.execute(query)} if wanted else {}


def raw_output(connection: Connection, execution: str, job: str, stream: str) -> bytes:
    """Every byte that was kept of one stream. Raises NotFound."""
    query = select(outputs.c.content).where(
        outputs.c.execution == execution, outputs.c.job == job, outputs.c.stream == stream
    )
    found = connection.execute(query).first()
    if found is None:
        raise NotFound(
            f"there is no {stream} kept of job {job}",
            hint="it comes when the job is over",
            code="unknown-output",
        )
    return bytes(found.content)


@dataclass(frozen=True, slots=True)
class Speaker:
    """A job whose output can be followed live."""

    job: str
    task: str
    node: str
    unit: int


_speakers = select(jobs.c.id, jobs.c.task, jobs.c.node, jobs.c.unit)
LISTENED_AT_ONCE = 200
"""Jobs of one execution whose live output is looked for at once; those that wait come last."""


def live_speakers(connection: Connection, execution: str) -> list[Speaker]:
    """The jobs that may speak now or soon: whoever listens from the start misses nothing and looks for nobody."""
    query = _speakers.where(jobs.c.execution == execution, jobs.c.status.in_((QUEUED, *JOB_OUT)))
    waits = case((jobs.c.status == QUEUED, 1), else_=0)
    found = connection.execute(query.order_by(waits, jobs.c.unit, jobs.c.id).limit(LISTENED_AT_ONCE))
    return [Speaker(*row) for row in found]


def speakers(connection: Connection, wanted: Sequence[str]) -> dict[str, Speaker]:
    """Jobs by their id, those left out that never got to a node."""
    query = _speakers.where(jobs.c.id.in_(wanted), jobs.c.dispatched_at.is_not(None))
    return {row.id: Speaker(*row) for row in connection.execute(query)} if wanted else {}


@dataclass(frozen=True, slots=True)
class Kept:
    """What was kept of each stream of a job that is over; `complete` unless some has still to be fetched."""

    streams: dict[str, bytes]
    complete: bool


def kept_output(connection: Connection, job: str) -> Kept:
    """That of one job. A job that wrote nothing left nothing, which is complete as well."""
    query = select(outputs.c.stream, outputs.c.content, outputs.c.verified).where(outputs.c.job == job)
    found = connection.execute(query).all()
    streams = {row.stream: bytes(row.content) for row in found if row.verified}
    return Kept(streams, all(row.verified for row in found))


@dataclass(frozen=True, slots=True)
class Happening:
    """One event: its number, what it was, when (Unix seconds), what came of it, and the job that it ended."""

    seq: int
    kind: str
    at: float
    log: list[dict[str, Any]]
    ended: str | None


def list_events(connection: Connection, execution: str, *, after: int, limit: int) -> list[Happening]:
    """Events with a number greater than `after`, in order."""
    query = (
        select(events.c.seq, events.c.kind, events.c.at, events.c.data)
        .where(events.c.execution == execution, events.c.seq > after)
        .order_by(events.c.seq)
        .limit(limit)
    )
    return [_happening(row) for row in connection.execute(query)]


def _happening(row: Any) -> Happening:
    data = row.data or {}
    ended = data.get("input", {}).get("job") if row.kind == JobEnded.kind else None
    return Happening(row.seq, row.kind, row.at, data.get("log", []), ended)
