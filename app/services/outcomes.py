"""Recording what a node answered: once, by compare-and-set; whatever comes later is kept and changes nothing."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from sqlalchemy import Connection, bindparam, insert, select, update

from app.compiler.plan import Plan
from app.engine.status import CANCELLED, FAILED, JOB_OVER, SUCCEEDED, UNKNOWN
from app.jobs.result import judged, storable
from app.store import executions as rows
from app.store.jobs import JobRow
from app.store.prepared import Command, one_of
from app.store.tables import Job, Node, Output, table
from app.transport.keys import Public
from app.transport.messages import Outcome, Stream
from app.transport.sealing import Signer as NodeSigner

jobs, nodes, outputs = table(Job), table(Node), table(Output)

STREAMS = ("stdout", "stderr")
_CACHE_SECONDS = 5.0


class NodeKeys:
    """Whose key a kid is, as the `nodes` table says; asked for at most every few seconds a key.

    The epoch is left open here: each service compares it with the job's row, and a heartbeat may bring a new one.
    """

    def __init__(self, store: Any) -> None:
        self._store = store
        self._known: dict[str, tuple[float, NodeSigner | None]] = {}

    def __call__(self, kid: str) -> NodeSigner | None:
        read_at, signer = self._known.get(kid, (0.0, None))
        if time.monotonic() - read_at > _CACHE_SECONDS:
            signer = self._read(kid)
            if len(self._known) > 10_000:
                self._known.clear()
            self._known[kid] = (time.monotonic(), signer)
        return signer

    def forget(self) -> None:
        self._known.clear()

    def _read(self, kid: str) -> NodeSigner | None:
        query = select(nodes.c.name, nodes.c.public_keys, nodes.c.state).where(nodes.c.sign_kid == kid)
        with self._store.read() as connection:
            row = connection.execute(query).first()
        if row is None or row.state == "removed":
            return None
        return NodeSigner(row.name, None, Public.from_json(row.public_keys))


class Filing(Protocol):
    """What sees to the files of a job as its outcome is recorded."""

    def merge(self) -> Mapping[str, Any] | None:
        """Find what becomes of them; why the job failed after all, if it did."""

    def keep(self, status: str) -> None:
        """Write it down, for a job that ended as `status`."""


class _NoFiling:
    def merge(self) -> None:
        return None

    def keep(self, status: str) -> None:
        """There is nothing to be kept."""


NO_FILING: Filing = _NoFiling()
"""For a job without files."""

_OUTCOME = ("status", "settled", "exit_code", "result", "error", "started_at", "ended_at", "recorded_at")
_record = Command(
    update(jobs)
    .where(
        jobs.c.id == bindparam("job"),
        jobs.c.settled.is_(False),
        ~one_of(jobs.c.status, JOB_OVER),
    )
    .values({name: bindparam(name) for name in _OUTCOME})
)
_OUTPUT = ("job", "stream", "execution", "bytes", "kept", "sha256", "truncated", "verified", "content")
_insert_output = Command(insert(outputs).inline().values({name: bindparam(name) for name in _OUTPUT}))


def belongs(row: JobRow, outcome: Outcome) -> bool:
    """Whether the outcome is about what this row handed over: same node, epoch and digest."""
    return bool((row.node, row.epoch, row.digest) == (outcome.node, outcome.epoch, outcome.digest))


def record(
    connection: Connection,
    row: JobRow,
    outcome: Outcome,
    now: float,
    given: Callable[[], Mapping[str, Any]],
    filing: Filing = NO_FILING,
    *,
    settled: bool,
) -> dict[str, Any] | None:
    """Write the outcome if the job has none. Returns the columns written if this was the first.

    `given` is asked for the task's rendered input where the result depends on it; `filing` sees to the job's files, and
    may say why it failed although its script did not. `settled` says that the caller folds the job in this transaction.
    A job that waits as `unknown` takes a late outcome; one that was settled as unknown keeps it beside, as `late`.
    """
    plan = rows.plan(connection, row.plan_digest)
    columns = columns_of(plan, row, outcome, now, given, filing)
    status = columns["status"]
    if status == UNKNOWN:
        return columns if _record_unknown(connection, row, columns) else None
    if not _record.run(connection, {"job": row.id, "settled": settled, **columns}):
        _keep_late(connection, row, columns)
        return None
    keep_output(connection, row, outcome)
    filing.keep(status)
    return columns


def columns_of(
    plan: Plan,
    row: JobRow,
    outcome: Outcome,
    now: float,
    given: Callable[[], Mapping[str, Any]],
    filing: Filing = NO_FILING,
) -> dict[str, Any]:
    """The columns that an outcome comes to."""
    status, result, error = judged(plan, row.task, outcome, given)
    if status == SUCCEEDED and (refused := filing.merge()) is not None:
        status, error = FAILED, storable(dict(refused))
    return {
        "status": status,
        "exit_code": outcome.exit_code,
        "result": result,
        "error": error,
        "started_at": outcome.started_at,
        "ended_at": outcome.ended_at or now,
        "recorded_at": now,
    }


def _record_unknown(connection: Connection, row: JobRow, columns: dict[str, Any]) -> bool:
    """The node itself does not know what became of the script: the engine decides what that means."""
    error = columns["error"] or {"type": "unknown", "message": "the node lost track of the script"}
    changed = connection.execute(
        update(jobs)
        .where(jobs.c.id == row.id, jobs.c.settled.is_(False), jobs.c.status.not_in({*JOB_OVER, UNKNOWN}))
        .values(error=error, result=columns["result"], started_at=columns["started_at"])
    ).rowcount
    return bool(changed)


def _keep_late(connection: Connection, row: JobRow, columns: Mapping[str, Any]) -> None:
    if not row.has_late and (row.status == UNKNOWN or (row.status == CANCELLED and row.effect_unknown)):
        late = {key: columns[key] for key in ("status", "exit_code", "error", "ended_at")}
        connection.execute(update(jobs).where(jobs.c.id == row.id).values(late=late))


def keep_output(connection: Connection, row: JobRow, outcome: Outcome) -> None:
    """Output that the outcome holds whole is stored at once; the rest is fetched from its stream afterwards."""
    for name in STREAMS:
        stream: Stream = getattr(outcome, name)
        if stream.bytes:
            store_output(connection, row, name, stream, whole_of(stream))


def whole_of(stream: Stream) -> bytes | None:
    """All kept bytes, where head and tail are everything (they never overlap): the digest says so."""
    body = base64.b64decode(stream.head) + base64.b64decode(stream.tail)
    return body if hashlib.sha256(body).hexdigest() == stream.sha256 else None


def store_output(
    connection: Connection, row: JobRow, name: str, stream: Stream, content: bytes | None
) -> None:
    """`content` is None where it has still to be fetched."""
    values = {
        "job": row.id,
        "stream": name,
        "execution": row.execution,
        "bytes": stream.bytes,
        "kept": stream.kept,
        "sha256": stream.sha256,
        "truncated": stream.truncated,
        "verified": content is not None,
        "content": content or b"",
    }
    _insert_output.run(connection, values)


def is_incomplete(outcome: Outcome) -> bool:
    """Whether some kept output has still to be fetched from its stream or the node's spool."""
    streams = (outcome.stdout, outcome.stderr)
    return any(stream.bytes and whole_of(stream) is None for stream in streams)
