"""The one mutator: an execution locked in a transaction, moved by events through the engine, written back.

with control.store.write() as connection:
    run = Run.lock(control, connection, execution)
    with run.gathered():              # optional: one write for all that follows
        run.take(JobEnded(job))       # as often as wanted
...                                   # after the commit: sign and send what `run.dispatch` holds
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, update

from app.compiler.plan import Plan
from app.engine.advance import advance
from app.engine.draft import view
from app.engine.events import Event, JobEnded, NodeBack, Submitted
from app.engine.replay import data_of
from app.engine.state import Changes, Commands, JobState, Need, Slice, Step
from app.engine.status import EXECUTION_OVER, NOT_REACHED, PENDING
from app.logs import scope
from app.services import audit, ends, kv, limits, questions, spans, subjects
from app.services.control import Control
from app.store import births
from app.store import executions as rows
from app.store.approvals import Asked
from app.store.births import Birth
from app.store.head import Head
from app.store.tables import Job, table

jobs = table(Job)

MAX_NEEDS = 64
"""How often a step may ask for more before something is wrong: each answer is complete for what was asked."""


class Run:
    """One locked execution. `dispatch` collects the jobs that its steps want handed over.

    `birth` is what it was made with, where this transaction makes it. `stops`: jobs are to be stopped. It is written
    down with what changed: whoever signs orders tells their nodes, until they answer. `children`: there is something
    to be said to its children.
    """

    def __init__(
        self, control: Control, connection: Connection, head: Head, plan: Plan, birth: Birth | None = None
    ) -> None:
        self.control = control
        self.connection = connection
        self.head = head
        self.plan = plan
        self.now = control.clock()
        self.dispatch: list[JobState] = []
        self.stops = False
        self.children = False
        self._gathers = 0
        self._unsaved = Changes()
        self._unborn: dict[str, dict[str, Any]] = {}
        self._folded: set[str] = set()
        self._to_stop: list[JobState] = []
        self._answered: list[tuple[str, dict[str, Any]]] = []
        self._asked: dict[str, Asked] = {}
        self.birth = birth
        self._is_unborn = birth is not None
        self.slice = Slice(plan, head.state, limits=limits.of_executions(control.settings))

    @classmethod
    def lock(cls, control: Control, connection: Connection, execution: str) -> Run:
        """Raises UnknownExecution."""
        head = rows.lock(connection, execution)
        scope.note(execution=execution, trace_id=head.trace_id)
        return cls(control, connection, head, rows.plan(connection, head.plan_digest))

    @classmethod
    def new(cls, control: Control, connection: Connection, birth: Birth) -> Run:
        """An execution that nobody else can know of: its rows are written with what its first step changes."""
        run = cls(control, connection, birth.head(), birth.plan, birth)
        run.slice.tasks = birth.tasks()
        return run

    def be_born(self) -> None:
        """Have the rows of a new execution there, for statements of others that need them."""
        if self._is_unborn:
            self._write_birth({})

    @property
    def execution(self) -> str:
        return self.head.state.id

    def turn_to(self, plan: Plan, digest: str) -> None:
        """From the next event on another plan holds: only a retry of an execution that is over brings one."""
        self.slice.earlier, self.plan = self.plan, plan
        self.slice.plan, self.head.plan_digest = plan, digest

    def take(self, event: Event) -> Commands:
        """Put one event through the engine and write what it changed. The first is that it was submitted."""
        if not isinstance(event, Submitted):
            self.begin()
        self._preload(event)
        step = self._advance(event)
        self._answered.append((event.kind, data_of(event, step, self.slice.limits)))
        merge(self._unsaved, step.changes)
        if step.changes.asks:
            self.be_born()
            asked_by = subjects.askers(self)[-1]
            for ask in step.changes.asks:
                subject = subjects.of(self, ask, asked_by)
                self._asked[ask.job] = Asked.now(subject, asked_by, self.now)
        self._unborn.update({job.id: {} for job in step.changes.new_jobs})
        self._remember(step.changes)
        self._to_stop += step.commands.stop
        if not self._gathers:
            self.flush()
        self.dispatch += step.commands.dispatch
        self.children = self.children or bool(step.changes.children or step.changes.closed)
        return step.commands

    def begin(self) -> None:
        """Its first event, where whoever submitted it left that to us. Idempotent."""
        if not (self.head.event_seq or self._answered):
            self.take(Submitted())

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """What the steps inside change is written once, at the end of the outermost block.

        Statements of others inside must `flush` before they read or write rows that a step may have changed.
        """
        self._gathers += 1
        try:
            yield
        finally:
            self._gathers -= 1
        if not self._gathers:
            self.flush()

    def flush(self) -> None:
        """Write what the steps so far changed."""
        if not self._answered:
            return
        changes = self._unsaved
        over = changes.execution.get("status") in EXECUTION_OVER
        ends.saw(self.control.tally, self.slice, changes, self.now)
        if self.control.spans is not spans.nobody:
            self.control.spans(spans.of_step(self.head, self.slice, changes, self.now))
        for job in self._folded & changes.jobs.keys():
            changes.jobs[job].pop("settled", None)
        for job in self._unborn:
            # It is written as it stands by now.
            changes.jobs.pop(job, None)
        changes.jobs = {job: columns for job, columns in changes.jobs.items() if columns}
        self._save_states(changes)
        rows.save(self.connection, self.head, changes, self._answered, self.now, self._unborn, self._asked)
        for stopped in self._to_stop:
            asked = update(jobs).where(jobs.c.id == stopped.id, jobs.c.stop_asked_at.is_(None))
            self.connection.execute(asked.values(stop_asked_at=self.now))
            self.stops = True
        questions.tell_asked(self.connection, self.head, changes.asks, self._asked, self.now)
        questions.tell_expired(self.connection, self.head, changes.closed, self.now)
        if over:
            audit.completed(self.connection, self.head, self.now)
        self._unsaved, self._answered, self._unborn, self._to_stop = Changes(), [], {}, []
        self._asked = {}

    def _save_states(self, changes: Changes) -> None:
        if self._is_unborn:
            self._write_birth({**changes.execution, "event_seq": len(self._answered)})
        else:
            rows.save_states(self.connection, self.head, changes, len(self._answered))

    def _write_birth(self, changed: Mapping[str, Any]) -> None:
        assert self.birth is not None, "who is unborn has one"
        births.write(self.connection, self.birth, self.slice.tasks, changed)
        self._is_unborn = False

    def settle(self) -> None:
        """Fold every job that is over and that no settle has folded, and write the sum. Idempotent."""
        self.begin()
        waiting = rows.unsettled(self.connection, self.execution)
        self.load_tasks(set().union(*(self._neighbours(job.task) for job in waiting)))
        with self.gathered():
            for job in waiting:
                self.see_job(job)
                self.take(JobEnded(job.id))

    def fold(self, job: JobState, *, went_on: bool = False) -> None:
        """Fold a job whose row this transaction has just written as over and as settled."""
        self.see_job(job)
        if job.id not in self._unborn:
            self._folded.add(job.id)
        self.take(JobEnded(job.id, went_on))

    def unborn(self, job: str) -> Mapping[str, Any] | None:
        """What is marked of a job that was born in this transaction; None for one whose row is written."""
        return self._unborn.get(job)

    def mark(self, job: JobState, columns: Mapping[str, Any]) -> bool:
        """Have columns in the INSERT of a job that was born in this transaction. False where its row is written."""
        unborn = self._unborn.get(job.id)
        if unborn is None:
            return False
        unborn.update({name: value for name, value in columns.items() if name != "status"})
        return True

    def is_touched(self, job: str) -> bool:
        """Whether a step has changed the job, and that is not written yet."""
        return job in self._unsaved.jobs

    def see_job(self, job: JobState) -> None:
        """The caller has just written this row: use it instead of reading it again."""
        self.slice.jobs[job.id] = job

    def given_to(self, job: JobState) -> tuple[Mapping[str, Any], float | None]:
        """What a job is given: its rendered input and timeout in seconds."""
        return self.input_of(job.task) if job.given is None else own_input(job)

    def input_of(self, task: str) -> tuple[Mapping[str, Any], float | None]:
        """A task's rendered input and timeout in seconds."""
        if task not in self.slice.tasks:
            self.load_tasks(self._neighbours(task))
        state = self.slice.tasks[task]
        return state.input or {}, state.timeout

    def wake(self) -> None:
        """Tasks that wait for a node whose job has left in the meantime run again."""
        if self.head.state.waiting:
            self.flush()
            for task in rows.woken_tasks(self.connection, self.execution):
                self.take(NodeBack(task))

    def _preload(self, event: Event) -> None:
        """What the event is sure to touch, in as few statements as possible."""
        submitted = isinstance(event, Submitted)
        if submitted or not self.slice.fleet:
            self.slice.fleet = self.control.roster.nodes(self.connection, anew=submitted)
        job_id = getattr(event, "job", None)
        if job_id is not None and job_id not in self.slice.jobs:
            job = rows.load_job(self.connection, job_id)
            if job is not None:
                self.slice.jobs[job_id] = job
        if submitted:
            self.load_tasks(self.plan.tasks)
            return
        # The question of a gate has no job's row, and its timer no task.
        touched = getattr(event, "task", None) or (job_id in self.slice.jobs and self.slice.jobs[job_id].task)
        if touched:
            self.load_tasks(self._neighbours(touched))

    def _neighbours(self, name: str) -> set[str]:
        task = self.plan.tasks.get(name)
        if task is None:
            # Of the earlier version of the workflow.
            return {name}
        wanted = {name, *task.out}
        if task.parent:
            wanted |= {task.parent, *self.plan.tasks[task.parent].out}
        for one in list(wanted):
            wanted.update(self.plan.tasks[one].refs)
        return wanted & self.plan.tasks.keys()

    def load_tasks(self, names: Iterable[str]) -> None:
        """Have these tasks' rows in the slice."""
        missing = set(names) - self.slice.tasks.keys()
        if missing:
            self.slice.tasks.update(rows.load_tasks(self.connection, self.execution, missing))

    def _advance(self, event: Event) -> Step:
        for _ in range(MAX_NEEDS):
            answer = advance(self.slice, event, self.now)
            if isinstance(answer, Step):
                return answer
            self._fetch(answer)
        raise RuntimeError(f"the engine asked for more {MAX_NEEDS} times at {event} of {self.execution}")

    def _fetch(self, need: Need) -> None:
        self.flush()
        run = self.slice
        if need.tasks:
            self.load_tasks(set().union(*(self._neighbours(name) for name in need.tasks)))
        if need.results:
            run.results.update(rows.load_results(self.connection, self.execution, need.results))
        if need.vars:
            run.vars.update(rows.load_vars(self.connection, self.execution, need.vars))
            run.vars_loaded |= need.vars
        if need.kv:
            run.kv.update(kv.values(self.connection, need.kv, self.now))
            run.kv_loaded |= need.kv
        if need.jobs:
            loaded = rows.load_jobs(self.connection, self.execution, need.jobs)
            run.jobs.update({id_: job for id_, job in loaded.items() if id_ not in run.jobs})
        jobs_of = set(need.jobs_of)
        if need.live:
            live = rows.live_names(self.connection, self.execution)
            live |= {child for name in live for child in self.plan.tasks[name].children}
            self.load_tasks(live)
            jobs_of |= {
                name for name in live if self.plan.tasks[name].kind in ("job", "own", "fanout", "loop")
            }
            run.live_loaded = True
        if jobs_of:
            loaded = rows.load_jobs_of(self.connection, self.execution, jobs_of)
            run.jobs.update({id_: job for id_, job in loaded.items() if id_ not in run.jobs})
            run.jobs_loaded |= jobs_of

    def _remember(self, changes: Changes) -> None:
        """Carry a step's changes into the slice, for the next event of this transaction."""
        run = self.slice
        for name, value in changes.execution.items():
            setattr(run.execution, name, value)
        for task, columns in changes.tasks.items():
            for name, value in columns.items():
                setattr(run.tasks[task], name, value)
        for job, columns in changes.jobs.items():
            for name, value in columns.items():
                setattr(run.jobs[job], name, value)
        run.jobs.update({job.id: job for job in changes.new_jobs})
        run.tasks.update({task.name: task for task in changes.new_tasks})
        run.vars.update({name: value for _, name, value, _ in changes.published})
        run.results.update({name: view(task) for name, task in run.tasks.items() if name in run.results})
        run.live_loaded = False
        if changes.sweep_pending:
            for name, state in run.tasks.items():
                spared = changes.sweep_pending == "main" and self.plan.tasks[name].is_finally
                if state.status == PENDING and not spared:
                    state.status, state.ended_at = NOT_REACHED, self.now


def own_input(job: JobState) -> tuple[Mapping[str, Any], float | None]:
    """Input and timeout of a loop's unit."""
    given = job.given or {}
    return given["input"], given["timeout"]


def merge(into: Changes, step: Changes) -> None:
    """Add what a later step changed to what earlier ones did."""
    into.execution.update(step.execution)
    for name, columns in step.tasks.items():
        into.tasks.setdefault(name, {}).update(columns)
    for job, columns in step.jobs.items():
        into.jobs.setdefault(job, {}).update(columns)
    into.new_jobs += step.new_jobs
    into.new_tasks += step.new_tasks
    into.gone_tasks += step.gone_tasks
    into.published += step.published
    into.voided += step.voided
    into.asks += step.asks
    into.children += step.children
    into.closed += step.closed
    gone = set(step.dropped_task_timers)
    exact = set(step.dropped_timers)
    into.timers = [
        timer
        for timer in into.timers
        if timer.task not in gone and (timer.task, timer.unit, timer.kind) not in exact
    ]
    into.timers += step.timers
    into.dropped_task_timers += step.dropped_task_timers
    into.dropped_timers += step.dropped_timers
    into.sweep_pending = step.sweep_pending or into.sweep_pending
    into.log += step.log
