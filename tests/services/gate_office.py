"""An office with three nodes and three people, where executions wait at their gates."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from desk import EPOCH, Office, office_on
from sqlalchemy import insert

from app.services import tick
from app.services.replay import replayed
from app.services.rotation import ensure
from app.store import executions as rows
from app.store.tables import User, table
from app.transport.sealing import open_order

users = table(User)

WEB = ["web-1", "web-2", "web-3"]


@contextmanager
def gate_office(database: str, directory: Path) -> Iterator[Office]:
    """On a database of its own, of one of the kinds in `BOTH`."""
    with office_on(database, directory, WEB) as made:
        for name in WEB:
            made.hear(name, shells=["bash", "sh"])
        ensure(made.control)
        people = [{"login": one, "role": "operator", "created_at": 0.0} for one in ("ada", "bob", "eve")]
        with made.store.write() as connection:
            connection.execute(insert(users), people)
        # Some tests change a plan under its digest.
        rows.forget_plans()
        yield made
        rows.forget_plans()


def state(office: Office, execution: str) -> tuple[str, str]:
    row = office.execution(execution)
    return row.status, row.gate


def sent(office: Office) -> dict[str, Any]:
    """The jobs that were sent since the last look, by node."""
    found = {}
    for member, token in office.sent:
        node = str(member.order["options"]["queue"]).removeprefix("node.")
        about = {"installation": office.installed.id, "node": node, "epoch": EPOCH}
        order = open_order(token, office.keys[node], [office.public], now=office.clock.now, **about)
        found[node] = (order.jobs[0], order.secrets)
    office.sent.clear()
    return found


def let_time_pass(office: Office, seconds: float) -> None:
    """The tick of a moment later; the nodes are still there."""
    office.clock.now += seconds
    for name in WEB:
        office.hear(name, last_seen=office.clock.now)
    tick.tick(office.desk, "control")


def same_when_replayed(office: Office, execution: str) -> None:
    rows.forget_plans()
    with office.store.read() as connection:
        assert replayed(connection, execution).differences == ()
