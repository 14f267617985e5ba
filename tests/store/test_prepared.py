"""Prepared statements mean what SQLAlchemy's own execution of them means, on both databases."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from sqlalchemy import Connection, bindparam, delete, insert, select, update
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError
from waiting import PATIENCE

from app.store.db import Store
from app.store.prepared import WIDEST, ByNames, Command, Query, one_of
from app.store.statements import set_columns, set_each
from app.store.tables import Base, Execution, Job, StoredPlan, Timer, table

executions, jobs, timers, plans = table(Execution), table(Job), table(Timer), table(StoredPlan)
NOW = 1_800_000_000.123456

JOB: dict[str, Any] = {
    "id": "01.a.0.1",
    "execution": "01",
    "task": "a",
    "unit": 0,
    "attempt": 1,
    "node": "web-1",
    "status": "queued",
    "queue_timeout": 60,
    "result": {"text": "100 % of ü", "none": None, "list": [1, 2.5, True]},
    "error": None,
    "created_at": NOW,
    "dispatched_at": None,
}
insert_jobs = Command(insert(jobs).inline().values({name: bindparam(name) for name in JOB}))
everything = Query(select(jobs).order_by(jobs.c.id), lambda *values: values)
named = ByNames(select(jobs.c.id).where(jobs.c.execution == bindparam("execution")), jobs.c.task, str)


@pytest.fixture
def made(store: Store) -> Store:
    Base.metadata.create_all(store.engine)
    with store.write() as connection:
        values = {"digest": "d", "plan_version": 1, "body": "{}", "source": "", "used_at": NOW}
        connection.execute(insert(plans).values(values))
        values = {
            "id": "01",
            "workflow_ref": "p.w",
            "plan_digest": "d",
            "requester": "ada",
            "trace_id": "0" * 32,
            "status": "running",
            "created_at": NOW,
        }
        connection.execute(insert(executions).values(values))
    return store


def job(number: int, **more: Any) -> dict[str, Any]:
    return {**JOB, "id": f"01.t{number}.0.1", "task": f"t{number}", **more}


def stored(connection: Connection) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in connection.execute(select(jobs).order_by(jobs.c.id))]


def test_values_go_in_and_come_out_as_with_sqlalchemy(made: Store) -> None:
    with made.write() as connection:
        insert_jobs.run(connection, JOB)
        connection.execute(insert(jobs).values(job(2)))
    with made.read() as connection:
        prepared, plain = everything.all(connection), stored(connection)
        assert prepared == plain
        mine, other = connection.execute(select(jobs).order_by(jobs.c.id)).mappings().all()
    differing = {name for name in JOB if mine[name] != other[name]}
    assert differing == {"id", "task"}
    assert (mine["settled"], mine["sends"], mine["digest"], mine["missing"]) == (False, 0, "", 0)
    assert mine["created_at"] == pytest.approx(NOW, abs=1e-6)
    assert mine["result"] == JOB["result"]


def test_many_rows_at_once_are_all_there(made: Store) -> None:
    with made.write() as connection:
        insert_jobs.run_each(connection, [])
        insert_jobs.run_each(connection, [job(number) for number in range(40)])
    with made.read() as connection:
        assert len(everything.all(connection)) == 40


def test_any_number_of_names_is_found_once_each(made: Store) -> None:
    count = 2 * WIDEST + 3
    with made.write() as connection:
        insert_jobs.run_each(connection, [job(number) for number in range(count)])
    with made.read() as connection:
        for wanted in (0, 1, 2, 3, 5, WIDEST, WIDEST + 1, count):
            names = [f"t{number}" for number in range(wanted)]
            found = named.all(connection, names, execution="01")
            assert sorted(found) == sorted(f"01.{name}.0.1" for name in names), wanted
        assert named.all(connection, ["t1"], execution="02") == []


def test_columns_are_set_by_key_and_counted(made: Store) -> None:
    with made.write() as connection:
        insert_jobs.run_each(connection, [job(number) for number in range(3)])
        assert set_columns(connection, jobs, {"status": "failed"}, id="01.t0.0.1", status="queued") == 1
        assert set_columns(connection, jobs, {"status": "succeeded"}, id="01.t0.0.1", status="queued") == 0
        changed = [
            ({"id": "01.t1.0.1"}, {"exit_code": 1, "result": {"a": 1}}),
            ({"id": "01.t2.0.1"}, {"exit_code": 2, "result": None}),
            ({"id": "01.t2.0.1"}, {"settled": True}),
        ]
        set_each(connection, jobs, changed)
    with made.read() as connection:
        seen = connection.execute(
            select(jobs.c.status, jobs.c.exit_code, jobs.c.result, jobs.c.settled).order_by(jobs.c.id)
        )
        assert [tuple(row) for row in seen] == [
            ("failed", None, JOB["result"], False),
            ("queued", 1, {"a": 1}, False),
            ("queued", 2, None, True),
        ]


def test_fixed_words_and_values_are_part_of_the_text(made: Store) -> None:
    over = Query(select(jobs.c.id).where(one_of(jobs.c.status, {"failed", "succeeded"})), str)
    queued = Query(select(jobs.c.id).where(jobs.c.status == "queued", jobs.c.settled.is_(False)), str)
    with made.write() as connection:
        insert_jobs.run_each(connection, [job(1, status="failed"), job(2)])
        assert over.all(connection) == ["01.t1.0.1"]
        assert queued.first(connection) == "01.t2.0.1"
        assert Command(delete(jobs).where(one_of(jobs.c.status, {"failed"}))).run(connection, {}) == 1
        assert over.first(connection) is None


def test_what_fails_is_said_as_sqlalchemy_says_it_and_rolled_back(made: Store) -> None:
    with made.write() as connection:
        insert_jobs.run(connection, JOB)
    with pytest.raises(IntegrityError) as twice, made.write() as connection:
        insert_jobs.run_each(connection, [job(7), JOB])
    assert "100 % of" not in str(twice.value)
    broken = Command(update(timers).values({"due_at": bindparam("due_at")}))
    with made.write() as connection:
        connection.exec_driver_sql("DROP TABLE timers")
    with pytest.raises((OperationalError, ProgrammingError)), made.write() as connection:
        broken.run(connection, {"due_at": NOW})
    with made.read() as connection:
        assert [row[0] for row in everything.all(connection)] == [JOB["id"]]


def test_a_reader_sees_one_state(made: Store) -> None:
    """Also where its first statement is a prepared one: SQLite begins no transaction by itself."""
    if not made.is_sqlite:
        pytest.skip("PostgreSQL's default shows each statement what is committed by then")
    with made.read() as connection:
        assert everything.all(connection) == []
        with made.write() as writer:
            insert_jobs.run(writer, JOB)
        assert everything.all(connection) == []


def test_many_writers_of_one_process_all_come_through(made: Store) -> None:
    def write(number: int) -> None:
        for turn in range(20):
            with made.write() as connection:
                insert_jobs.run(connection, job(100 * number + turn))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with made.read() as connection:
        assert len(everything.all(connection)) == 160


def test_a_writer_that_fails_gives_its_turn_away(made: Store) -> None:
    with pytest.raises(RuntimeError), made.write():
        raise RuntimeError
    done = threading.Event()

    def write() -> None:
        with made.write() as connection:
            insert_jobs.run(connection, JOB)
        done.set()

    threading.Thread(target=write, daemon=True).start()
    assert done.wait(PATIENCE)
