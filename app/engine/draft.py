"""A working copy of a slice: the engine changes this, never what it was given, and the difference is the answer."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping
from operator import attrgetter
from typing import Any, TypeVar

from app.compiler.canvas import job_id
from app.compiler.plan import PlanTask
from app.engine.facts import said_of
from app.engine.moves import EXECUTION, JOB, TASK, check_move
from app.engine.state import (
    Changes,
    Commands,
    ExecutionState,
    Facts,
    JobState,
    Limits,
    Need,
    Node,
    Slice,
    Step,
    TaskState,
    Timer,
)
from app.engine.status import GATE_PENDING, JOB_OUT, PAUSE, TASK_LIVE, WAITING

_State = TypeVar("_State", ExecutionState, TaskState, JobState)

_new = object.__new__
_BY_UNIT = attrgetter("unit", "attempt")


class NeedMore(Exception):
    """Raised inside the engine, answered by `advance` as a `Need`."""

    def __init__(self, need: Need) -> None:
        super().__init__(need)
        self.need = need


class Draft:
    """Copies on first touch; `step()` gives what changed.

    `gone` are tasks that a node has begun by itself, with the node. `reopening` says that this step tries an execution
    again: only then may what is over leave that.
    """

    def __init__(self, given: Slice, now: float) -> None:
        self.given = given
        self.now = now
        self.plan = given.plan
        self.execution: ExecutionState = _copy(given.execution)
        self.changes = Changes()
        self.commands = Commands()
        self.work: deque[str] = deque()
        self.to_stop: list[str] = []
        self.ended: deque[str] = deque()
        self.stopped_for: str = given.execution.halt
        self.gone: dict[str, str] = {}
        self.reopening = False
        self.facts = Facts()
        self.vars: dict[str, Any] = dict(given.vars)
        self._tasks: dict[str, TaskState] = {}
        self._jobs: dict[str, JobState] = {}
        self._born: dict[str, JobState] = {}
        self._born_tasks: set[str] = set()

    # reading

    @property
    def limits(self) -> Limits:
        return self.given.limits

    @property
    def halted(self) -> bool:
        """Whether nothing new may start and no edge fires."""
        return bool(self.execution.halt)

    @property
    def held(self) -> bool:
        """Whether a pause, or a gate that nobody has decided, holds back what would start."""
        return self.execution.intent == PAUSE or self.execution.gate == GATE_PENDING

    def planned(self, name: str) -> PlanTask:
        return self.plan.tasks[name]

    def task(self, name: str) -> TaskState:
        """The task's working copy. Raises NeedMore if the slice does not hold it."""
        state = self._tasks.get(name)
        if state is None:
            given = self.given.tasks.get(name)
            if given is None:
                raise NeedMore(Need(tasks=frozenset({name})))
            state = self._tasks[name] = _copy(given)
        return state

    def job(self, job: str) -> JobState:
        if job in self._born:
            return self._born[job]
        state = self._jobs.get(job)
        if state is None:
            if job not in self.given.jobs:
                raise NeedMore(Need(jobs=frozenset({job})))
            state = self._jobs[job] = _copy(self.given.jobs[job])
        return state

    def attempt(self, task: str, unit: int, attempt: int) -> JobState:
        """One job of a task. Raises NeedMore if the slice does not hold it."""
        return self.job(job_id(self.execution.id, task, unit, attempt))

    def look(self, name: str) -> TaskState:
        """The task as it stands, to be read only. Raises NeedMore if the slice does not hold it."""
        state = self._tasks.get(name) or self.given.tasks.get(name)
        if state is None:
            raise NeedMore(Need(tasks=frozenset({name})))
        return state

    def jobs_of(self, task: str) -> list[JobState]:
        """All jobs of a task as they stand, by unit, newest attempt last; to be read only.

        Raises NeedMore unless the slice holds every one.
        """
        if task not in self.given.jobs_loaded:
            raise NeedMore(Need(jobs_of=frozenset({task})))
        found = []
        for id_, given in self.given.jobs.items():
            if given.task == task and id_ not in self._born:
                # One that nobody has folded may be told of: what the engine sees of it is kept with the event.
                found.append(self._jobs.get(id_, given) if given.settled else self.job(id_))
        found += [job for job in self._born.values() if job.task == task]
        return sorted(found, key=_BY_UNIT)

    def born(self, task: str) -> list[JobState]:
        """The jobs of a task that this step has borne, in order of birth."""
        return [job for job in self._born.values() if job.task == task]

    def counting_jobs(self, task: str) -> list[JobState]:
        """The jobs that make up the task as it is now, newest attempt last: not those from before a reset.

        To be read only. Raises NeedMore unless the slice holds every one.
        """
        base = self.look(task).base_attempt
        return [job for job in self.jobs_of(task) if job.attempt >= base]

    def live_tasks(self) -> list[str]:
        """The top-level tasks that run or wait. Raises NeedMore unless the slice holds them all, with their children
        and jobs."""
        if not self.given.live_loaded:
            raise NeedMore(Need(live=True))
        known = self.plan.tasks
        live = [name for name in self.given.tasks if name in known and self.look(name).status in TASK_LIVE]
        top = [name for name in live if self.planned(name).parent is None]
        # In the plan's order, whatever was loaded first.
        return sorted(top, key=lambda name: self.planned(name).index)

    def want(self, names: Iterable[str]) -> None:
        """Raises NeedMore with every one of these tasks that the slice does not hold."""
        known, born = self.given.tasks, self._born_tasks
        missing = frozenset(name for name in names if name not in known and name not in born)
        if missing:
            raise NeedMore(Need(tasks=missing))

    def want_jobs(self, names: Iterable[str]) -> None:
        """Raises NeedMore with every one of these tasks of which the slice does not hold all jobs."""
        missing = frozenset(names) - self.given.jobs_loaded
        if missing:
            raise NeedMore(Need(jobs_of=missing))

    def seen(self, name: str) -> Mapping[str, Any]:
        """What templates see of a task. Raises NeedMore if its result is not in the slice."""
        if name in self.given.tasks:
            return view(self.look(name))
        known = self.given.results.get(name)
        if known is None:
            raise NeedMore(Need(results=frozenset({name})))
        return known

    def kv(self, keys: Collection[str]) -> dict[str, Any]:
        """The values of those keys that have one; the step notes that it read them. Raises NeedMore unless they were
        looked for."""
        missing = frozenset(keys) - self.given.kv_loaded
        if missing:
            raise NeedMore(Need(kv=missing))
        found = {key: self.given.kv[key] for key in keys if key in self.given.kv}
        self.facts.kv.update(found)
        return found

    def node(self, name: str) -> Node | None:
        """The node of this name, if there is one."""
        found = self.given.fleet.get(name)
        self.facts.nodes[name] = found
        return found

    def nodes(self) -> Iterable[Node]:
        """Every node, by name."""
        self.facts.fleet = self.given.fleet
        return [node for _, node in sorted(self.given.fleet.items())]

    def is_out(self, task: str) -> bool:
        """Whether a job of this task runs or is out on a node. Reads no more of them than it takes to know."""
        if task not in self.given.jobs_loaded:
            raise NeedMore(Need(jobs_of=frozenset({task})))
        for id_, given in (*self.given.jobs.items(), *self._born.items()):
            if given.task == task:
                job = self._jobs.get(id_, given)
                if job.status in JOB_OUT and not job.settled:
                    self.job(id_)
                    return True
        return False

    # changing

    def set_status(self, name: str, status: str, wait_reason: str = "") -> None:
        """Move a task and keep the execution's counts of live and waiting top-level tasks."""
        state = self.task(name)
        if self.planned(name).parent is None:
            run = self.execution
            run.live += (status in TASK_LIVE) - (state.status in TASK_LIVE)
            run.waiting += (status == WAITING) - (state.status == WAITING)
        if state.status != status:
            check_move(TASK, name, state.status, status, reopening=self.reopening)
        if state.status != status or state.wait_reason != wait_reason:
            self.log("task", task=name, status=status, **({"reason": wait_reason} if wait_reason else {}))
        state.status = status
        state.wait_reason = wait_reason

    def bear_task(self, state: TaskState) -> None:
        """A row for a task that there was not before."""
        self._tasks[state.name] = state
        self._born_tasks.add(state.name)

    def put(self, state: TaskState) -> None:
        """A task's row as if nothing had run: only for one that is over."""
        check_move(TASK, state.name, self.task(state.name).status, state.status, reopening=self.reopening)
        self._tasks[state.name] = state

    def bear(
        self,
        task: str,
        unit: int,
        attempt: int,
        node: str,
        queue_timeout: float,
        given: Mapping[str, Any] | None = None,
    ) -> JobState:
        """A new job, queued and to be handed over. `given` as in JobState."""
        job = JobState(
            id=job_id(self.execution.id, task, unit, attempt),
            task=task,
            unit=unit,
            attempt=attempt,
            node=node,
            queue_timeout=queue_timeout,
            given=given,
        )
        self._born[job.id] = job
        self.changes.new_jobs.append(job)
        return job

    def dispatch(self, job: JobState) -> None:
        """Have a job handed over. One that is held stays queued: whoever lets it go on hands over what is queued."""
        if not self.held:
            self.commands.dispatch.append(job)

    def stop(self, job: JobState) -> None:
        self.commands.stop.append(job)

    def arm(self, task: str, unit: int, kind: str, due_at: float) -> None:
        self.changes.timers.append(Timer(task, unit, kind, due_at))

    def disarm(self, task: str) -> None:
        """No timer of this task is wanted any more."""
        self.changes.timers = [timer for timer in self.changes.timers if timer.task != task]
        self.changes.dropped_task_timers.append(task)

    def publish(self, name: str, value: Any, task: str, size: int) -> None:
        """Set a variable; `size` is what `settle.admit` said."""
        self.execution.var_seq += 1
        self.execution.var_bytes += size
        self.vars[name] = value
        self.changes.published.append((self.execution.var_seq, name, value, task))

    def log(self, what: str, **data: Any) -> None:
        self.changes.log.append({"what": what, **data})

    # the answer

    def step(self) -> Step:
        """Raises ForbiddenMove where a record would go where the table of transitions does not let it."""
        given = self.given
        changes = self.changes
        changes.execution = _difference(given.execution, self.execution)
        if "status" in changes.execution:
            before, after = given.execution.status, self.execution.status
            check_move(EXECUTION, self.execution.id, before, after, reopening=self.reopening)
        for name, task in self._tasks.items():
            if name in self._born_tasks:
                changes.new_tasks.append(task)
                continue
            changed = _difference(given.tasks[name], task)
            if changed:
                changes.tasks[name] = changed
        for id_, job in self._jobs.items():
            before_ = given.jobs[id_]
            if before_.node and not before_.settled:
                said = said_of(before_)
                if said:
                    self.facts.jobs[id_] = said
            changed = _difference(before_, job)
            if changed:
                changes.jobs[id_] = changed
                check_move(JOB, id_, before_.status, job.status)
        return Step(changes, self.commands, self.facts)


def view(state: TaskState) -> dict[str, Any]:
    """What templates see as `task.<name>`."""
    seen = {"status": state.status, "result": state.result, "error": state.error}
    if state.units:
        total = state.total or state.units
        seen |= {"succeeded_count": state.succeeded, "failed_count": state.failed, "total_count": total}
    if state.items is not None:
        seen |= {"items": state.items, "total_count": state.total}
    return seen


def _copy(state: _State) -> _State:
    """As `dataclasses.replace`, at a fraction of the price: the engine copies whatever an event touches."""
    new = _new(type(state))
    new.__dict__ = state.__dict__.copy()
    return new


def _difference(before: _State, after: _State) -> dict[str, Any]:
    was, now = before.__dict__, after.__dict__
    return {} if was == now else {name: new for name, new in now.items() if was[name] != new}
