"""One execution as the store and the hand-over would see it through, without a database, nodes or a clock.

Whoever drives it says what jobs come to and what people decide, and moves `now`.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from typing import Any

from app.compiler.plan import Plan
from app.engine.events import (
    CancelAsked,
    ChildEnded,
    Decided,
    Event,
    JobEnded,
    JobUnknown,
    PauseAsked,
    ResumeAsked,
    Submitted,
    TimerDue,
)
from app.engine.memory import Memory
from app.engine.state import Ask, Changes, Child, ExecutionState, JobState, Limits, Node, Step
from app.engine.status import DISPATCHED, EXECUTION_OVER, GATE_PENDING, JOB_OVER, PAUSE, QUEUED, RUNNING

TimerKey = tuple[str, int, str]


class Rehearsal(Memory):
    """One execution. `deliver` takes an event in as the store would; the rest is events by name.

    In order, and never shortened: `started` are the jobs handed to nodes, `told_to_stop` those that were told to end
    (`stopped` as a set), `asked` the jobs of questions and children, `armed` the timers, `log` what the engine
    noted. `timers`, `asks` and `children` hold what is still open. `now` is in Unix seconds.
    """

    def __init__(
        self,
        plan: Plan,
        fleet: Mapping[str, Node],
        parameters: Mapping[str, Any] | None = None,
        *,
        now: float = 1000.0,
        system: Mapping[str, Any] | None = None,
        kv: Mapping[str, Any] | None = None,
        config: Mapping[str, Any] | None = None,
        limits: Limits | None = None,
    ) -> None:
        known = {"execution_id": "01EXEC", **(system or {})}
        super().__init__(
            plan, ExecutionState(known["execution_id"], parameters=parameters or {}, system=known), kv
        )
        self.limits = limits or Limits()
        self.fleet = fleet
        self.now = now
        self.execution.config = config or {}
        self.timers: dict[TimerKey, float] = {}
        self.asks: dict[str, Ask] = {}
        self.children: dict[str, Child] = {}
        self.started: list[str] = []
        self.armed: list[TimerKey] = []
        self.asked: list[str] = []
        self.told_to_stop: list[str] = []
        self.stopped: set[str] = set()
        self.log: list[dict[str, Any]] = []
        self._open: dict[str, None] = {}
        self._queues: dict[str, deque[str]] = {}
        self._out: Counter[str] = Counter()

    # what happens

    def deliver(self, event: Event, plan: Plan | None = None) -> Step:
        """One event through the engine; `plan` is the one that holds from this event on, if it is another.

        Raises RuntimeError where the engine never has enough.
        """
        step = self.advance(event, self.fleet, self.now, plan)
        self.apply(step)
        return step

    def submit(self) -> None:
        self.deliver(Submitted())

    def end(
        self, job: str, status: str, result: Mapping[str, Any], error: Mapping[str, Any] | None = None
    ) -> None:
        """A node's outcome is recorded if the job has none, then settled."""
        row = self.jobs[job]
        if row.status not in JOB_OVER and not row.settled:
            code = result.get("exit_code")
            said = {"status": status, "error": error, "result": result, "exit_code": code}
            self.write_job(job, {**said, "ended_at": self.now})
        self.deliver(JobEnded(job))

    def lose(self, job: str) -> None:
        """Nobody can say what became of a job."""
        self.deliver(JobUnknown(job))

    def decide(
        self,
        job: str,
        outcome: str,
        people: tuple[str, ...] = ("grace",),
        reason: str = "",
        answer: Any = None,
    ) -> None:
        """People decided a question: approved, rejected or answered."""
        self.asks.pop(job, None)
        self.deliver(Decided(job, outcome, people, reason, answer))
        self._hand_over(self._queues)

    def end_child(self, job: str, status: str, output: Any = None, message: str = "") -> None:
        """The workflow that a job called is over."""
        self.children.pop(job, None)
        self.deliver(ChildEnded(job, "01CHILD", status, output, message))

    def fire_timer(self, key: TimerKey) -> None:
        """A wait is over; the clock moves to its end."""
        self.now = max(self.now, self.timers[key])
        self.deliver(TimerDue(*key))
        if not key[0]:
            self._hand_over(self._queues)

    def cancel(self, forced: bool = False) -> None:
        self.deliver(CancelAsked(forced))
        self._hand_over(self._queues)

    def pause(self) -> None:
        self.deliver(PauseAsked("ada"))

    def resume(self) -> None:
        self.deliver(ResumeAsked("ada"))
        self._hand_over(self._queues)

    # what there is

    @property
    def due_timers(self) -> list[TimerKey]:
        """Those that a tick would fire: a pause holds the ones that start something."""
        paused = self.execution.intent == PAUSE
        return [key for key in self.timers if not (paused and TimerDue(*key).is_a_start)]

    @property
    def open_jobs(self) -> list[str]:
        """The jobs for nodes that are not over, in order of birth."""
        return list(self._open)

    def is_open(self, job: str) -> bool:
        """Whether a job for a node is not over."""
        return job in self._open

    @property
    def over(self) -> bool:
        return self.execution.status in EXECUTION_OVER

    def statuses(self) -> dict[str, str]:
        return {name: task.status for name, task in self.tasks.items()}

    # rows

    def write_job(self, id_: str, columns: Mapping[str, Any]) -> None:
        """Write a job's row, and keep count of what is open and what is out."""
        job = self.jobs[id_]
        was_out = job.status == DISPATCHED
        super().write_job(id_, columns)
        self._out[job.task] += (job.status == DISPATCHED) - was_out
        if not job.node or job.status in JOB_OVER or job.settled:
            self._open.pop(id_, None)

    def add_job(self, job: JobState) -> None:
        super().add_job(job)
        if not job.node or job.status in JOB_OVER or job.settled:
            return
        self._open[job.id] = None
        if job.status == RUNNING:
            # Its node began it by itself.
            self.started.append(job.id)
            return
        self._queues.setdefault(job.task, deque()).append(job.id)

    def apply(self, step: Step) -> None:
        """Write what a step changed, then hand over what may go."""
        changes = step.changes
        self.write(changes, self.now)
        for name in changes.gone_tasks:
            self._queues.pop(name, None)
        self._apply_waits(changes)
        for job in step.commands.stop:
            self.told_to_stop.append(job.id)
            self.stopped.add(job.id)
        self.log += changes.log
        touched = {self.jobs[id_].task: None for id_ in changes.jobs}
        touched.update((job.task, None) for job in changes.new_jobs)
        self._hand_over(task for task in touched if task in self._queues)

    def _apply_waits(self, changes: Changes) -> None:
        for task in changes.dropped_task_timers:
            for key in [key for key in self.timers if key[0] == task]:
                del self.timers[key]
        for key in changes.dropped_timers:
            self.timers.pop(key, None)
        for timer in changes.timers:
            key = (timer.task, timer.unit, timer.kind)
            self.timers[key] = timer.due_at
            self.armed.append(key)
        for ask in changes.asks:
            self.asks[ask.job] = ask
            self.asked.append(ask.job)
        for child in changes.children:
            self.children[child.job] = child
            self.asked.append(child.job)
        for id_ in changes.closed:
            self.asks.pop(id_, None)
            self.children.pop(id_, None)

    def _hand_over(self, tasks: Iterable[str]) -> None:
        """Queued jobs go to their nodes as far as a pause, a gate and the window of their loop let them."""
        if self.execution.intent == PAUSE or self.execution.gate == GATE_PENDING:
            return
        for task in tasks:
            queue, window = self._queues[task], self.tasks[task].window
            while queue and (not window or self._out[task] < window):
                job = self.jobs[queue.popleft()]
                if job.status == QUEUED:
                    self.write_job(job.id, {"status": DISPATCHED, "started_at": self.now})
                    self.started.append(job.id)
