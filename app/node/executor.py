"""From what the runner recorded to what the node answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.logs import scope
from app.transport.messages import ENDED, Job, Outcome, Stream

_MESSAGE_LIMIT = 4000


def outcome_from(record: Mapping[str, Any], job: Job, *, installation: str, node: str, epoch: str) -> Outcome:
    """The outcome of `job` by its exit record.

    A record without a status that an outcome may have, or of a job with another digest, does not tell how
    this job ended: its outcome is `unknown`, with the reason.
    """
    status, error, digest = str(record.get("status")), record.get("error"), job.digest
    if status not in ENDED:
        status, error = "unknown", {"type": "record", "message": f"the exit record says {status!r}"}
    if record.get("digest") not in ("", None, digest):
        message = "the exit record is of a job with the same id and another content"
        status, error = "unknown", {"type": "other_digest", "message": message}
    return Outcome(
        job=job.id,
        digest=digest,
        installation=installation,
        node=node,
        epoch=epoch,
        status=status,
        exit_code=record.get("exit_code"),
        signal=record.get("signal"),
        error=_error(error, record.get("left")),
        started_at=record.get("started_at"),
        ended_at=record.get("ended_at"),
        stdout=Stream.from_json(record.get("stdout", {})),
        stderr=Stream.from_json(record.get("stderr", {})),
        output=record.get("output"),
    )


def not_run(job: Job, kind: str, message: str, *, installation: str, node: str, epoch: str) -> Outcome:
    """The outcome of a job that the node refused before the runner saw it: `failed`, of type `kind`."""
    return Outcome(
        job=job.id,
        digest=job.digest,
        installation=installation,
        node=node,
        epoch=epoch,
        status="failed",
        error=_error({"type": kind, "message": message}, None),
    )


def facts_of(outcome: Outcome) -> dict[str, Any]:
    """How it ended, for a line of the log."""
    began, ended = outcome.started_at, outcome.ended_at
    seconds = round(ended - began, 3) if began is not None and ended is not None else None
    return scope.facts(status=outcome.status, exit_code=outcome.exit_code, seconds=seconds)


def _error(error: Mapping[str, Any] | None, left: int | None) -> dict[str, Any] | None:
    if error is None:
        return None
    found = {**error, "message": str(error.get("message", ""))[:_MESSAGE_LIMIT]}
    if left:
        found["left"] = left
    return found
