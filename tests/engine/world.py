"""A rehearsal that is watched at every step, and on which the ills of a real fleet can be brought down."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any
from zlib import crc32

from watch import Watch

from app.compiler.plan import Plan
from app.engine.events import Event, JobEnded, NodeAway, NodeBack, RetryAsked
from app.engine.rehearsal import Rehearsal
from app.engine.state import Limits, Node, Step
from app.engine.status import DISPATCHED, JOB_OVER, PENDING, QUEUED, RUNNING, SUCCEEDED, TASK_OVER

FLEET = {name: Node(name) for name in ("local", "web-1", "web-2", "web-3")} | {
    "bare": Node("bare", shells=("sh",))
}


class World(Rehearsal):
    """One execution on FLEET.

    With `crashes` set, what is to be done after a commit is lost: nothing is handed over and nobody is told to stop
    until `tick`. `recorded` are the jobs whose outcome is in its row and was folded by nobody yet.
    """

    def __init__(
        self,
        plan: Plan,
        parameters: dict[str, Any] | None = None,
        limits: Limits | None = None,
        *,
        is_narrow: bool = True,
        checks_slices: bool = False,
        keeps_events: bool = True,
    ) -> None:
        super().__init__(plan, FLEET, parameters, limits=limits)
        self.is_narrow = is_narrow
        self.first = plan
        self.plans: dict[str, Plan] = {}
        self.crashes = False
        self.recorded: list[str] = []
        self.away: set[str] = set()
        self.unsaid: list[str] = []
        self.keeps_events = keeps_events
        self.events: list[tuple[float, Event, Step]] = []
        self.steps = 0
        self.gone_on = 0
        self.watch = Watch(self, checks_slices=checks_slices)

    def deliver(self, event: Event, plan: Plan | None = None) -> Step:
        if isinstance(event, JobEnded) and self._goes_on(event.job):
            event = replace(event, went_on=True)
            self.gone_on += 1
        self.watch.begins(event)
        step = self.advance(event, self.fleet, self.now, plan)
        self.watch.answered(event, step)
        if plan is not None:
            self.watch.turn_to(plan)
        self.steps += 1
        if self.keeps_events:
            self.events.append((self.now, event, step))
        self.apply(step)
        self.watch.wrote(event, step)
        return step

    def _goes_on(self, job: str) -> bool:
        """Whether the node of a job went on from it by itself: half of them do where they may, whatever people ask for
        meanwhile. Said once, with the first word that the job is over."""
        row = self.jobs[job]
        task = self.plan.tasks.get(row.task)
        if (
            self.over
            or task is None
            or task.then is None
            or row.settled
            or row.status != SUCCEEDED
            or row.attempt != 1
        ):
            return False
        following = self.tasks[task.then]
        is_told = self.plan.tasks[task.then].along and following.first_attempt == 1
        return is_told and following.status == PENDING and crc32(job.encode()) % 2 == 0

    def apply(self, step: Step) -> None:
        super().apply(step)
        if self.crashes:
            lost = [job.id for job in step.commands.stop]
            self.stopped.difference_update(lost)
            self.unsaid += lost

    def _hand_over(self, tasks: Iterable[str]) -> None:
        if not self.crashes:
            super()._hand_over(tasks)

    def come_to(self, job: str, status: str, **more: Any) -> None:
        """A node's outcome, with the result that a script would have."""
        self.end(job, status, *_outcome(job, status, **more))

    def record(self, job: str, status: str) -> None:
        """A node's outcome is in its row; the word to fold it is lost, or is that of a chord that is not full."""
        row = self.jobs[job]
        if row.status in JOB_OVER or row.settled:
            return
        result, error = _outcome(job, status)
        said = {"status": status, "error": error, "result": result, "exit_code": result["exit_code"]}
        self.write_job(job, {**said, "ended_at": self.now})
        self.recorded.append(job)

    def node_is_away(self, job: str) -> None:
        task = self.jobs[job].task
        if self.plan.tasks[task].kind == "job" and self.plan.tasks[task].parent is None:
            self.away.add(task)
            self.deliver(NodeAway(task))

    def tick(self) -> None:
        """What the tick and any settle mend: outcomes are folded, orders go out, stops are said again."""
        while self.recorded:
            self.deliver(JobEnded(self.recorded.pop(0)))
        for task in self.away:
            if any(job.status == DISPATCHED for job in self.jobs_of(task)):
                self.deliver(NodeBack(task))
        self.away.clear()
        self._hand_over(self._queues)
        self.stopped.update(self.unsaid)
        self.unsaid.clear()

    @property
    def handed_over(self) -> list[str]:
        """The jobs for nodes that have left and are not over, in order of birth."""
        jobs = self.jobs
        return [id_ for id_ in self._open if jobs[id_].status != QUEUED]

    @property
    def waits(self) -> bool:
        """Whether anything is still to come: from a node, a timer, a person, a child, or by the tick."""
        return bool(self._open or self.timers or self.asks or self.children or self.recorded)

    def retry(self, plan: Plan | None = None, **what: Any) -> None:
        """As the service does: reset, then resume with everything read anew."""
        before = {
            name: (task.result, task.ended_at)
            for name, task in self.tasks.items()
            if task.status == "succeeded" and (plan is None or name in plan.tasks)
        }
        self.stopped.clear()
        digest = plan.digest if plan is not None else ""
        if plan is not None:
            self.plans[digest] = plan
        self.deliver(RetryAsked(person="ada", reason="again", plan=digest, **what), plan)
        assert self.tasks.keys() == self.plan.tasks.keys()
        assert self.execution.status in ("paused", "pausing")
        for name, (result, ended_at) in before.items():
            task = self.tasks[name]
            if task.status in TASK_OVER and name not in what.get("mark_ok", {}):
                assert (task.result, task.ended_at) == (result, ended_at), (
                    f"{name} was kept and lost its result"
                )
        self.resume()

    def engine_units(self, task: str) -> int:
        """How many units of a loop the engine itself runs at the moment."""
        return sum(not job.node and job.status == RUNNING for job in self.jobs_of(task))


def _outcome(job: str, status: str, **more: Any) -> tuple[dict[str, Any], dict[str, Any] | None]:
    code = 0 if status == "succeeded" else 1
    result = {"exit_code": code, "stdout": job, "stderr": "", "truncated": False, **more}
    return result, None if code == 0 else {"type": status, "message": status}
