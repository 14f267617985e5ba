"""`celery -A bench.profiled_control worker`: workers.control with probes."""

from __future__ import annotations

import time
from typing import Any

from sqlalchemy import Engine, event
from sqlalchemy.engine import RootTransaction

from app.services import collect, handover, intake, orders, outcomes, run, telling
from app.store import prepared
from app.transport import gate, send
from bench import profiled
from bench.probes import Probes
from workers import control

celery = control.celery
_probes = Probes()

_probes.wrap(collect, "collect", "collect")
_probes.wrap(collect, "settle", "settle")
_probes.wrap(collect, "open_outcome", "crypto: open outcome")
_probes.wrap(orders, "seal_order", "crypto: seal order")
_probes.wrap(collect, "make_room", "make_room")
_probes.wrap(handover, "admit", "handover.admit")
_probes.wrap(handover, "deliver", "handover.deliver")
_probes.wrap(telling, "tell", "telling.tell")
_probes.wrap(run, "advance", "engine.advance")
_probes.wrap(run.Run, "take", "Run.take")
_probes.wrap(run.Run, "settle", "Run.settle")
_probes.wrap(outcomes, "record", "outcomes.record")
_probes.wrap(intake.Intake, "take", "Intake.take")
_probes.wrap(gate, "take_canvas", "gate.take_canvas")
_probes.wrap(gate, "next_link", "gate.next_link")
_probes.wrap(send.Sender, "lines", "Sender.lines")


@event.listens_for(Engine, "before_cursor_execute")
def _before(conn: Any, cursor: Any, statement: str, parameters: Any, context: Any, executemany: bool) -> None:
    context._bench_began = (time.time(), time.thread_time())


@event.listens_for(Engine, "after_cursor_execute")
def _after(conn: Any, cursor: Any, statement: str, parameters: Any, context: Any, executemany: bool) -> None:
    _probes.add("sql: " + " ".join(statement.split())[:70], *context._bench_began)


_execute = prepared.execute


def _prepared(connection: Any, sql: str, values: Any, **options: Any) -> Any:
    began = time.time(), time.thread_time()
    cursor = _execute(connection, sql, values, **options)
    _probes.add("sql: " + " ".join(sql.split())[:70], *began)
    return cursor


prepared.execute = _prepared
_probes.wrap(RootTransaction, "_do_commit", "sql: COMMIT")
profiled.install(_probes, "control")
