"""Output that was too large for its outcome: taken from the live stream, checked against the signed digest."""

from __future__ import annotations

import hashlib

from sqlalchemy import select, update

from app.services import handover
from app.services.collect import Desk, tell
from app.services.outcomes import STREAMS
from app.store.tables import Job, Output, table
from app.transport.output import key

jobs, outputs = table(Job), table(Output)


def keep(desk: Desk, job: str) -> bool:
    """Store what the stream holds of a job's unverified output, if its digest is the signed one.

    Where it is not (the stream was cut, or somebody wrote into it), the stream is dropped and the node asked to
    spool its output again; the row stays `verified: false` until it fits. A stream that has not come to its end is
    left alone: the tick looks again. Returns whether all is verified now.
    """
    query = (
        select(outputs.c.stream, outputs.c.sha256, outputs.c.verified, jobs.c.node)
        .join(jobs, jobs.c.id == outputs.c.job)
        .where(outputs.c.job == job)
    )
    with desk.control.store.read() as connection:
        missing = [row for row in connection.execute(query) if not row.verified]
    if not missing:
        return True
    name = key(missing[0].node, job)
    live = desk.streams.output(name)
    found = live.streams
    good = {
        row.stream: bytes(found[row.stream])
        for row in missing
        if row.stream in STREAMS and hashlib.sha256(found[row.stream]).hexdigest() == row.sha256
    }
    with desk.control.store.write() as connection:
        for stream, content in good.items():
            connection.execute(
                update(outputs)
                .where(outputs.c.job == job, outputs.c.stream == stream)
                .values(content=content, verified=True)
            )
    if len(good) < len(missing) and live.ended:
        desk.streams.drop(name)
        _ask(desk, missing[0].node, job)
    return len(good) == len(missing)


def _ask(desk: Desk, node: str, job: str) -> None:
    now = desk.control.clock()
    with desk.control.store.read() as connection:
        place = handover.places(connection, {node}, now, desk.control.settings.offline_after).get(node)
    if place is not None:
        tell(desk, "spool", (job,), place.recipient)
