"""Rows in memory and a loader that gives the engine as little as it may: what the store does, without a database."""

from __future__ import annotations

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
    RetryAsked,
    Submitted,
    TimerDue,
)
from app.engine.state import Ask, Child, ExecutionState, JobState, Need, Node, Slice, Step, TaskState
from app.engine.status import (
    DISPATCHED,
    EXECUTION_OVER,
    JOB_OVER,
    NOT_REACHED,
    PENDING,
    TASK_LIVE,
    TASK_OVER,
)

FLEET = {name: Node(name) for name in ("local", "web-1", "web-2", "web-3")} | {
    "bare": Node("bare", shells=("sh",))
}


class World:
    """One execution. `deliver` applies an event as the store would; the checks run after every step."""

    def __init__(self, plan: Plan, parameters: dict[str, Any] | None = None, now: float = 1000.0) -> None:
        self.plan = plan
        self.now = now
        self.execution = ExecutionState(
            "01EXEC", parameters=parameters or {}, system={"execution_id": "01EXEC"}
        )
        self.tasks = {t.name: TaskState(t.name, open=t.incoming) for t in plan.tasks.values()}
        self.jobs: dict[str, JobState] = {}
        self.published: list[tuple[str, Any, str]] = []
        self.timers: dict[tuple[str, int, str], float] = {}
        self.asks: dict[str, Ask] = {}
        self.children: dict[str, Child] = {}
        self.started: list[str] = []
        self.stopped: set[str] = set()
        self.log: list[dict[str, Any]] = []
        self.needs = 0

    def submit(self) -> None:
        self.deliver(Submitted())

    def deliver(self, event: Event) -> Step:
        given = self._slice(event)
        for _ in range(200):
            answer = advance(given, event, self.now)
            if isinstance(answer, Step):
                break
            self.needs += 1
            self._fetch(given, answer)
        else:
            raise AssertionError(f"the engine never had enough for {event}")
        self._apply(answer, again=isinstance(event, RetryAsked))
        self.check()
        return answer

    def end(self, job: str, status: str, **more: Any) -> None:
        """A node's outcome is recorded, then settled."""
        row = self.jobs[job]
        if row.status not in JOB_OVER and not row.settled:
            error = None if status == "succeeded" else {"type": status, "message": status}
            result = {
                "exit_code": 0 if status == "succeeded" else 1,
                "stdout": job,
                "stderr": "",
                "truncated": False,
            }
            self.jobs[job] = replace(
                row, status=status, error=error, result={**result, **more}, exit_code=result["exit_code"],
                ended_at=self.now,
            )  # fmt: skip
        self.deliver(JobEnded(job))

    def lose(self, job: str) -> None:
        self.deliver(JobUnknown(job))

    def decide(self, job: str, outcome: str, **more: Any) -> None:
        """People decided a question."""
        self.asks.pop(job, None)
        self.deliver(Decided(job, outcome, ("grace",), **more))

    def end_child(self, job: str, status: str, output: Any = None) -> None:
        self.children.pop(job, None)
        self.deliver(ChildEnded(job, "01CHILD", status, output))

    def fire_timer(self, key: tuple[str, int, str]) -> None:
        self.now = max(self.now, self.timers[key])
        self.deliver(TimerDue(*key))

    def cancel(self, forced: bool = False) -> None:
        self.deliver(CancelAsked(forced))
        self._hand_over()

    def pause(self) -> None:
        self.deliver(PauseAsked("ada"))

    def resume(self) -> None:
        self.deliver(ResumeAsked("ada"))
        self._hand_over()

    def _hand_over(self) -> None:
        """What a pause kept queued, as the settle does that follows."""
        for id_, job in self.jobs.items():
            if job.status == "queued" and job.node:
                self.jobs[id_] = replace(job, status=DISPATCHED)

    def retry(self, **what: Any) -> None:
        """As the service does: reset, then resume with everything read anew."""
        before = {name: task for name, task in self.tasks.items() if task.status == "succeeded"}
        self.deliver(RetryAsked(person="ada", reason="again", **what))
        assert self.execution.status in ("paused", "pausing")
        kept = {name for name, task in self.tasks.items() if task.status in TASK_OVER}
        assert all(self.tasks[name].result == task.result for name, task in before.items() if name in kept)
        self.resume()

    @property
    def vars(self) -> dict[str, Any]:
        return {name: value for name, value, _ in self.published}

    @property
    def due_timers(self) -> list[tuple[str, int, str]]:
        """Those that a tick would fire: a pause holds the ones that start something."""
        paused = self.execution.intent == "pause"
        return [key for key in self.timers if not (paused and TimerDue(*key).is_a_start)]

    @property
    def open_jobs(self) -> list[str]:
        return [
            id_
            for id_, job in self.jobs.items()
            if job.status not in JOB_OVER and not job.settled and job.node
        ]

    @property
    def over(self) -> bool:
        return self.execution.status in EXECUTION_OVER

    def statuses(self) -> dict[str, str]:
        return {name: task.status for name, task in self.tasks.items()}

    def _slice(self, event: Event) -> Slice:
        given = Slice(self.plan, replace(self.execution), fleet=FLEET)
        job = getattr(event, "job", None)
        if job:
            given.jobs[job] = replace(self.jobs[job])
            given.tasks[self.jobs[job].task] = replace(self.tasks[self.jobs[job].task])
        if getattr(event, "task", None):
            given.tasks[event.task] = replace(self.tasks[event.task])  # type: ignore[union-attr]
        return given

    def _fetch(self, given: Slice, need: Need) -> None:
        assert need.tasks or need.results or need.vars or need.jobs_of or need.jobs or need.live, (
            "an empty Need"
        )
        names = set(need.tasks)
        jobs_of = set(need.jobs_of)
        if need.live:
            live = {name for name, task in self.tasks.items() if task.status in TASK_LIVE}
            live |= {child for name in live for child in self.plan.tasks[name].children}
            names |= live
            jobs_of |= live
            given.live_loaded = True
        given.tasks.update({name: replace(self.tasks[name]) for name in names if name not in given.tasks})
        given.results.update({name: view(self.tasks[name]) for name in need.results})
        wanted = (
            self.vars
            if "*" in need.vars
            else {name: self.vars[name] for name in need.vars if name in self.vars}
        )
        given.vars.update(wanted)
        given.vars_loaded |= need.vars
        for id_, job in self.jobs.items():
            if job.task in jobs_of and id_ not in given.jobs:
                given.jobs[id_] = replace(job)
        given.jobs_loaded |= jobs_of
        given.jobs.update({id_: replace(self.jobs[id_]) for id_ in need.jobs})

    def _apply(self, step: Step, *, again: bool) -> None:
        changes = step.changes
        for name, columns in changes.tasks.items():
            before = self.tasks[name]
            self.tasks[name] = replace(before, **columns)
            if not again:
                self._check_move(before, self.tasks[name])
        for id_, columns in changes.jobs.items():
            self.jobs[id_] = replace(self.jobs[id_], **columns)
        for job in changes.new_jobs:
            assert job.id not in self.jobs, f"{job.id} was born twice"
            self.jobs[job.id] = replace(job)
            if job.status not in JOB_OVER and job.node:
                self.started.append(job.id)
        voided = set(changes.voided)
        self.published = [one for one in self.published if one[2] not in voided]
        self.published += [(name, value, task) for _, name, value, task in changes.published]
        for task in changes.dropped_task_timers:
            self.timers = {key: due for key, due in self.timers.items() if key[0] != task}
        for key in changes.dropped_timers:
            self.timers.pop(key, None)
        for timer in changes.timers:
            self.timers[(timer.task, timer.unit, timer.kind)] = timer.due_at
        self.asks |= {ask.job: ask for ask in changes.asks}
        self.children |= {child.job: child for child in changes.children}
        for id_ in changes.closed:
            self.asks.pop(id_, None)
            self.children.pop(id_, None)
        if changes.sweep_pending:
            for name, task in self.tasks.items():
                spared = changes.sweep_pending == "main" and self.plan.tasks[name].is_finally
                if task.status == PENDING and not spared:
                    self.tasks[name] = replace(task, status=NOT_REACHED, ended_at=self.now)
        paused = self.execution.intent == "pause"
        self.execution = replace(self.execution, **changes.execution)
        if paused and self.execution.intent == "pause":
            assert not step.commands.dispatch, "a pause started something"
        for job in step.commands.dispatch:
            if self.jobs[job.id].status == "queued":
                self.jobs[job.id] = replace(self.jobs[job.id], status=DISPATCHED)
        self.stopped |= {job.id for job in step.commands.stop}
        self.log += changes.log

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
