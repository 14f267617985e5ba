"""kill -9 of everything at random, for MUSTER_TEST_CHAOS_SECONDS, under a steady stream of executions.

Afterwards nothing may be lost, doubled or hanging; a killed runner may leave jobs that say `unknown`, which a
person (this test) then decides.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

import pytest
from fleet import Fleet
from fleet_processes import after
from waiting import wait_until

from app.services.resolve import resolve

SECONDS = float(os.environ.get("MUSTER_TEST_CHAOS_SECONDS", "60"))
SEED = int(os.environ.get("MUSTER_TEST_CHAOS_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 30)

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(SECONDS + 400)]

WORKFLOW = """\
parameters: {effects: {type: string, required: true}}
tasks:
  - {name: a, action: core.shell, delegate_to: web-1, on_success: b,
     input: {command: 'echo $MUSTER_JOB >> {{ parameters.effects }}; sleep 0.1'}}
  - {name: b, action: core.shell, delegate_to: web-2, on_success: c,
     input: {command: 'echo $MUSTER_JOB >> {{ parameters.effects }}; sleep 0.1'}}
  - {name: c, action: core.shell, delegate_to: web-3, on_success: f,
     input: {command: 'echo $MUSTER_JOB >> {{ parameters.effects }}'}}
  - {name: f, type: distributed_shell, on_success: p, on_unknown: wait,
     input: {nodes: [web-1, web-2, web-3], command: 'echo $MUSTER_JOB >> {{ parameters.effects }}; sleep 0.1'}}
  - name: p
    type: parallel
    on_success: z
    tasks:
      - {name: x, action: core.shell, delegate_to: web-2,
         input: {command: 'echo $MUSTER_JOB >> {{ parameters.effects }}'}}
      - {name: y, action: core.shell, delegate_to: web-3, retry: {count: 1, delay: 0.2},
         input: {command: 'echo $MUSTER_JOB >> {{ parameters.effects }}; test "${MUSTER_JOB##*.}" = 2'}}
  - {name: z, action: core.shell, input: {command: 'echo $MUSTER_JOB >> {{ parameters.effects }}'}}
"""
JOBS = 10
"""What one execution runs: a, b, c, f on three nodes, x, y twice, z."""
EVERY = 0.7
"""Seconds between two executions: with 2 cores the fleet keeps up while nothing is killed."""


def deeds(fleet: Fleet, chance: random.Random) -> dict[str, tuple[int, Callable[[], object]]]:
    """What may happen, with its weight."""
    web = [name for name in fleet.names if name != "local"]

    def kill_runner() -> None:
        with suppress(OSError, KeyError):
            fleet.kill_runner(chance.choice(web))

    def freeze() -> None:
        name = chance.choice(web)
        fleet.keeper.send(name, signal.SIGSTOP)
        wait_until(after(chance.uniform(0.2, 3.0)))
        fleet.keeper.send(name, signal.SIGCONT)

    return {
        "control": (5, lambda: fleet.kill("control")),
        "node": (8, lambda: fleet.kill(chance.choice(fleet.names))),
        "beat": (2, lambda: fleet.kill("beat")),
        "redis": (3, lambda: fleet.kill("redis")),
        "runner": (2, kill_runner),
        "freeze": (2, freeze),
        "wipe": (1, lambda: _wipe(fleet)),
        **({"cut": (3, fleet.rabbit.cut), "lose queues": (1, fleet.rabbit.wipe)} if fleet.rabbit else {}),
    }


def _wipe(fleet: Fleet) -> None:
    """All that is in Redis is gone."""
    if fleet.broker.answers():
        fleet.broker.client.flushall()


def _either(one: Callable[[], bool], other: Callable[[], bool]) -> Callable[[], bool]:
    return lambda: one() or other()


def test_nothing_is_lost_and_nothing_runs_twice() -> None:
    chance = random.Random(SEED)
    with Fleet() as fleet:
        done: Counter[str] = Counter()
        known = deeds(fleet, chance)
        names, weights = list(known), [weight for weight, _ in known.values()]
        ids: list[str] = []
        over, submit_at, kill_at = after(SECONDS), after(0), after(1)
        while not over():
            if submit_at():
                ids.append(fleet.submit(WORKFLOW))
                submit_at = after(EVERY)
            if kill_at():
                deed = chance.choices(names, weights)[0]
                known[deed][1]()
                done[deed] += 1
                kill_at = after(chance.uniform(0.3, 3.0))
            wait_until(_either(submit_at, kill_at))
        unknown = _finish(fleet, ids)
        _report(fleet, ids, unknown, done)


def _finish(fleet: Fleet, ids: list[str]) -> int:
    """Waits for every execution; a person says of what is unknown that it succeeded. How many there were."""
    decided = 0
    end = time.monotonic() + 240
    while True:
        fleet.wait_all(ids, max(1.0, end - time.monotonic()))
        waiting = [
            job for one in ids if not fleet.is_over(one) for job in fleet.jobs(one) if job.status == "unknown"
        ]
        if not waiting:
            return decided
        for job in waiting:
            with suppress(Exception):
                resolve(
                    fleet.control,
                    job.execution,
                    job.task,
                    job.unit,
                    "succeeded",
                    "the effect is there",
                    "ada",
                )
                decided += 1


def _report(fleet: Fleet, ids: list[str], unknown: int, done: Counter[str]) -> None:
    ran = fleet.ran()
    doubled = {job: count for job, count in ran.items() if count > 1}
    ended = Counter(fleet.execution(one).status for one in ids)
    jobs = [job for one in ids for job in fleet.jobs(one)]
    lost = [job.id for job in jobs if job.status == "succeeded" and not ran[job.id] and not _decided(job)]
    strangers = set(ran) - {job.id for job in jobs}
    print(
        f"chaos seed={SEED} seconds={SECONDS:g} {dict(done)}: executions={len(ids)} {dict(ended)} "
        f"effects={sum(ran.values())}/{len(ids) * JOBS} lost={len(lost)} doubled={len(doubled)} unknown={unknown}"
    )
    assert ended == {"completed": len(ids)}, "\n".join(
        fleet.story(one) for one in ids if fleet.execution(one).status != "completed"
    )
    assert (lost, doubled, strangers) == ([], {}, set())
    assert len(ids) * JOBS - unknown <= sum(ran.values()) <= len(ids) * JOBS + unknown


def _decided(job: object) -> bool:
    return "resolved_by" in (getattr(job, "result", None) or {})
