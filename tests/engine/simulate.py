"""`python tests/engine/simulate.py`: the real engine under random workflows and everything that can go wrong.

`--seconds N` for so long on every core, with schedules that nobody played before; `--replay NUMBER` plays one once
more and tells its story. The last line is `simulate: schedules=… per_second=… violations=…`; ends with 1 where there
are violations. A schedule is one execution from its submit to its end, retries of it included.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import os
import secrets
import sys
import time
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
if find_spec("app") is None:
    sys.path.append(str(Path(__file__).parents[2]))

from schedule import SCHEDULES, run
from world import World

SHOWN = 5
"""Violations that are told in full."""
COLLECTED = 500
"""Schedules between two collections of what is garbage."""
NEW = 10_000_000_000
"""Workflows from here on are for runs by the clock; below are those of the tests."""


@dataclass(slots=True)
class Tally:
    schedules: int = 0
    events: int = 0
    cpu: float = 0.0
    violations: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        self.schedules += other.schedules
        self.events += other.events
        self.cpu += other.cpu
        self.violations += other.violations


def simulate(numbers: Iterable[int], *, until: float = float("inf"), most: int = 100) -> Tally:
    """Plays schedules until there is no other, a moment (monotonic) has come, or there are `most` violations."""
    tally, began = Tally(), time.process_time()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        for number in numbers:
            try:
                tally.events += run(number).steps
            except Exception as error:
                tally.violations.append(
                    f"schedule {number}: {type(error).__name__}: {str(error)[:300]}\n"
                    f"  play it again: python tests/engine/simulate.py --replay {number}"
                )
            tally.schedules += 1
            if not tally.schedules % COLLECTED:
                gc.collect()
            if time.monotonic() >= until or len(tally.violations) >= most:
                break
    finally:
        gc.enable()
        gc.unfreeze()
    tally.cpu = time.process_time() - began
    return tally


def numbers_from(first: int, step: int) -> Iterator[int]:
    """Every schedule of one workflow after the other, of each `step`th workflow."""
    workflow = first
    while True:
        yield from range(workflow * SCHEDULES, (workflow + 1) * SCHEDULES)
        workflow += step


def _work(given: tuple[int, int, float]) -> Tally:
    first, step, seconds = given
    return simulate(numbers_from(first, step), until=time.monotonic() + seconds)


def by_the_clock(seconds: float, first: int) -> tuple[Tally, float]:
    """On every core, from a workflow on. Returns what was found, and the seconds that it took."""
    cores = len(os.sched_getaffinity(0))
    began, total = time.monotonic(), Tally()
    with multiprocessing.get_context("fork").Pool(cores) as pool:
        for tally in pool.imap_unordered(_work, [(first + core, cores, seconds) for core in range(cores)]):
            total.add(tally)
    return total, time.monotonic() - began


def play_again(number: int) -> int:
    """One schedule with its story, step by step. Returns 1 where it is a violation."""
    deliver = World.deliver

    def telling(world: World, event: object, plan: object = None) -> object:
        run_ = world.execution
        print(f"{world.now:10.2f} {event} [{run_.status}, {run_.intent}, {run_.halt or 'no halt'}]")
        step = deliver(world, event, plan)  # type: ignore[arg-type]
        for line in step.changes.log:
            print(f"{'':12} {line}")
        return step

    World.deliver = telling  # type: ignore[assignment,method-assign]
    try:
        run(number)
    except Exception:
        traceback.print_exc(file=sys.stdout)
        return 1
    print(f"schedule {number} keeps every invariant")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="simulate", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--schedules", type=int, help="play the schedules 0 to so many, on one core")
    parser.add_argument(
        "--within", type=float, default=float("inf"), help="seconds for --schedules at the most"
    )
    parser.add_argument("--most", type=int, default=100, help="violations after which it stops (100)")
    first = NEW + secrets.randbelow(NEW)
    parser.add_argument("--first", type=int, default=first, help="the first workflow (one that is new)")
    parser.add_argument("--replay", type=int, metavar="NUMBER")
    given = parser.parse_args()
    if given.replay is not None:
        return play_again(given.replay)
    began = time.monotonic()
    if given.schedules:
        total = simulate(range(given.schedules), until=began + given.within, most=given.most)
        took = time.monotonic() - began
    else:
        total, took = by_the_clock(given.seconds, given.first)
    for violation in total.violations[:SHOWN]:
        print(violation)
    workflows = -(-total.schedules // SCHEDULES)
    print(
        f"{workflows} random workflows, {SCHEDULES} schedules of each, {total.events} events;"
        f" {total.schedules / total.cpu:.0f} schedules a second of one core"
    )
    print(
        f"simulate: schedules={total.schedules} per_second={total.schedules / took:.0f}"
        f" violations={len(total.violations)}"
    )
    return 1 if total.violations else 0


if __name__ == "__main__":
    sys.exit(main())
