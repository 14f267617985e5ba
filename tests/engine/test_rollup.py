"""The one word for an execution on many nodes: every status, gate and intent with every set of nodes' statuses."""

from __future__ import annotations

from itertools import combinations, product

import pytest

from app.engine.rollup import WORDS, roll_up
from app.engine.status import EXECUTION_OVER, EXECUTION_STATUSES, INTENTS, JOB_STATUSES, PENDING

GATES = ("", "pending", "approved", "rejected", "expired")
UNITS = (PENDING, *JOB_STATUSES)
OPEN = frozenset({"queued", "dispatched", "accepted", "running", "suspect", "unknown", "pending"})

# The execution, its gate, the nodes: the word.
CASES = (
    ("waiting", "pending", "run", (), "pending_approval"),
    ("waiting", "pending", "run", ("queued", "queued"), "pending_approval"),
    ("paused", "pending", "pause", ("queued",), "pending_approval"),
    ("rejected", "rejected", "run", ("not_reached",), "rejected"),
    ("rejected", "expired", "run", (), "rejected"),
    ("scheduling", "", "run", (), "queued"),
    ("running", "approved", "run", ("pending", "pending"), "queued"),
    ("running", "", "run", ("queued", "dispatched"), "queued"),
    ("running", "", "run", ("skipped", "queued"), "queued"),
    ("running", "", "run", ("accepted", "queued"), "running"),
    ("running", "", "run", ("running", "queued"), "running"),
    ("running", "", "run", ("succeeded", "queued"), "running"),
    ("running", "", "run", ("failed", "pending"), "running"),
    ("running", "", "run", ("unknown", "succeeded"), "running"),
    ("running", "", "run", ("succeeded", "succeeded"), "running"),
    ("waiting", "", "run", ("unknown",), "running"),
    ("paused", "", "pause", ("succeeded", "queued"), "running"),
    ("paused", "", "pause", ("queued",), "queued"),
    ("cancelling", "", "cancel", ("running",), "running"),
    ("cancelled", "", "cancel", ("cancelled", "succeeded"), "cancelled"),
    ("cancelled", "", "cancel", ("failed", "cancelled"), "cancelled"),
    ("cancelled", "", "cancel", ("succeeded", "succeeded"), "cancelled"),
    ("failed", "", "run", ("failed", "succeeded", "skipped"), "failed"),
    ("failed", "", "run", ("timed_out",), "failed"),
    ("failed", "", "run", ("unknown", "succeeded"), "failed"),
    ("failed", "", "run", ("failed", "not_reached"), "failed"),
    ("failed", "", "run", (), "failed"),
    ("completed", "", "run", ("failed", "succeeded"), "failed"),
    ("completed", "", "run", ("unknown", "succeeded"), "failed"),
    ("completed", "", "run", ("skipped", "skipped"), "skipped"),
    ("completed", "", "run", ("skipped", "succeeded"), "succeeded"),
    ("completed", "", "run", ("succeeded",), "succeeded"),
)


@pytest.mark.parametrize(("status", "gate", "intent", "units", "word"), CASES)
def test_named_cases(status: str, gate: str, intent: str, units: tuple[str, ...], word: str) -> None:
    assert roll_up(status, gate, intent, units) == word
    assert roll_up(status, gate, intent, units[::-1] * 2) == word


def expected(status: str, gate: str, intent: str, units: frozenset[str]) -> str:
    """The rule once more, as probe (g) words it: the first that holds."""
    over = status in EXECUTION_OVER
    started = bool(units - {"pending", "queued", "dispatched", "skipped", "cancelled", "not_reached"})
    holds = {
        "pending_approval": gate == "pending" and not over,
        "rejected": status == "rejected",
        "running": not over and started,
        "queued": not over,
        "cancelled": status == "cancelled" or intent == "cancel",
        "failed": status == "failed" or bool(units & {"failed", "timed_out", "unknown"}),
        "skipped": units == {"skipped"},
        "succeeded": True,
    }
    return next(word for word in WORDS if holds[word])


def test_every_combination() -> None:
    sets = [frozenset(some) for size in range(4) for some in combinations(UNITS, size)]
    assert len(sets) > 300
    seen = set()
    for status, gate, intent, units in product(EXECUTION_STATUSES, GATES, INTENTS, sets):
        word = roll_up(status, gate, intent, units)
        assert word == expected(status, gate, intent, units), (status, gate, intent, units)
        seen.add(word)
    assert seen == set(WORDS)
