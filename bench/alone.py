"""`python -m bench.alone [--lines N]`: the CPU work of a step without processes, broker or threads.

In one process: an execution of 20 `true` tasks is submitted, control's `settle` and `collect` are called as the job
functions call them, and the node's answer is made up on the spot. What is timed is what both sides compute and write,
so that a change can be judged on a noisy machine: look at the minimum. `--profile` prints cProfile's view of `collect`.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import statistics
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

from sqlalchemy import Connection, Engine, event, insert

from app.compiler.build import build
from app.language.parse import load_or_raise
from app.services import collect, installation, orders
from app.services.control import Control
from app.services.intake import Canvas
from app.services.orders import Signer
from app.services.outcomes import NodeKeys
from app.services.submit import Submission, submit
from app.settings import Settings
from app.store import prepared
from app.store.db import Store
from app.store.tables import Base, Node, table
from app.transport.canvas import Member
from app.transport.keys import KeyPair, Public
from app.transport.messages import Outcome
from app.transport.output import OutputReader
from app.transport.sealing import open_order, seal_outcome
from bench.cases import line

NODE, EPOCH, STEPS = "node-1", "0123456789ABCDEFGHJKMNPQRS", 20

_T = TypeVar("_T")


class Meter:
    """Times and CPU by what was done, in seconds, and how often each SQL statement ran inside of `collect`."""

    def __init__(self, engine: Engine) -> None:
        self.times: dict[str, list[float]] = defaultdict(list)
        self.used: dict[str, list[float]] = defaultdict(list)
        self.statements: Counter[str] = Counter()
        self.in_sql = 0.0
        self.counting = False
        self._began = 0.0
        event.listen(engine, "before_cursor_execute", self._before)
        event.listen(engine, "after_cursor_execute", self._after)
        self._execute = prepared.execute
        prepared.execute = self._prepared

    def wrap(self, module: Any, name: str, what: str) -> None:
        """Time a function of a module wherever the module calls it."""
        inner = getattr(module, name)
        setattr(module, name, lambda *given, **more: self.time(what, lambda: inner(*given, **more)))

    def time(self, what: str, call: Callable[[], _T]) -> _T:
        began, used = time.perf_counter(), time.thread_time()
        answer = call()
        self.used[what].append(time.thread_time() - used)
        self.times[what].append(time.perf_counter() - began)
        return answer

    def _prepared(self, connection: Connection, sql: str, values: Any, **options: Any) -> Any:
        self._before()
        cursor = self._execute(connection, sql, values, **options)
        self._after(connection, cursor, sql)
        return cursor

    def _before(self, *_: Any) -> None:
        self._began = time.perf_counter()

    def _after(self, _connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if self.counting:
            self.in_sql += time.perf_counter() - self._began
            self.statements[" ".join(statement.split())[:100]] += 1


class Stage:
    """A control worker's desk and one node's keys; what is sent is kept in `sent`."""

    def __init__(self, directory: Path) -> None:
        # Each job in an order of its own: what is looked at here is a hop.
        settings = Settings(data_dir=str(directory), task_events=True)
        store = Store(settings.database)
        Base.metadata.create_all(store.engine)
        self.keys = KeyPair.generate()
        self.installed = installation.ensure(store, settings.data_dir, time.time())
        self.control_key = Public.from_json(self.installed.public)
        now = time.time()
        row = {
            "name": NODE,
            "public_keys": self.keys.public(),
            "sign_kid": self.keys.kid,
            "epoch": EPOCH,
            "slots": 8,
            "free": 8,
            # Online for as long as this takes.
            "last_seen": now + 3600,
            "enrolled_at": now,
        }
        with store.write() as connection:
            connection.execute(insert(table(Node)).values(row))
        self.sent: list[tuple[Member, str]] = []
        self.control = Control(settings, store)
        self.desk = collect.Desk(
            self.control,
            Signer.load(settings, self.installed.id),
            NodeKeys(store),
            self._send,
            lambda node, token: None,
            # Nothing here writes output.
            cast(OutputReader, None),
        )
        self.meter = Meter(store.engine)
        self.meter.wrap(collect, "open_outcome", "  opens the outcome")
        self.meter.wrap(orders, "seal_order", "  seals the order")

    def _send(self, sealed: Sequence[tuple[Member, str]]) -> None:
        self.sent += sealed

    def run_line(self, plan: Any, source: str, profile: cProfile.Profile | None) -> None:
        """One execution of the line from submit to its end. Raises RuntimeError where the chain was cut."""
        meter = self.meter
        asked = Submission(plan, source, "bench", {})
        execution = meter.time("submit", lambda: submit(self.control, asked)).execution
        meter.time("first settle", lambda: collect.settle(self.desk, execution))
        ((member, token),) = self.sent
        self.sent.clear()
        for step in range(STEPS):
            canvas = Canvas([dict(link) for link in member.rest[1 + 2 * step :]])
            take_in = partial(collect.collect, self.desk, [self.answer(token)], canvas, redelivered=False)
            meter.counting = True
            if profile:
                profile.enable()
            answer = meter.time("collect", take_in)
            if profile:
                profile.disable()
            meter.counting = False
            if (answer.order is None) != (step == STEPS - 1):
                raise RuntimeError(
                    f"step {step + 1}: the chain was {'cut' if answer.order is None else 'not ended'}"
                )
            token = answer.order or ""

    def take_sent(self) -> list[str]:
        """The orders that were sent since."""
        tokens = [token for _, token in self.sent]
        self.sent.clear()
        return tokens

    def answer(self, token: str) -> str:
        """What a node says to an order: it was done."""
        now = time.time()
        order = self.meter.time(
            "node opens the order",
            lambda: open_order(
                token,
                self.keys,
                [self.control_key],
                installation=self.installed.id,
                node=NODE,
                epoch=EPOCH,
                now=now,
            ),
        )
        job = order.jobs[0]
        outcome = Outcome(
            job.id, job.digest, self.installed.id, NODE, EPOCH, "succeeded", 0, started_at=now, ended_at=now
        )
        return self.meter.time(
            "node seals the outcome", lambda: seal_outcome(outcome, self.keys, self.control_key)
        )


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.alone", description=__doc__)
    parser.add_argument("--lines", type=int, default=20)
    parser.add_argument("--profile", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="muster-bench-") as directory:
        stage = Stage(Path(directory))
        source = line(NODE, STEPS)
        plan = build(load_or_raise(source, "bench.yaml"))
        stage.run_line(plan, source, None)
        stage.meter.times.clear()
        stage.meter.used.clear()
        stage.meter.statements.clear()
        stage.meter.in_sql = 0.0
        profile = cProfile.Profile() if given.profile else None
        for _ in range(given.lines):
            stage.run_line(plan, source, profile)
        stage.control.store.close()
    _print(stage.meter, given.lines * STEPS)
    if profile:
        pstats.Stats(profile).strip_dirs().sort_stats("cumulative").print_stats(60)
    return 0


def _print(meter: Meter, collects: int) -> None:
    print(f"{'ms':30} median      min  of CPU: median      min")
    for what, values in meter.times.items():
        figures = (
            statistics.median(values),
            min(values),
            statistics.median(meter.used[what]),
            min(meter.used[what]),
        )
        print(f"{what:30} {' '.join(f'{figure * 1e3:8.3f}' for figure in figures)}")
    total = sum(meter.statements.values())
    driver = meter.in_sql / collects * 1e3
    print(f"\n{total / collects:.1f} statements a collect, {driver:.3f} ms of it inside of the driver")
    for statement, count in meter.statements.most_common():
        if count >= collects / 10:
            print(f"  {count / collects:5.2f}  {statement}")


if __name__ == "__main__":
    sys.exit(main())
