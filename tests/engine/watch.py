"""Invariants that hold after every step of every execution, whatever happens in whatever order.

Those of an execution and its tasks' edges are here, those of jobs, loops, fan-outs and blocks in `watch_units`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import foreseen
from watch_gate import GateWatch
from watch_units import UnitWatch

from app.engine.events import CancelAsked, Event, JobEnded, ResumeAsked, RetryAsked, Submitted, TimerDue
from app.engine.moves import EXECUTION, JOB, TASK, may_move
from app.engine.state import Changes, Step, TaskState
from app.engine.status import JOB_OVER, PENDING, TASK_LIVE, TASK_OVER

if TYPE_CHECKING:
    from world import World

    from app.compiler.plan import Plan


class Watch:
    """Looks at each step of one world: at the answer before it is written, and at the rows after it.

    `fired` says of each task that is over where its edges went, `halted` which ended when none might. `checks_slices`
    compares every row before and after the engine had it. What templates decide is foreseen of random workflows only:
    it is known what they hold.
    """

    def __init__(self, world: World, *, checks_slices: bool) -> None:
        self.world = world
        self.plan = world.plan
        self.checks_slices = checks_slices
        self.foresees = world.plan.ref == "sim.random"
        self.flag = bool(world.execution.parameters.get("flag"))
        self.sources = _sources(world.plan)
        self.top = (*self.sources, *world.plan.finally_)
        self.units = UnitWatch(world)
        self.gate = GateWatch(world)
        self.fired: dict[str, frozenset[str]] = {}
        self.badly: set[str] = set()
        self.halted: set[str] = set()
        self.is_retried = False
        self._before: list[tuple[Any, Any]] = []
        self._halt = self._intent = ""
        self.gone: str | None = None
        self._ended: list[str] = []
        self._left: list[str] = []

    def turn_to(self, plan: Plan) -> None:
        """Another version of the workflow holds from now on; what it holds is not foreseen."""
        self.plan = self.units.plan = plan
        self.foresees = self.units.foresees = False
        self.sources = _sources(plan)
        self.top = (*self.sources, *plan.finally_)
        self.fired = {name: went for name, went in self.fired.items() if name in plan.tasks}
        self.badly &= plan.tasks.keys()
        self.halted &= plan.tasks.keys()

    def close(self) -> None:
        """Let go of the world, so that it goes as soon as nobody wants it: collecting cycles costs a tenth."""
        del self.world, self.units, self.gate

    def begins(self, event: Event) -> None:
        run = self.world.execution
        self._halt, self._intent = run.halt, run.intent
        went_on = isinstance(event, JobEnded) and event.went_on
        self.gone = self.plan.tasks[self.world.jobs[event.job].task].then if went_on else None
        self.gate.begins()
        if self.checks_slices:
            rows = (run, *self.world.tasks.values(), *self.world.jobs.values())
            self._before = [(row, dict(row.__dict__)) for row in rows]

    def answered(self, event: Event, step: Step) -> None:
        """The rows are still as they were."""
        changes, tasks, again = step.changes, self.world.tasks, isinstance(event, RetryAsked)
        for row, before in self._before:
            assert row.__dict__ == before, f"the engine changed what it was given: {before} to {row}"
        status = changes.execution.get("status")
        if status is not None:
            before = self.world.execution.status
            assert may_move(EXECUTION, before, status, reopening=again), (
                f"the execution went {before} to {status}"
            )
        if self._intent == "cancel" and not again:
            assert "intent" not in changes.execution, "a cancel was taken back"
        self.gate.answered(event, step)
        self._ended, self._left = [], []
        for name, columns in changes.tasks.items():
            after = columns.get("status")
            if after is None:
                continue
            before = tasks[name].status
            if not again:
                assert may_move(TASK, before, after) or (before, after in TASK_OVER) == (PENDING, True), (
                    f"{name} went from {before} to {after}"
                )
                if after in TASK_OVER:
                    self._ended.append(name)
                if before == PENDING:
                    self._left.append(name)
                elif (name, 0, "delay") in self.world.timers:
                    is_due = isinstance(event, TimerDue) and (event.task, event.timer) == (name, "delay")
                    is_stopped = after == "cancelled"
                    assert is_due or is_stopped, f"{name} was {after} before its delay was over"
        for id_, columns in changes.jobs.items():
            job = self.world.jobs[id_]
            assert may_move(JOB, job.status, columns.get("status", job.status)), (
                f"{id_}: {job.status}, {columns}"
            )
            if job.settled:
                raise AssertionError(f"{id_} was settled, and then {columns}")
        self._starts(event, step)
        if self.foresees:
            self._published(event, changes)
        self.units.answered(event, step)

    def _starts(self, event: Event, step: Step) -> None:
        """Nothing starts in a pause, nor after a cancel or a failure that ends all, but for `finally`."""
        changes, commands = step.changes, step.commands
        if not (self._halt or changes.new_jobs or commands.dispatch or changes.asks or changes.children):
            return
        started = [*commands.dispatch, *(job for job in changes.new_jobs if job.status not in JOB_OVER)]
        # What its node had begun by itself began before anybody could tell it of a pause or a halt.
        started = [job for job in started if job.task != self.gone]
        if self._intent == "pause" and self.world.execution.intent == "pause" and not (
            isinstance(event, (ResumeAsked, RetryAsked)) or "intent" in changes.execution
        ):  # fmt: skip
            assert not commands.dispatch, "a pause handed a job over"
            begun = [job.status for job in changes.new_jobs if job.task != self.gone]
            assert "running" not in begun, "a pause started something"
            assert not changes.asks, "a pause asked people"
            assert not changes.children, "a pause called a workflow"
        if (self._halt or isinstance(event, CancelAsked)) and not isinstance(event, RetryAsked):
            forced = self._halt == "forced" or (isinstance(event, CancelAsked) and event.forced)
            for job in started:
                is_last = _is_last(self.plan, job.task)
                assert is_last, f"{job.id} started after a halt"
                assert not forced, f"{job.id} started after a forced cancel"

    def _has_gone_on(self, step: Step) -> None:
        """What a node began by itself is known from now on, and stopped where everything is."""
        if self.gone is None:
            return
        begun = [job.id for job in step.changes.new_jobs if job.task == self.gone]
        assert begun, f"nothing is known of {self.gone}, which runs"
        if self.world.execution.halt:
            assert begun == [job.id for job in step.commands.stop if job.task == self.gone], (
                f"{self.gone} runs after a halt, and nobody stops it"
            )

    def _published(self, event: Event, changes: Changes) -> None:
        """P1-P4: when a task comes to its end, all of it or nothing, numbered, on top of what was there."""
        run, plan = self.world.execution, self.plan.tasks
        if not (changes.published or self._ended):
            return
        seq = run.var_seq
        told: dict[str, list[str]] = {}
        current = self.world.vars if changes.published else {}
        for number, name, value, task in changes.published:
            seq += 1
            assert number == seq, f"variable {name} has number {number}, not {seq}"
            if task and name == "trail" and not isinstance(event, RetryAsked):
                assert value == f"{current['trail']}.{task}", (
                    f"{task} published {value} on {current['trail']}"
                )
            current[name] = value
            told.setdefault(task, []).append(name)
        assert changes.execution.get("var_seq", run.var_seq) == seq
        if isinstance(event, RetryAsked):
            return
        for task in told.keys() - {""}:
            assert task in self._ended, f"{task} published and was not over"
        assert not (told.get("") and not isinstance(event, Submitted))
        for task in self._ended:
            spec = plan[task]
            if spec.publish or spec.publish_on_failure:
                status = changes.tasks[task]["status"]
                wanted = spec.publish if status == "succeeded" else ()
                wanted = spec.publish_on_failure if status in foreseen.FAILURES else wanted
                assert told.get(task, []) == [name for name, _ in wanted], f"{task} {status} published {told}"

    def wrote(self, event: Event, step: Step) -> None:
        """The rows are as the engine left them."""
        world, changes = self.world, step.changes
        self._has_gone_on(step)
        if self.foresees:
            if isinstance(event, RetryAsked):
                self._retried(event)
            for name in self._ended:
                self._went(name, changes)
            self._after(event, changes)
        if changes.tasks or changes.execution:
            top = [world.tasks[name].status for name in self.top]
            live, waiting = sum(status in TASK_LIVE for status in top), top.count("waiting")
            assert (world.execution.live, world.execution.waiting) == (live, waiting)
        self.units.wrote(event, step, self._ended)
        if world.over:
            self._over()
        elif not (world.waits or world.execution.intent == "pause"):
            raise AssertionError(f"nothing can happen any more: {world.statuses()}")

    def _went(self, name: str, changes: Changes) -> None:
        """E4: where the edges of a task that has just come to its end went."""
        task, row = self.plan.tasks[name], self.world.tasks[name]
        if task.parent is not None or task.is_finally:
            return
        now = self.world.execution.halt
        found = foreseen.fires(task, row.status, self.flag)
        if self.gone in task.out and row.status == "succeeded":
            assert row.went == (self.gone,), f"{name} went to {row.went}, and its node to {self.gone}"
            self.fired[name] = frozenset(row.went)
        elif self._halt or (now and row.went is None):
            assert row.went is None, f"{name} went to {row.went} after a halt"
            self.halted.add(name)
            self.fired[name] = frozenset()
        else:
            went = tuple(sorted(found - {"noop", foreseen.NO_BRANCH}))
            assert row.went == went, f"{name} {row.status} went to {row.went}, not {went}"
            self.fired[name] = found
            self.badly |= found & {"fail", foreseen.NO_BRANCH}
        if (
            self.plan.fail_fast
            and row.status in foreseen.FAILURES
            and not foreseen.is_handled(task, row.status)
        ):
            assert now, f"{name} failed and nothing was halted"

    def _after(self, event: Event, changes: Changes) -> None:
        """E5: a task leaves pending when and as its edges say; none is left behind."""
        run, tasks, plan = self.world.execution, self.world.tasks, self.plan.tasks
        for name in self._left:
            if plan[name].parent is None and not plan[name].is_finally:
                self._check_left(name, tasks[name], bool(self._halt or run.halt))
        for name, columns in changes.tasks.items():
            if "open" in columns or "fired" in columns:
                open_, fired = self._edges(name)
                row = tasks[name]
                assert (row.open, row.fired) == (open_, fired), (
                    f"{name}: {row.open}, {row.fired} of its edges"
                )
        if run.intent == "pause" or run.halt or self.world.over or self.gate.is_shut:
            return
        touched = {target for name in self._ended for target in plan[name].out}
        for name in self.sources if isinstance(event, ResumeAsked) or self.gate.has_opened else touched:
            if tasks[name].status == PENDING:
                into, (open_, fired) = len(self.sources[name]), self._edges(name)
                stays = not (
                    foreseen.may_run(plan[name], into, open_, fired)
                    or foreseen.never_runs(plan[name], into, open_, fired)
                )
                assert stays, f"{name} was left behind"

    def _edges(self, name: str) -> tuple[int, int]:
        open_ = fired = 0
        for source in self.sources[name]:
            where = self.fired.get(source)
            if where is None:
                open_ += 1
            elif name in where:
                fired += 1
        return open_, fired

    def _check_left(self, name: str, row: TaskState, is_halted: bool) -> None:
        into, (open_, fired) = len(self.sources[name]), self._edges(name)
        if row.status == "not_reached":
            right = is_halted or foreseen.never_runs(self.plan.tasks[name], into, open_, fired)
        else:
            right = foreseen.may_run(self.plan.tasks[name], into, open_, fired)
        assert right, f"{name} became {row.status} with {fired} of {into} edges fired, {open_} open"

    def _retried(self, event: RetryAsked) -> None:
        """R1: what did not come to a good end, and what follows it, is to run again; all else stands."""
        world, tasks = self.world, self.world.tasks
        self.is_retried, self.badly = True, set()
        for name in self.sources:
            row, task = tasks[name], self.plan.tasks[name]
            if row.status not in TASK_OVER:
                self.fired.pop(name, None)
            else:
                assert row.status not in (*foreseen.FAILURES, "cancelled"), f"{name} {row.status} was kept"
                goes = foreseen.fires(task, row.status, self.flag)
                if name in event.mark_ok:
                    self.badly |= goes & {"fail", foreseen.NO_BRANCH}
                elif name in self.halted:
                    # It goes on only now.
                    self.badly |= goes & {foreseen.NO_BRANCH}
                self.fired[name] = frozenset(row.went or ())
                assert self.fired[name] <= goes, f"{name}: {self.fired[name]} of {goes}"
        for name in self.sources:
            row = tasks[name]
            if row.status == PENDING:
                assert (row.open, row.fired) == self._edges(name), f"{name}: its edges are miscounted"
            elif name not in event.mark_ok:
                for source in self.sources[name]:
                    is_new = row.status in TASK_OVER and tasks[source].status not in TASK_OVER
                    assert not is_new, f"{name} was kept, though {source} before it runs again"
        self.halted.clear()
        self._finally_reset(event)
        for _, name, _, task in world.published:
            assert not task or tasks[task].status in TASK_OVER, f"{name} of {task} counts, which runs again"
        self.units.retried()

    def _finally_reset(self, event: RetryAsked) -> None:
        """All of `finally` follows what runs again; where nothing else does, only what of it came to no good."""
        last = [self.world.tasks[name].status for name in self.plan.finally_]
        if event.plan or any(self.world.tasks[name].status not in TASK_OVER for name in self.sources):
            assert set(last) <= {PENDING}, f"of `finally` some were not reset: {last}"
        elif not event.mark_ok:
            # What people refused may be asked for again though nothing of it would run.
            assert PENDING in last or (not last and self.gate.was_refused), "nothing runs again"
            assert set(last) <= {PENDING, "succeeded", "skipped"}, f"of `finally` some were kept: {last}"

    def _over(self) -> None:
        """E6, and nothing is left."""
        world, run, tasks = self.world, self.world.execution, self.world.tasks
        left = {name: task.status for name, task in tasks.items() if task.status not in TASK_OVER}
        assert not left, f"over with {left}"
        open_ = [id_ for id_, job in world.jobs.items() if job.status not in JOB_OVER and not job.settled]
        assert not open_, f"over with jobs {open_}"
        assert not world.asks, f"over with questions {world.asks}"
        assert not world.children, f"over with children {world.children}"
        assert not world.timers, f"over with timers {world.timers}"
        if not self.foresees:
            return
        failed = [name for name in self.sources if tasks[name].status in foreseen.FAILURES]
        bad = [name for name in failed if not foreseen.is_handled(self.plan.tasks[name], tasks[name].status)]
        last = [tasks[name].status for name in self.plan.finally_]
        if self.gate.is_refused:
            wanted = "rejected"
        elif run.intent == "cancel":
            wanted = "cancelled"
        else:
            is_bad = bad or self.badly or any(status in foreseen.FAILURES for status in last)
            wanted = "failed" if is_bad else "completed"
        assert run.status == wanted, f"{run.status}, not {wanted}: {world.statuses()}"
        assert run.degraded == (wanted == "completed" and bool(failed)), (
            f"degraded is {run.degraded} with {failed} failed"
        )
        if run.halt != "forced" and not self.gate.was_not_opened:
            assert "not_reached" not in last, "a task of `finally` did not run"
        if run.status == "completed" and self.plan.output_map:
            assert run.output == {"trail": world.vars["trail"]}, f"the output is {run.output}"


def _is_last(plan: Any, task: str) -> bool:
    return bool(plan.tasks[task].is_finally)


_SOURCES: dict[int, tuple[Any, dict[str, tuple[str, ...]]]] = {}


def _sources(plan: Any) -> dict[str, tuple[str, ...]]:
    """The top-level tasks but for `finally`, with where their edges come from; kept for a plan that is used again."""
    known = _SOURCES.get(id(plan))
    if known is None or known[0] is not plan:
        found = foreseen.sources(plan)
        main = {name: into for name, into in found.items() if plan.tasks[name].parent is None}
        known = plan, {name: into for name, into in main.items() if not plan.tasks[name].is_finally}
        _SOURCES.clear()
        _SOURCES[id(plan)] = known
    return known[1]
