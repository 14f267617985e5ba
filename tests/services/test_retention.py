"""What retention removes, with everything that hangs on it, and what it leaves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import migrated
import pytest
from sqlalchemy import func, select, update

from app.compiler.build import build
from app.language.parse import load_or_raise
from app.services import retention
from app.services.control import Control
from app.services.submit import Submission, submit
from app.settings import Settings
from app.store.db import Store
from app.store.tables import Base, Execution, table

WORKFLOW = """
vars: {x: 1}
tasks:
  - {name: wait, action: core.sleep, input: {seconds: 5}, on_success: echo}
  - {name: echo, action: core.noop}
"""
DAY = 86400.0


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Control]:
    store = Store(migrated.sqlite(tmp_path / "muster.db"))
    yield Control(Settings(data_dir=str(tmp_path)), store, clock=Clock())
    store.close()


def execute(control: Control, *, key: str = "") -> str:
    plan = build(load_or_raise(WORKFLOW))
    return submit(control, Submission(plan, WORKFLOW, "ada", {}, idempotency_key=key, request="x")).execution


def end(control: Control, execution: str, at: float) -> None:
    executions = table(Execution)
    with control.store.write() as connection:
        connection.execute(
            update(executions).where(executions.c.id == execution).values(status="completed", ended_at=at)
        )


def counts(control: Control) -> dict[str, int]:
    with control.store.read() as connection:
        return {
            name: connection.execute(select(func.count()).select_from(found)).scalar_one()
            for name, found in Base.metadata.tables.items()
        }


def test_an_old_execution_goes_with_all_that_hangs_on_it(control: Control) -> None:
    old, young, running = execute(control, key="k"), execute(control), execute(control)
    now = control.clock()
    end(control, old, now - 91 * DAY)
    end(control, young, now - 1 * DAY)
    before = counts(control)
    pruned = retention.prune(control, "ada")
    after = counts(control)
    assert pruned.executions == 1
    for name in ("executions", "tasks", "events", "variables", "timers"):
        assert after[name] == before[name] * 2 // 3, name
    with control.store.read() as connection:
        left = set(connection.execute(select(table(Execution).c.id)).scalars())
    assert left == {young, running}
    assert after["audit_entries"] == before["audit_entries"] + 1


def test_a_shorter_time_takes_more_and_never_what_runs(control: Control) -> None:
    young, running = execute(control), execute(control)
    end(control, young, control.clock() - 60)
    assert retention.prune(control, older_than=30).executions == 1
    with control.store.read() as connection:
        assert list(connection.execute(select(table(Execution).c.id)).scalars()) == [running]


def test_keys_and_unused_plans_go_after_a_day(control: Control) -> None:
    end(control, execute(control, key="k"), control.clock())
    retention.prune(control, older_than=0)
    control.clock.now += 2 * DAY  # type: ignore[attr-defined]
    retention.prune(control, older_than=0)
    after = counts(control)
    assert (after["idempotency_keys"], after["plans"], after["executions"]) == (0, 0, 0)
