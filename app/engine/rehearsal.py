"""One execution with its rows in memory: what the store and the hand-over do, without a database, nodes or a clock.

The engine is given as small a slice as it asks for, as it is by the store, so that what runs here runs there too.
Whoever drives it says what jobs come to and what people decide, and moves `now`.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from app.compiler.plan import Plan
from app.engine.advance import advance
from app.engine.draft import view
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
from app.engine.state import Ask, Changes, Child, ExecutionState, JobState, Need, Node, Slice, Step, TaskState
from app.engine.status import (
    DISPATCHED,
    EXECUTION_OVER,
    JOB_OVER,
    NOT_REACHED,
    PAUSE,
    PENDING,
    QUEUED,
    TASK_LIVE,
)

MOST_NEEDS = 200
"""How often one step may ask for more before something is wrong: each answer is complete for what was asked."""

TimerKey = tuple[str, int, str]


class Rehearsal:
    """One execution. `deliver` takes an event in as the store would; the rest is events by name.

    In order, and never shortened: `started` are the jobs handed to nodes, `told_to_stop` those that were told to end
    (`stopped` as a set), `asked` the jobs of questions and called workflows, `armed` the timers, `log` what the engine
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
    ) -> None:
        self.plan = plan
        self.fleet = fleet
        self.now = now
        known = {"execution_id": "01EXEC", **(system or {})}
        self.execution = ExecutionState(known["execution_id"], parameters=parameters or {}, system=known)
        self.tasks = {task.name: TaskState(task.name, open=task.incoming) for task in plan.tasks.values()}
        self.jobs: dict[str, JobState] = {}
        self.published: list[tuple[str, Any, str]] = []
        self.timers: dict[TimerKey, float] = {}
        self.asks: dict[str, Ask] = {}
        self.children: dict[str, Child] = {}
        self.started: list[str] = []
        self.armed: list[TimerKey] = []
        self.asked: list[str] = []
        self.told_to_stop: list[str] = []
        self.stopped: set[str] = set()
        self.log: list[dict[str, Any]] = []
        self.needs = 0
        self._jobs_of: dict[str, list[str]] = {}
        self._open: dict[str, None] = {}
        self._queues: dict[str, deque[str]] = {}
        self._out: Counter[str] = Counter()

    # what happens

    def deliver(self, event: Event) -> Step:
        """One event through the engine. Raises RuntimeError where the engine never has enough."""
        given = self._slice(event)
        for _ in range(MOST_NEEDS):
            answer = advance(given, event, self.now)
            if isinstance(answer, Step):
                self.apply(answer)
                return answer
            self.needs += 1
            self.fetch(given, answer)
        raise RuntimeError(f"the engine asked for more {MOST_NEEDS} times at {event}")

    def submit(self) -> None:
        self.deliver(Submitted())

    def end(
        self, job: str, status: str, result: Mapping[str, Any], error: Mapping[str, Any] | None = None
    ) -> None:
        """A node's outcome is recorded if the job has none, then settled."""
        row = self.jobs[job]
        if row.status not in JOB_OVER and not row.settled:
            code = result.get("exit_code")
            self._put(
                replace(row, status=status, error=error, result=result, exit_code=code, ended_at=self.now)
            )
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

    def end_child(self, job: str, status: str, output: Any = None, message: str = "") -> None:
        """The workflow that a job called is over."""
        self.children.pop(job, None)
        self.deliver(ChildEnded(job, "01CHILD", status, output, message))

    def fire_timer(self, key: TimerKey) -> None:
        """A wait is over; the clock moves to its end."""
        self.now = max(self.now, self.timers[key])
        self.deliver(TimerDue(*key))

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
    def vars(self) -> dict[str, Any]:
        return {name: value for name, value, _ in self.published}

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

    def _put(self, job: JobState) -> None:
        """Write a job's row, and keep count of what is open and what is out."""
        before = self.jobs.get(job.id)
        if before is None:
            self._jobs_of.setdefault(job.task, []).append(job.id)
        was_out = before is not None and before.status == DISPATCHED
        self._out[job.task] += (job.status == DISPATCHED) - was_out
        self.jobs[job.id] = job
        if job.node and job.status not in JOB_OVER and not job.settled:
            self._open[job.id] = None
        else:
            self._open.pop(job.id, None)

    def _slice(self, event: Event) -> Slice:
        given = Slice(self.plan, replace(self.execution), fleet=self.fleet)
        job, task = getattr(event, "job", None), getattr(event, "task", None)
        if job:
            given.jobs[job] = replace(self.jobs[job])
            task = self.jobs[job].task
        if task:
            given.tasks[task] = replace(self.tasks[task])
        return given

    def fetch(self, given: Slice, need: Need) -> None:
        """Give the engine what it asked for, and nothing else."""
        names, jobs_of = set(need.tasks), set(need.jobs_of)
        if need.live:
            live = {name for name, task in self.tasks.items() if task.status in TASK_LIVE}
            live |= {child for name in live for child in self.plan.tasks[name].children}
            names |= live
            jobs_of |= live
            given.live_loaded = True
        given.tasks.update({name: replace(self.tasks[name]) for name in names if name not in given.tasks})
        given.results.update({name: view(self.tasks[name]) for name in need.results})
        if need.vars:
            known = self.vars
            given.vars.update(
                known if "*" in need.vars else {name: known[name] for name in need.vars if name in known}
            )
            given.vars_loaded |= need.vars
        wanted = [id_ for task in jobs_of for id_ in self._jobs_of.get(task, ())]
        given.jobs.update({id_: replace(self.jobs[id_]) for id_ in wanted if id_ not in given.jobs})
        given.jobs_loaded |= jobs_of
        given.jobs.update({id_: replace(self.jobs[id_]) for id_ in need.jobs})

    def apply(self, step: Step) -> None:
        """Write what a step changed, then hand over what may go."""
        changes = step.changes
        for name, columns in changes.tasks.items():
            self.tasks[name] = replace(self.tasks[name], **columns)
        for id_, columns in changes.jobs.items():
            self._put(replace(self.jobs[id_], **columns))
        for job in changes.new_jobs:
            self._put(replace(job))
            if job.node and job.status == QUEUED:
                self._queues.setdefault(job.task, deque()).append(job.id)
        voided = set(changes.voided)
        self.published = [one for one in self.published if one[2] not in voided]
        self.published += [(name, value, task) for _, name, value, task in changes.published]
        self._apply_waits(changes)
        if changes.sweep_pending:
            self._sweep(spare_finally=changes.sweep_pending == "main")
        self.execution = replace(self.execution, **changes.execution)
        self.told_to_stop += [job.id for job in step.commands.stop]
        self.stopped.update(job.id for job in step.commands.stop)
        self.log += changes.log
        touched = [self.jobs[id_].task for id_ in changes.jobs] + [job.task for job in changes.new_jobs]
        self._hand_over(task for task in dict.fromkeys(touched) if task in self._queues)

    def _apply_waits(self, changes: Changes) -> None:
        for task in changes.dropped_task_timers:
            self.timers = {key: due for key, due in self.timers.items() if key[0] != task}
        for key in changes.dropped_timers:
            self.timers.pop(key, None)
        for timer in changes.timers:
            key = (timer.task, timer.unit, timer.kind)
            self.timers[key] = timer.due_at
            self.armed.append(key)
        self.asks |= {ask.job: ask for ask in changes.asks}
        self.children |= {child.job: child for child in changes.children}
        self.asked += [ask.job for ask in changes.asks] + [child.job for child in changes.children]
        for id_ in changes.closed:
            self.asks.pop(id_, None)
            self.children.pop(id_, None)

    def _sweep(self, *, spare_finally: bool) -> None:
        for name, task in self.tasks.items():
            spared = spare_finally and self.plan.tasks[name].is_finally
            if task.status == PENDING and not spared:
                self.tasks[name] = replace(task, status=NOT_REACHED, ended_at=self.now)

    def _hand_over(self, tasks: Iterable[str]) -> None:
        """Queued jobs go to their nodes as far as a pause and the window of their loop let them."""
        if self.execution.intent == PAUSE:
            return
        for task in tasks:
            queue, window = self._queues[task], self.tasks[task].window
            while queue and (not window or self._out[task] < window):
                job = self.jobs[queue.popleft()]
                if job.status == QUEUED:
                    self._put(replace(job, status=DISPATCHED, started_at=self.now))
                    self.started.append(job.id)
