"""Invariants of the gate: people are asked before anything runs, and what they said is what happens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.engine.events import CancelAsked, Decided, Event, RetryAsked, Submitted, TimerDue
from app.engine.state import Step
from app.engine.status import JOB_OVER

if TYPE_CHECKING:
    from world import World


class GateWatch:
    """Counts the questions for the whole execution, and holds every step to where the newest one is.

    `gate` is what semantics.md says that it must be after the last step.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.gate = ""
        self.asked = 0
        self._before = ""

    @property
    def is_shut(self) -> bool:
        return self.gate == "pending"

    @property
    def has_opened(self) -> bool:
        """Whether the last step opened it."""
        return (self._before, self.gate) == ("pending", "approved")

    @property
    def is_refused(self) -> bool:
        return self.gate in ("rejected", "expired")

    @property
    def was_refused(self) -> bool:
        """Whether it was before the last step."""
        return self._before in ("rejected", "expired")

    @property
    def was_not_opened(self) -> bool:
        return self.gate in ("rejected", "expired", "closed")

    def begins(self) -> None:
        self._before = self.gate

    def answered(self, event: Event, step: Step) -> None:
        """The rows are still as they were."""
        changes, commands = step.changes, step.commands
        asks = [one for one in changes.asks if not one.task]
        self.gate = self._foreseen(event, changes.execution.get("status") == "failed")
        run = self.world.execution
        told = changes.execution.get("gate", run.gate)
        assert told == self.gate, f"the gate is {told}, not {self.gate}, after {event}"
        fresh = self.gate == "pending" and (self._before != "pending" or isinstance(event, RetryAsked))
        assert len(asks) == fresh, f"{len(asks)} questions for the whole execution at {event}"
        if fresh:
            self.asked += 1
            assert asks[0].job == f"{run.id}.gate.{self.asked}", f"{asks[0].job} is not question {self.asked}"
            armed = [(one.kind, one.due_at) for one in changes.timers if not one.task]
            ends = asks[0].expires_at
            assert armed == ([] if ends is None else [(f"expiry.{self.asked}", ends)]), f"timers {armed}"
        if self.gate not in ("", "approved"):
            # Not asked yet, or refused: nothing runs, nobody else is asked, no workflow is called.
            assert not commands.dispatch, f"handed over at a gate that is {self.gate}"
            assert not changes.children, "a workflow was called"
            assert len(changes.asks) == fresh, "somebody else was asked"
            started = [job for job in changes.new_jobs if job.status not in (*JOB_OVER, "queued")]
            assert not started, f"{started[0].id} started at a gate that is {self.gate}"
        if self._before == "pending" and self.gate != "pending":
            closed = isinstance(event, TimerDue | CancelAsked)
            id_ = f"{run.id}.gate.{self.asked}"
            assert (id_ in changes.closed) == closed, f"{id_} closed: {changes.closed}"

    def _foreseen(self, event: Event, failed: bool) -> str:
        gate = self.world.plan.gate
        if isinstance(event, Submitted | RetryAsked):
            return "pending" if gate and not failed else ""
        if self._before != "pending":
            return self._before
        assert gate is not None
        newest = f"{self.world.execution.id}.gate.{self.asked}"
        if isinstance(event, Decided) and event.job == newest:
            return event.outcome
        if isinstance(event, TimerDue) and not event.task and event.timer == f"expiry.{self.asked}":
            return "approved" if gate.get("on_expire") == "approve" else "expired"
        return "closed" if isinstance(event, CancelAsked) else self._before
