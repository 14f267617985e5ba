"""A rehearsal that is checked after every step: invariants that hold whatever happens in whatever order."""

from __future__ import annotations

from typing import Any

from app.compiler.plan import Plan
from app.engine.events import Event, RetryAsked
from app.engine.rehearsal import Rehearsal
from app.engine.state import Need, Node, Slice, Step, TaskState
from app.engine.status import DISPATCHED, JOB_OVER, PENDING, TASK_LIVE, TASK_OVER

FLEET = {name: Node(name) for name in ("local", "web-1", "web-2", "web-3")} | {
    "bare": Node("bare", shells=("sh",))
}


class World(Rehearsal):
    """One execution on FLEET. Jobs come to what is said in a word; the checks run after every step."""

    def __init__(self, plan: Plan, parameters: dict[str, Any] | None = None) -> None:
        super().__init__(plan, FLEET, parameters)

    def deliver(self, event: Event) -> Step:
        before, paused = dict(self.tasks), self.execution.intent == "pause"
        answer = super().deliver(event)
        if not isinstance(event, RetryAsked):
            for name in answer.changes.tasks:
                self._check_move(before[name], self.tasks[name])
        if paused and self.execution.intent == "pause":
            assert not answer.commands.dispatch, "a pause started something"
        self.check()
        return answer

    def fetch(self, given: Slice, need: Need) -> None:
        assert need != Need(), "an empty Need"
        super().fetch(given, need)

    def apply(self, step: Step) -> None:
        for job in step.changes.new_jobs:
            assert job.id not in self.jobs, f"{job.id} was born twice"
        super().apply(step)

    def come_to(self, job: str, status: str, **more: Any) -> None:
        """A node's outcome, with the result that a script would have."""
        code = 0 if status == "succeeded" else 1
        result = {"exit_code": code, "stdout": job, "stderr": "", "truncated": False, **more}
        self.end(job, status, result, None if code == 0 else {"type": status, "message": status})

    def retry(self, **what: Any) -> None:
        """As the service does: reset, then resume with everything read anew."""
        before = {name: task for name, task in self.tasks.items() if task.status == "succeeded"}
        self.deliver(RetryAsked(person="ada", reason="again", **what))
        assert self.execution.status in ("paused", "pausing")
        kept = {name for name, task in self.tasks.items() if task.status in TASK_OVER}
        assert all(self.tasks[name].result == task.result for name, task in before.items() if name in kept)
        self.resume()

    def _check_move(self, before: TaskState, after: TaskState) -> None:
        if before.status in TASK_OVER:
            assert after.status == before.status, f"{before.name} left {before.status} for {after.status}"
        if before.status != PENDING:
            assert after.status != PENDING

    def check(self) -> None:
        """Invariants that hold after every step."""
        top = [task for name, task in self.tasks.items() if self.plan.tasks[name].parent is None]
        assert self.execution.live == sum(task.status in TASK_LIVE for task in top)
        assert self.execution.waiting == sum(task.status == "waiting" for task in top)
        if self.execution.status == "paused":
            assert not any(self.jobs[id_].status == DISPATCHED for id_ in self.open_jobs)
        for name, task in self.tasks.items():
            assert 0 <= task.open <= self.plan.tasks[name].incoming
            assert task.over <= task.units or self.plan.tasks[name].kind == "engine", name
        if self.over:
            left = {name: task.status for name, task in self.tasks.items() if task.status not in TASK_OVER}
            assert not left, f"over with {left}"
            open_ = [id_ for id_, job in self.jobs.items() if job.status not in JOB_OVER and not job.settled]
            assert not open_, f"over with jobs {open_}"
            assert not self.asks, f"over with questions {self.asks}"
            assert not self.children, f"over with children {self.children}"
            assert not self.timers, f"over with timers {self.timers}"
        elif (
            not (self.open_jobs or self.timers or self.asks or self.children)
            and self.execution.intent != "pause"
        ):
            raise AssertionError(f"nothing can happen any more: {self.statuses()}")
