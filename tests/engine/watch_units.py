"""Invariants of jobs and of what is made of several: attempts, timers, loops, fan-outs, blocks."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from typing import TYPE_CHECKING, Any

import foreseen

from app.compiler.plan import PlanTask
from app.engine.events import Event, JobResolved, RetryAsked
from app.engine.state import JobState, Step, TaskState
from app.engine.status import JOB_OVER, TASK_LIVE, TASK_OVER

if TYPE_CHECKING:
    from world import World


class UnitWatch:
    """`agains` counts the attempts that a person added, by task and unit."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.plan = world.plan
        self.foresees = world.plan.ref == "sim.random"
        self.agains: Counter[tuple[str, int]] = Counter()
        self.handed: set[str] = set()
        self._kept: dict[str, str] = {}

    def answered(self, event: Event, step: Step) -> None:
        """The rows are still as they were."""
        changes = step.changes
        if isinstance(event, JobResolved) and event.outcome == "again":
            job = self.world.jobs[event.job]
            self.agains[job.task, job.unit] += 1
        births: dict[str, list[JobState]] = {}
        for job in changes.new_jobs:
            births.setdefault(job.task, []).append(job)
            assert job.id not in self.world.jobs, f"{job.id} was born twice"
            if self.foresees and not isinstance(event, RetryAsked):
                self._attempt(job, step)
        for job in step.commands.dispatch:
            assert job.id not in self.handed, f"{job.id} was handed over twice"
            assert job.node, f"{job.id} was handed over and has no node"
            assert job.status in ("queued", *JOB_OVER)
            self.handed.add(job.id)
        if not self.foresees:
            return
        for timer in changes.timers:
            if timer.task:
                self._timer(event, step, timer)
        for one in (*changes.asks, *changes.children):
            if one.job not in changes.closed and getattr(one, "task", "a child"):
                self._wait(step, one.job, getattr(one, "expires_at", None))
        if not isinstance(event, RetryAsked):
            for task, jobs in births.items():
                self._births(self.plan.tasks[task], jobs, step)

    def _attempt(self, job: JobState, step: Step) -> None:
        """P5: one start of each attempt; another only after the last came to a failure, as often as it may."""
        row = self.world.tasks[job.task]
        first = step.changes.tasks.get(job.task, {}).get("first_attempt", row.first_attempt)
        before = self.plan.tasks[job.task].along
        if before:
            # A node may have begun it behind any earlier attempt of what comes before it.
            last = max((one.attempt for one in self.world.jobs_of(before)), default=1)
            assert job.attempt >= last, f"{job.id} follows attempt {last} of {before}"
        if job.attempt == first:
            return
        earlier = self.world.jobs.get(f"01EXEC.{job.task}.{job.unit}.{job.attempt - 1}")
        if earlier is None:
            born = [one for one in step.changes.new_jobs if one.task == job.task and one.unit == job.unit]
            earlier = next(one for one in born if one.attempt == job.attempt - 1)
            status = earlier.status
        else:
            status = step.changes.jobs.get(earlier.id, {}).get("status", earlier.status)
        assert status in foreseen.FAILURES, f"{job.id} was born, and the attempt before it is {status}"
        retry = self.plan.tasks[job.task].retry
        most = (retry["count"] if retry else 0) + self.agains[job.task, job.unit]
        assert job.attempt - first <= most, f"{job.id}: more attempts than {most} retries"

    def _timer(self, event: Event, step: Step, timer: Any) -> None:
        task, wait = self.plan.tasks[timer.task], timer.due_at - self.world.now
        if timer.kind == "delay":
            assert wait == task.delay, f"{timer} after {wait} s"
        elif timer.kind.startswith("retry."):
            row = self.world.tasks[timer.task]
            number = int(timer.kind[6:]) - row.first_attempt + 1
            assert wait == foreseen.wait_of(dict(task.retry or {}), number), f"{timer} after {wait} s"

    def _wait(self, step: Step, job: str, expires_at: float | None) -> None:
        """A question that expires and a call with a timeout have a timer."""
        task, unit, attempt = job.split(".")[1:]
        plan = self.plan.tasks[task]
        if expires_at is not None or (
            plan.kind in ("own", "loop") and plan.timeout and plan.action == "sim.child"
        ):
            kinds = {f"expiry.{attempt}", f"timeout.{attempt}"}
            armed = [one for one in step.changes.timers if (one.task, one.unit) == (task, int(unit))]
            assert any(one.kind in kinds for one in armed), f"{job} waits for ever"

    def _births(self, task: PlanTask, jobs: list[JobState], step: Step) -> None:
        row = self.world.tasks[task.name]
        new = [job for job in jobs if job.attempt == row.first_attempt]
        if task.delay and new and row.status == "pending":
            raise AssertionError(f"{task.name} did not wait for {task.delay} s")
        if task.kind == "loop" and new and not row.units:
            loop = task.loop or {}
            wanted = foreseen.batches_of(tuple(loop["items"]), loop["batch_size"])
            given = [
                list(one) if isinstance(one, tuple) else one for one in (job.given["item"] for job in new)
            ]
            assert given == wanted, f"{task.name} has units {given}, not {wanted}"
            assert [job.given["index"] for job in new] == list(range(len(wanted))), (
                f"{task.name}: its indexes"
            )
        if task.kind == "fanout" and new:
            self._batch(task, row, [job.unit for job in new], step)

    def _batch(self, task: PlanTask, row: TaskState, units: list[int], step: Step) -> None:
        """A batch starts when the one before is over, and none once too many have failed."""
        given = row.input or step.changes.tasks[task.name].get("input") or {}
        batch = given.get("batch")
        total = row.units or step.changes.tasks[task.name]["units"]
        failed = step.changes.tasks[task.name].get("failed", row.failed)
        if row.units:
            assert row.failed <= given.get("max_failures", 0), f"{task.name} goes on after {failed} failures"
        if batch is None:
            return
        begins = foreseen.batch_begins(tuple(batch) if isinstance(batch, list | tuple) else (batch,), total)
        start = begins[bisect_right(begins, max(units)) - 1]
        changed = step.changes.jobs
        open_ = [
            job.unit
            for job in self.world.jobs_of(task.name)
            if job.unit < start
            and job.attempt >= row.first_attempt
            and changed.get(job.id, {}).get("status", job.status) not in JOB_OVER | {"unknown"}
        ]
        assert not open_, f"{task.name}: units {units} of the next batch beside {open_}"

    def wrote(self, event: Event, step: Step, ended: list[str]) -> None:
        """The rows are as the engine left them."""
        world = self.world
        touched = {world.jobs[id_].task for id_ in step.changes.jobs}
        touched |= {job.task for job in step.changes.new_jobs}
        for name in (*ended, *touched):
            task, row = self.plan.tasks[name], world.tasks[name]
            if task.kind in ("loop", "fanout"):
                counted = row.succeeded + row.failed + row.skipped + row.cancelled
                assert row.over == counted <= row.units, f"{name}: {row.over} over, {counted} counted"
                if row.window and task.runs_in_engine and row.status in TASK_LIVE:
                    running = world.engine_units(name)
                    assert running <= row.window, f"{name}: {running} units at once"
                    waits = row.status in TASK_LIVE and not row.stopping and world.execution.intent == "run"
                    if waits and running < row.window and not world.execution.halt:
                        # Those that wait for another attempt have a timer.
                        timed = {key[1] for key in world.timers if key[0] == name}
                        assert row.started == row.units or running + len(timed) >= row.window, f"{name} idles"
        for name in ended if self.foresees else ():
            _ENDS.get(self.plan.tasks[name].kind, _nothing)(self, name)

    def retried(self) -> None:
        self.agains.clear()

    def loop_ended(self, name: str) -> None:
        """I3-I5."""
        task, row = self.plan.tasks[name], self.world.tasks[name]
        loop = task.loop or {}
        if not row.units:
            assert row.status != "succeeded" or not loop["items"], f"{name} succeeded and never ran"
        if not row.units or not isinstance(row.result, list) or (row.error or {}).get("type") == "too_large":
            return
        last = self._last(name, row)
        told = [one["status"] for one in row.items]
        is_over = {unit: job.status for unit, job in last.items() if job.status in JOB_OVER}
        assert told == [is_over.get(unit, "not_reached") for unit in range(row.units)], f"{name}: {told}"
        assert len(row.result) == row.units, f"{name}: {len(row.result)} results"
        assert row.total == len(loop["items"]), f"{name}: {row.total} items"
        for unit, job in last.items():
            assert row.result[unit] == job.result, f"{name}: the result of unit {unit} stands elsewhere"
        failed = row.failed
        assert failed >= sum(job.status in foreseen.FAILURES for job in last.values()), (
            f"{name}: {failed} failed"
        )
        if row.status == "succeeded":
            assert failed <= loop["tolerate"], f"{name} succeeded with {failed} failures"
            assert not row.cancelled, f"{name} succeeded with {row.cancelled} cancelled"
            assert row.over == row.units, f"{name} ended with {row.over} of {row.units} units"
        elif row.status == "failed" and not self._halted:
            assert failed > loop["tolerate"] or row.cancelled, f"{name} failed with {failed} failures"
        if not (row.stopping or self._halted or row.cancelled):
            assert row.over == row.units, f"{name} ended with {row.over} of {row.units} units"

    def _last(self, name: str, row: TaskState) -> dict[int, JobState]:
        return {job.unit: job for job in self.world.jobs_of(name) if job.attempt >= row.base_attempt}

    @property
    def _halted(self) -> bool:
        return bool(self.world.execution.halt)

    def fanout_ended(self, name: str) -> None:
        row, last = self.world.tasks[name], self._last(name, self.world.tasks[name])
        if not row.nodes:
            is_right = row.status != "succeeded" and (row.status != "skipped" or self.plan.tasks[name].when)
            assert is_right or "marked" in (row.result or {}), f"{name} {row.status} and never ran"
        if not row.nodes or not isinstance(row.result, dict) or "results" not in row.result:
            return
        told = {one["node_id"]: one["status"] for one in row.result["results"]}
        known = {job.node: job.status for job in last.values()}
        assert told == {node: known.get(node, "not_reached") for node in row.nodes}, f"{name}: {told}"
        most = (row.input or {}).get("max_failures", 0)
        if row.status in ("succeeded", "skipped"):
            assert row.failed <= most, f"{name} {row.status} with {row.failed} failures"
            assert row.over == row.units, f"{name} ended with {row.over} of {row.units} units"
            assert (row.status == "skipped") == (row.skipped == row.units), (
                f"{name} {row.status}, {row.skipped} skipped"
            )
        elif row.status == "failed":
            assert row.failed > most, f"{name} failed with {row.failed} failures"

    def block_ended(self, name: str) -> None:
        """E7."""
        task, row, tasks = self.plan.tasks[name], self.world.tasks[name], self.world.tasks
        statuses = [tasks[child].status for child in task.children]
        if row.status in ("skipped", "not_reached") or not row.units:
            return
        assert all(status in TASK_OVER for status in statuses), (
            f"{name} is over before its children: {statuses}"
        )
        if row.stopping == "timed_out":
            wanted = "timed_out"
        elif any(status in foreseen.FAILURES for status in statuses):
            wanted = "failed"
        else:
            is_cut = any(status in ("cancelled", "not_reached") for status in statuses)
            wanted = "cancelled" if is_cut else "succeeded"
        assert row.status == wanted, f"{name} {row.status} of {statuses}"
        assert row.result == {child: tasks[child].result for child in task.children}, f"{name}: its result"


def _nothing(watch: UnitWatch, name: str) -> None:
    del watch, name


_ENDS = {"loop": UnitWatch.loop_ended, "fanout": UnitWatch.fanout_ended, "block": UnitWatch.block_ended}
