"""From exit record to outcome."""

from __future__ import annotations

from typing import Any

import pytest
from planned_jobs import planned

from app.node import process, shells
from app.node.executor import not_run, outcome_from
from app.transport.messages import Outcome

JOB = planned(id="e.t.0.1", execution="e", task="t", unit=0, attempt=1, action="core.shell", argv=("true",))
WHERE = {"installation": "i", "node": "web-1", "epoch": "01EPOCH"}


def record(**changes: Any) -> dict[str, Any]:
    return {**process.opening(JOB.id, JOB.digest, "succeeded", None), **changes}


@pytest.mark.parametrize(
    ("given", "status", "error"),
    [
        (record(), "succeeded", None),
        (record(digest=""), "succeeded", None),
        (record(status="failed", error={"type": "exit", "message": "exit code 3"}), "failed", "exit"),
        (record(status="timed_out", error={"type": "timeout", "message": "m"}), "timed_out", "timeout"),
        (record(status="cancelled", error={"type": "cancelled", "message": "m"}), "cancelled", "cancelled"),
        (record(status="unknown", error={"type": "interrupted", "message": "m"}), "unknown", "interrupted"),
        (record(digest="other"), "unknown", "other_digest"),
        (record(status="sideways"), "unknown", "record"),
        ({}, "unknown", "record"),
    ],
)
def test_outcome(given: dict[str, Any], status: str, error: str | None) -> None:
    outcome = outcome_from(given, JOB, **WHERE)
    assert outcome.status == status
    assert (outcome.error or {}).get("type") == error
    assert (outcome.job, outcome.digest, outcome.node, outcome.epoch) == (
        JOB.id,
        JOB.digest,
        "web-1",
        "01EPOCH",
    )
    assert Outcome.from_json(outcome.to_json()) == outcome


def test_everything_is_carried_over() -> None:
    stream = {**record()["stdout"], "bytes": 5, "kept": 5, "head": "aGVsbG8="}
    given = record(
        exit_code=143,
        signal=15,
        status="cancelled",
        error={"type": "cancelled", "message": "m" * 10_000},
        started_at=1.5,
        ended_at=2.5,
        output={"a": 1},
        stdout=stream,
        left=3,
    )
    outcome = outcome_from(given, JOB, **WHERE)
    assert (outcome.exit_code, outcome.signal, outcome.started_at, outcome.ended_at) == (143, 15, 1.5, 2.5)
    assert (outcome.output, outcome.stdout.head, outcome.stderr.bytes) == ({"a": 1}, "aGVsbG8=", 0)
    assert outcome.error is not None
    assert (outcome.error["left"], len(outcome.error["message"])) == (3, 4000)


def test_a_job_that_the_node_refused() -> None:
    outcome = not_run(JOB, "refused", "known with another content", **WHERE)
    assert (outcome.status, outcome.error) == (
        "failed",
        {"type": "refused", "message": "known with another content"},
    )


def test_the_shells_of_this_machine() -> None:
    assert set(shells.available()) >= {"sh", "bash"}
    assert shells.available("/nowhere") == ()
    assert shells.command_for("sh", "/nowhere:/bin") == ["/bin/sh"]
    assert shells.command_for("fish", "/bin") is None
