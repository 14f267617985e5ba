"""That a fleet of the tests, when it ends, really makes its executions again from their events."""

from __future__ import annotations

import pytest
from fleet import Fleet, tasks
from sqlalchemy import update

pytestmark = pytest.mark.fleet

NOTHING = "tasks: [{name: a, action: core.noop, on_success: b}, {name: b, action: core.noop}]"


def run_and_forge() -> None:
    with Fleet(names=(), has_control=False) as fleet:
        execution = fleet.submit(NOTHING)
        fleet.wait_for(execution)
        with fleet.store.write() as connection:
            mine = (tasks.c.execution == execution, tasks.c.name == "b")
            connection.execute(update(tasks).where(*mine).values(status="failed"))


def test_a_row_that_the_events_do_not_give_is_seen() -> None:
    with pytest.raises(AssertionError, match=r"task b.*column='status'.*stored='failed'"):
        run_and_forge()
