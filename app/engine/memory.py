"""One execution's rows in memory: the slices that the engine asks for, and what it changes, without a database.

The engine is given as small a slice as it asks for, as it is by the store, so that what runs here runs there too. The
rows themselves are handed out, not copies: the engine never changes what it is given.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from app.compiler.plan import Plan
from app.engine.advance import advance
from app.engine.context import size_of
from app.engine.draft import view
from app.engine.events import Event
from app.engine.state import Changes, ExecutionState, JobState, Limits, Need, Node, Slice, Step, TaskState
from app.engine.status import NOT_REACHED, PENDING, TASK_LIVE

MOST_NEEDS = 200
"""How often one step may ask for more before something is wrong: each answer is complete for what was asked."""

_EVERY_VAR = frozenset({"*"})


class Memory:
    """The rows of one execution. `published` are the variables that count: number, name, value, task. `kv` is what is
    kept under keys.

    `is_narrow` gives the engine no more than it asks for, as the store does; otherwise it sees every row at once,
    which comes to the same and saves its asking.
    """

    is_narrow = True

    def __init__(self, plan: Plan, execution: ExecutionState, kv: Mapping[str, Any] | None = None) -> None:
        self.plan = plan
        self.kv: Mapping[str, Any] = kv or {}
        self.execution = execution
        self.limits = Limits()
        self.tasks = {task.name: TaskState(task.name, open=task.incoming) for task in plan.tasks.values()}
        self.jobs: dict[str, JobState] = {}
        self.published: list[tuple[int, str, Any, str]] = []
        self.needs = 0
        self._jobs_of: dict[str, list[str]] = {}
        self._every_task = frozenset(self.tasks)

    @property
    def vars(self) -> dict[str, Any]:
        return {name: value for _, name, value, _ in self.published}

    def preset(self, values: Mapping[str, Any]) -> None:
        """Give variables a value before anything happens."""
        self.published = [(number, name, value, "") for number, (name, value) in enumerate(values.items(), 1)]
        self.execution.var_seq = len(values)
        self.execution.var_bytes = sum(size_of(value) for value in values.values())

    def advance(self, event: Event, fleet: Mapping[str, Node], now: float, plan: Plan | None = None) -> Step:
        """What the engine says to an event; no row is written. `plan` is the one that holds from now on, if another.

        Raises RuntimeError where the engine never has enough.
        """
        earlier, self.plan = (None, self.plan) if plan is None else (self.plan, plan)
        given = self.slice_for(event, fleet)
        given.earlier = earlier
        for _ in range(MOST_NEEDS):
            answer = advance(given, event, now)
            if isinstance(answer, Step):
                return answer
            self.needs += 1
            self.fetch(given, answer)
        raise RuntimeError(f"the engine asked for more {MOST_NEEDS} times at {event}")

    def slice_for(self, event: Event, fleet: Mapping[str, Node]) -> Slice:
        """What the event names, and nothing else, or everything."""
        given = Slice(self.plan, self.execution, fleet=fleet, limits=self.limits)
        if not self.is_narrow:
            given.tasks, given.jobs, given.vars = self.tasks, self.jobs, self.vars
            given.vars_loaded, given.jobs_loaded, given.live_loaded = _EVERY_VAR, self._every_task, True
            return given
        job, task = getattr(event, "job", None), getattr(event, "task", None)
        if job in self.jobs:
            given.jobs[job] = self.jobs[job]
            task = self.jobs[job].task
        if task in self.tasks:
            given.tasks[task] = self.tasks[task]
        return given

    def fetch(self, given: Slice, need: Need) -> None:
        """Give the engine what it asked for, and nothing else."""
        tasks = self.tasks
        jobs_of: Iterable[str] = need.jobs_of
        if need.live:
            live = {name for name, task in tasks.items() if task.status in TASK_LIVE}
            live |= {child for name in live for child in self.plan.tasks[name].children}
            given.tasks.update({name: tasks[name] for name in self.plan.tasks if name in live})
            jobs_of = live | need.jobs_of
            given.live_loaded = True
        for name in need.tasks:
            given.tasks[name] = tasks[name]
        for name in need.results:
            given.results[name] = view(tasks[name])
        if need.vars:
            known = self.vars
            given.vars.update(
                known if "*" in need.vars else {name: known[name] for name in need.vars if name in known}
            )
            given.vars_loaded |= need.vars
        if need.kv:
            given.kv.update({key: self.kv[key] for key in need.kv if key in self.kv})
            given.kv_loaded |= need.kv
        if jobs_of:
            for task in jobs_of:
                given.jobs.update({id_: self.jobs[id_] for id_ in self._jobs_of.get(task, ())})
            given.jobs_loaded |= frozenset(jobs_of)
        for id_ in need.jobs:
            given.jobs[id_] = self.jobs[id_]

    def write(self, changes: Changes, now: float) -> None:
        """Write what a step changed."""
        for name in changes.gone_tasks:
            del self.tasks[name]
        for task in changes.new_tasks:
            self.tasks[task.name] = task
        if changes.gone_tasks or changes.new_tasks:
            self._every_task = frozenset(self.tasks)
        for name, columns in changes.tasks.items():
            task = self.tasks[name]
            for column, value in columns.items():
                setattr(task, column, value)
        for id_, columns in changes.jobs.items():
            self.write_job(id_, columns)
        for job in changes.new_jobs:
            self.add_job(job)
        if changes.voided:
            voided = set(changes.voided)
            self.published = [one for one in self.published if one[3] not in voided]
        self.published += changes.published
        if changes.sweep_pending:
            self._sweep(now, spare_finally=changes.sweep_pending == "main")
        for column, value in changes.execution.items():
            setattr(self.execution, column, value)

    def write_job(self, id_: str, columns: Mapping[str, Any]) -> None:
        """Columns of a job's row."""
        job = self.jobs[id_]
        for column, value in columns.items():
            setattr(job, column, value)

    def add_job(self, job: JobState) -> None:
        """A job is born."""
        self.jobs[job.id] = job
        self._jobs_of.setdefault(job.task, []).append(job.id)

    def jobs_of(self, task: str) -> list[JobState]:
        """A task's jobs in order of birth."""
        return [self.jobs[id_] for id_ in self._jobs_of.get(task, ())]

    def _sweep(self, now: float, *, spare_finally: bool) -> None:
        for name, task in self.tasks.items():
            if task.status == PENDING and not (spare_finally and self.plan.tasks[name].is_finally):
                task.status, task.ended_at = NOT_REACHED, now
