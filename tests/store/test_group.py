"""What several threads write goes into one transaction, and each hears of its own part alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Connection, bindparam, insert, select
from sqlalchemy.exc import IntegrityError
from waiting import PATIENCE, wait_until

from app.logs import scope
from app.store.db import Store
from app.store.group import Group
from app.store.prepared import Command
from app.store.tables import Base, StoredPlan, table

plans = table(StoredPlan)
PLAN = {"plan_version": 1, "body": "{}", "source": "", "used_at": 1_800_000_000.0}
_insert = Command(insert(plans).inline().values({name: bindparam(name) for name in ("digest", *PLAN)}))


class Desk:
    """A group whose transactions are counted, and end with `fails` if that is set."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.transactions = 0
        self.fails: Exception | None = None
        self.group = Group(self._transaction)

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        self.transactions += 1
        with self.store.write() as connection:
            yield connection
            if self.fails is not None:
                raise self.fails

    def kept(self) -> set[str]:
        with self.store.read() as connection:
            return set(connection.execute(select(plans.c.digest)).scalars())

    @contextmanager
    def held(self) -> Iterator[Callable[..., Future[str]]]:
        """While this lasts one transaction goes on; what is written meanwhile lines up behind it."""
        begun, over = threading.Event(), threading.Event()

        def first(connection: Connection) -> str:
            begun.set()
            assert over.wait(PATIENCE)
            return keep("first")(connection)

        with ThreadPoolExecutor(20) as threads:
            leader = threads.submit(self.group.write, first)
            assert begun.wait(PATIENCE)
            asked: list[Future[str]] = []

            def line_up(work: Callable[[Connection], str]) -> Future[str]:
                asked.append(threads.submit(self.group.write, work))
                wait_until(lambda: len(self.group) == len(asked), "it waits")
                return asked[-1]

            try:
                yield line_up
            finally:
                over.set()
            assert leader.result(PATIENCE) == "first"


def keep(digest: str) -> Callable[[Connection], str]:
    def work(connection: Connection) -> str:
        _insert.run(connection, {"digest": digest, **PLAN})
        return digest

    return work


def refused(digest: str) -> Callable[[Connection], str]:
    def work(connection: Connection) -> str:
        keep(digest)(connection)
        raise ValueError(digest)

    return work


@pytest.fixture
def desk(store: Store) -> Desk:
    Base.metadata.create_all(store.engine)
    return Desk(store)


def test_what_waits_shares_a_transaction(desk: Desk) -> None:
    with desk.held() as line_up:
        asked = [line_up(keep(f"plan-{number}")) for number in range(10)]
    assert [one.result(PATIENCE) for one in asked] == [f"plan-{number}" for number in range(10)]
    assert desk.transactions == 2
    assert desk.kept() == {"first", *(f"plan-{number}" for number in range(10))}


def test_alone_it_is_a_transaction_like_any(desk: Desk) -> None:
    assert desk.group.write(keep("one")) == "one"
    with pytest.raises(ValueError, match="two"):
        desk.group.write(refused("two"))
    assert desk.group.write(keep("three")) == "three"
    assert (desk.kept(), desk.transactions) == ({"one", "three"}, 3)


def test_what_one_may_not_do_leaves_the_others_alone(desk: Desk) -> None:
    with desk.held() as line_up:
        good = [line_up(keep("a")), line_up(keep("z"))]
        bad = line_up(refused("b"))
        twice = line_up(keep("a"))
        good.append(line_up(keep("y")))
    assert [one.result(PATIENCE) for one in good] == ["a", "z", "y"]
    with pytest.raises(ValueError, match="b"):
        bad.result(PATIENCE)
    with pytest.raises(IntegrityError):
        twice.result(PATIENCE)
    assert desk.kept() == {"first", "a", "z", "y"}
    assert desk.transactions == 2


def test_nobody_is_told_of_success_where_the_commit_fails(desk: Desk) -> None:
    with desk.held() as line_up:
        asked = [line_up(keep("a")), line_up(refused("b")), line_up(keep("c"))]

        def full(connection: Connection) -> str:
            desk.fails = OSError("the disk is full")
            return keep("d")(connection)

        asked.append(line_up(full))
    for number, one in enumerate(asked):
        with pytest.raises(ValueError if number == 1 else OSError):
            one.result(PATIENCE)
    assert desk.kept() == {"first"}
    desk.fails = None
    assert desk.group.write(keep("a")) == "a"


def test_where_no_transaction_begins_all_who_wait_hear_of_it_and_the_next_goes_on(desk: Desk) -> None:
    broken = True

    @contextmanager
    def transaction() -> Iterator[Connection]:
        if broken:
            raise OSError("there is no database")
        with desk.store.write() as connection:
            yield connection

    group = Group(transaction)
    with pytest.raises(OSError, match="no database"):
        group.write(keep("a"))
    broken = False
    assert group.write(keep("a")) == "a"


def test_each_part_is_written_with_the_ids_of_its_own_thread(desk: Desk) -> None:
    def asking(name: str) -> list[dict[str, Any]]:
        scope.begin(request_id=name)

        def work(connection: Connection) -> dict[str, Any]:
            seen = dict(scope.current())
            scope.note(execution=f"of {name}")
            return seen

        return [desk.group.write(work), dict(scope.current())]

    with ThreadPoolExecutor(5) as threads, desk.held():
        names = [f"request-{number}" for number in range(5)]
        asked = [threads.submit(asking, name) for name in names]
        wait_until(lambda: len(desk.group) == len(names), "they wait")
        scope.begin(request_id="mine")
    assert [one.result(PATIENCE) for one in asked] == [
        [{"request_id": name}, {"request_id": name, "execution": f"of {name}"}] for name in names
    ]
    assert scope.current() == {"request_id": "mine"}


def test_a_store_writes_together_what_many_threads_have(store: Store) -> None:
    Base.metadata.create_all(store.engine)
    with ThreadPoolExecutor(16) as threads:
        asked = [threads.submit(store.write_together, keep(f"plan-{number}")) for number in range(300)]
        bad = [threads.submit(store.write_together, refused(f"bad-{number}")) for number in range(30)]
        assert [one.result(PATIENCE) for one in asked] == [f"plan-{number}" for number in range(300)]
        assert {str(one.exception(PATIENCE)) for one in bad} == {f"bad-{number}" for number in range(30)}
    with store.read() as connection:
        kept = set(connection.execute(select(plans.c.digest)).scalars())
    assert kept == {f"plan-{number}" for number in range(300)}
