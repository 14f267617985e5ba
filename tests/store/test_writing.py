"""Transactions that write, one after another over the same connection."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError

from app.store.db import Store
from app.store.tables import Base, Event, StoredPlan, table

plans = table(StoredPlan)


@pytest.fixture
def made(store: Store) -> Store:
    Base.metadata.create_all(store.engine)
    return store


def keep(store: Store, *digests: str, error: Exception | None = None) -> None:
    """In one transaction, which `error` ends."""
    with store.write() as connection:
        for digest in digests:
            row = {
                "digest": digest,
                "plan_version": 1,
                "body": "{}",
                "source": "",
                "used_at": 1_800_000_000.0,
            }
            connection.execute(insert(plans).values(row))
        if error is not None:
            raise error


def kept(store: Store) -> set[str]:
    with store.read() as connection:
        return set(connection.execute(select(plans.c.digest)).scalars())


def test_what_raises_leaves_nothing_and_the_next_one_goes_on(made: Store) -> None:
    keep(made, "a")
    with pytest.raises(ValueError, match="enough"):
        keep(made, "b", error=ValueError("enough"))
    with pytest.raises(IntegrityError):
        keep(made, "c", "a")
    keep(made, "d")
    assert kept(made) == {"a", "d"}


def test_between_two_of_them_another_process_may_write(made: Store) -> None:
    keep(made, "a")
    other = Store(made.url.render_as_string(hide_password=False))
    keep(other, "b")
    keep(made, "c")
    assert kept(other) == {"a", "b", "c"}
    other.close()


def test_a_store_that_is_closed_holds_no_connection_and_can_be_used_again(made: Store) -> None:
    keep(made, "a")
    pool: Any = made.engine.pool
    made.close()
    assert pool.checkedout() == 0
    keep(made, "b")
    assert kept(made) == {"a", "b"}


def test_a_commit_that_fails_leaves_no_lock(made: Store) -> None:
    """SQLite looks at deferred keys only then, and leaves the transaction open."""
    if not made.is_sqlite:
        pytest.skip("of SQLite's lock")
    lost = {"execution": "none", "seq": 1, "kind": "submitted", "at": 1_800_000_000.0, "data": {}}
    with pytest.raises(IntegrityError, match="FOREIGN KEY"):
        write_and_defer(made, lost)
    other = Store(made.url.render_as_string(hide_password=False))
    keep(other, "a")
    keep(made, "b")
    assert kept(other) == {"a", "b"}
    other.close()


def write_and_defer(store: Store, event: dict[str, Any]) -> None:
    with store.write() as connection:
        connection.exec_driver_sql("PRAGMA defer_foreign_keys = ON")
        connection.execute(insert(table(Event)).values(event))
