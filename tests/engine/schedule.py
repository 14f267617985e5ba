"""One schedule of one random workflow: who does what, when, and what goes wrong on the way. A seed decides it all."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import lru_cache
from random import Random
from zlib import crc32

from random_workflows import changed, workflow
from world import World

from app.compiler.build import build
from app.compiler.plan import Plan
from app.engine import replan
from app.engine.events import Decided, JobResolved, RetryAsked
from app.engine.reach import BROKEN, broken_at_the_end
from app.engine.replay import Happened, Stored, data_of, differences, replay
from app.engine.state import ExecutionState
from app.engine.status import JOB_OVER, UNKNOWN
from app.language.model import Workflow

SCHEDULES = 20
"""Schedules of each random workflow."""
NARROW, REPLAYED, COMPARED = 8, 15, 17
"""One schedule of so many gives the engine only what it asks for; is made again from its events alone; compares all
rows before and after the engine had them. Numbers without a common factor, so that all of these meet."""
STEPS = 3000
GATED = 0.15
"""How often people are asked for the whole execution."""
NEWER = 0.2
"""How often an execution is tried again by another version of its workflow."""


@lru_cache(maxsize=8)
def plan_of(seed: int) -> tuple[Plan, dict[str, bool]]:
    """A random workflow compiled, and its parameters."""
    rng = Random(seed)
    plan = compiled(workflow(rng))
    return gated(plan, Random(f"gate {seed}")), {"flag": rng.random() < 0.6}


def gated(plan: Plan, rng: Random) -> Plan:
    """Now and then people are asked for the whole execution."""
    if rng.random() >= GATED:
        return plan
    expires = {"expires_in": 30, "on_expire": rng.choice(["timeout", "reject", "approve", "approve"])}
    return replace(plan, gate={"prompt": "all of it?", **(expires if rng.random() < 0.5 else {})})


def compiled(written: Workflow) -> Plan:
    """By way of JSON, as from the database."""
    return Plan.from_json(build(written).to_json())


def run(number: int) -> World:
    """Schedule `number` with every ill: it belongs to workflow number // SCHEDULES. Raises AssertionError."""
    world = Schedule(number // SCHEDULES, number, fates=number).play()
    if number % REPLAYED == 0:
        check_replay(world)
    return world


def run_in_peace(seed: int, order: int) -> World:
    """Nobody interferes and nothing is lost; `order` says what ends first, and each job comes to the same."""
    return Schedule(seed, seed * 1000 + order, fates=seed, is_stormy=False).play()


class Schedule:
    """`fates` says what each job comes to, `order` all the rest."""

    def __init__(self, seed: int, order: int, *, fates: int, is_stormy: bool = True) -> None:
        plan, parameters = plan_of(seed)
        self.seed = seed
        self.written: Workflow | None = None
        self.rng = Random(order)
        self.random = self.rng.random
        self.fates = str(fates)
        self.is_stormy = is_stormy
        self.world = World(
            plan,
            parameters,
            is_narrow=order % NARROW == 0,
            checks_slices=is_stormy and order % COMPARED == 0,
            keeps_events=order % REPLAYED == 0,
        )
        self.retries = self.rng.choice((0, 0, 0, 0, 1, 2)) if is_stormy else 0

    def play(self) -> World:
        world = self.world
        world.submit()
        for _ in range(STEPS):
            if not world.over:
                self._crash()
                self._something()
            elif self.retries:
                self.retries -= 1
                self._again()
            else:
                world.watch.close()
                return world
        raise AssertionError("it never ended")

    def _crash(self) -> None:
        """Control dies between a commit and what was to be sent after it, now and then, and is back at the tick."""
        if self.is_stormy:
            world, chance = self.world, self.random()
            if chance < 0.04:
                world.crashes = True
            elif world.crashes and chance < 0.4:
                world.crashes = False
                world.tick()
            if chance > 0.97:
                # The clock jumps; no decision may hang on it but that of a timer.
                world.now = max(1.0, world.now + self.rng.choice((-500.0, -5.0, 5.0, 5000.0)))

    def _something(self) -> None:
        world, chance = self.world, self.random()
        if self.world.over:
            return
        paused = world.execution.intent == "pause"
        if self.is_stormy and chance < 0.26:
            if chance < 0.025:
                world.cancel(forced=self.random() < 0.3)
            elif chance < 0.1:
                self._once_more()
            elif chance < (0.25 if paused else 0.13):
                world.resume() if paused else world.pause()
            else:
                self._next()
        else:
            self._next()

    def _next(self) -> None:
        """One of what may happen next."""
        world = self.world
        jobs = world.handed_over
        timers, asks, children = world.due_timers, list(world.asks), list(world.children)
        count = len(jobs) + len(timers) + len(asks) + len(children)
        if not count:
            world.crashes = False
            world.tick()
            if not world.over and world.execution.intent == "pause":
                world.resume()
            return
        at = int(self.random() * count)
        if at < len(jobs):
            self._job(jobs[at])
        elif (at := at - len(jobs)) < len(timers):
            world.fire_timer(timers[at])
        elif (at := at - len(timers)) < len(asks):
            failed = self._fate(asks[at]) == "failed"
            action = world.asks[asks[at]].kind
            answer = {"answer": "yes"} if action == "inquiry" and not failed else None
            world.decide(
                asks[at], "rejected" if failed else "answered" if answer else "approved", answer=answer
            )
        else:
            child = children[at - len(asks)]
            world.end_child(child, "failed" if self._fate(child) == "failed" else "completed", {"n": 1})

    def _job(self, id_: str) -> None:
        world, chance = self.world, self.random() if self.is_stormy else 1.0
        job = world.jobs[id_]
        if job.status in JOB_OVER:
            # Recorded, and folded by nobody yet.
            world.tick()
        elif job.status == UNKNOWN and chance < 0.5:
            outcome = self.rng.choice(("succeeded", "failed", "again"))
            world.deliver(JobResolved(id_, outcome, "seen", "ada"))
        elif chance < 0.08:
            self._lose(id_)
        elif chance < 0.2:
            world.record(id_, self._fate(id_))
        elif chance < 0.22:
            world.node_is_away(id_)
        else:
            world.come_to(id_, self._fate(id_))

    def _lose(self, id_: str) -> None:
        """As the service does: what is idempotent failed as lost, anything else is unknown."""
        if self.world.plan.tasks[self.world.jobs[id_].task].is_repeatable:
            self.world.come_to(id_, "failed")
        else:
            self.world.lose(id_)

    def _once_more(self) -> None:
        """A message that comes again after its job is over, or an answer that nobody asked for any more."""
        world = self.world
        run = world.execution
        if run.gates and self.random() < 0.2:
            earlier = f"{run.id}.gate.{1 + int(self.random() * run.gates)}"
            if earlier not in world.asks:
                world.deliver(Decided(earlier, "rejected", ("eve",)))
        over = [job for job in world.jobs.values() if job.settled]
        if over:
            job = over[int(self.random() * len(over))]
            if job.node:
                world.come_to(job.id, "succeeded" if self.random() < 0.5 else "failed")
            elif self.random() < 0.5:
                world.end_child(job.id, "completed", {"n": 2})
            else:
                world.deliver(Decided(job.id, "rejected", ("eve",)))

    def _again(self) -> None:
        """R1: kept tasks keep their results, reset ones run again, and it ends like any other execution."""
        world, rng = self.world, self.rng
        world.crashes = False
        world.tick()
        latest = self._newer() if self.random() < NEWER else None
        plan = world.plan if latest is None else gated(compiled(latest), rng)
        top = [name for name in replan.top(plan) if name in world.tasks]
        from_ = (rng.choice(top),) if top and self.random() < 0.5 else ()
        failed = [name for name in top if world.tasks[name].status in BROKEN]
        mark_ok = {rng.choice(failed): {"marked": True}} if failed and self.random() < 0.3 else {}
        asked = RetryAsked(from_, mark_ok, self.random() < 0.3)
        last = broken_at_the_end(
            world.plan, {name: task.status for name, task in world.tasks.items()}, world.execution.ended_badly
        )
        if not (failed or from_ or last or world.execution.status == "rejected"):
            return
        if latest is None:
            world.retry(from_=from_, mark_ok=mark_ok, reset=asked.reset)
        elif any(replan.conflicts(world.plan, plan, world.tasks, asked)):
            return
        else:
            self.written = latest
            _by(world, plan, asked)
        for name in mark_ok:
            assert world.tasks[name].status == "succeeded", f"{name} was marked and is not succeeded"

    def _newer(self) -> Workflow:
        """Another version of the workflow that holds now."""
        return changed(self.rng, self.written or workflow(Random(self.seed)))

    def _fate(self, job: str) -> str:
        """What a job comes to: the same in every order; one that was told to stop is cancelled, or was over before it
        heard of that."""
        at = crc32(f"{self.fates}{job}".encode()) % 10
        if job in self.world.stopped:
            return "succeeded" if at < 3 else "cancelled"
        return "succeeded" if at < 6 else "failed" if at < 9 else "timed_out"


def _by(world: World, plan: Plan, asked: RetryAsked) -> None:
    """Tried again by another version; what is kept is what it was: its result, its attempts, and its task."""
    kept = {
        name: (task.status, task.ended_at, world.plan.tasks[name].essence)
        for name, task in world.tasks.items()
    }
    jobs = set(world.jobs)
    world.now += 1
    world.retry(plan, from_=asked.from_, mark_ok=asked.mark_ok, reset=asked.reset)
    born = {world.jobs[job].task for job in set(world.jobs) - jobs}
    for name, (status, ended_at, essence) in kept.items():
        task, now = plan.tasks.get(name), world.tasks.get(name)
        if task is None or now is None or task.parent is not None or task.is_finally or name in asked.mark_ok:
            continue
        if status == now.status == "succeeded" and name not in born and now.ended_at == ended_at:
            assert essence == task.essence, f"{name} was kept and is another task"


def check_replay(world: World) -> None:
    """The events, by way of JSON as from the database, give the same rows."""
    told = [
        Happened(seq, at, json.loads(json.dumps(data_of(event, step, world.limits))))
        for seq, (at, event, step) in enumerate(world.events, 1)
    ]
    run = world.execution
    begun = ExecutionState(run.id, parameters=run.parameters, system=run.system)
    again = replay(world.first, begun, told, lambda job: world.jobs[job].result, world.plans.__getitem__)
    stored = Stored(run, world.tasks, world.jobs, world.published)
    found = list(differences(again, stored))
    assert not found, f"replayed otherwise: {found}"
