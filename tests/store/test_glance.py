"""A glance is a single look: it sees what is committed by then, and leaves nothing open behind it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import bindparam, insert, literal_column, select, text
from sqlalchemy.exc import OperationalError, ProgrammingError
from waiting import PATIENCE

from app.store.db import Store
from app.store.prepared import Query
from app.store.tables import Base, StoredPlan, table

plans = table(StoredPlan)
_all = Query(select(plans.c.digest).order_by(plans.c.digest), str)
_one = Query(select(plans.c.digest).where(plans.c.digest == bindparam("digest")), str)


@pytest.fixture
def made(store: Store) -> Store:
    Base.metadata.create_all(store.engine)
    return store


def keep(store: Store, digest: str) -> None:
    values = {"digest": digest, "plan_version": 1, "body": "{}", "source": "", "used_at": 1_800_000_000.0}
    with store.write() as connection:
        connection.execute(insert(plans).values(values))


def looked(store: Store) -> list[str]:
    with store.glance() as connection:
        return _all.all(connection)


def test_it_sees_what_was_committed_before_it(made: Store) -> None:
    for number in range(3):
        assert looked(made) == [f"plan-{one}" for one in range(number)]
        keep(made, f"plan-{number}")
    assert looked(made) == ["plan-0", "plan-1", "plan-2"]


def test_it_leaves_no_transaction_open(made: Store) -> None:
    keep(made, "a")
    assert looked(made) == ["a"]
    if made.is_sqlite:
        # An open reader would keep the log from being emptied.
        with made.engine.connect() as connection:
            driver = connection.connection.driver_connection
            assert driver is not None
            assert driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone() == (0, 0, 0)
    keep(made, "b")
    assert looked(made) == ["a", "b"]


def test_one_that_went_wrong_is_not_used_again(made: Store) -> None:
    keep(made, "a")
    for _ in range(3):
        with pytest.raises((OperationalError, ProgrammingError)), made.glance() as connection:
            Query(select(literal_column("nothing")).select_from(text("nowhere")), str).all(connection)
    assert looked(made) == ["a"]


def test_many_look_at_once(made: Store) -> None:
    for number in range(10):
        keep(made, f"plan-{number}")

    def look(number: int) -> list[str]:
        with made.glance() as connection:
            return _one.all(connection, digest=f"plan-{number % 10}")

    with ThreadPoolExecutor(24) as threads:
        found = list(threads.map(look, range(500), timeout=PATIENCE))
    assert found == [[f"plan-{number % 10}"] for number in range(500)]
