"""Migrations: from nothing to what the models say, twice at once, and with a newer database refused."""

from __future__ import annotations

import re
import threading

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import CheckConstraint, inspect, text

from app.errors import Unavailable
from app.store import migrate
from app.store.db import Store
from app.store.tables import Base


def test_the_migrated_schema_is_the_models(store: Store) -> None:
    assert migrate.current(store) is None
    with pytest.raises(Unavailable):
        migrate.require(store)
    assert migrate.upgrade(store) == migrate.head() == migrate.current(store)
    migrate.require(store)
    with store.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
        found = inspect(connection)
        for name, one in Base.metadata.tables.items():
            checks = {check["name"]: check["sqltext"] for check in found.get_check_constraints(name)}
            wanted = {check.name: str(check.sqltext) for check in one.constraints if _is_check(check)}
            assert {check: _words(told) for check, told in checks.items()} == {
                check: _words(told) for check, told in wanted.items()
            }


def _is_check(constraint: object) -> bool:
    return isinstance(constraint, CheckConstraint)


def _words(told: str) -> list[str]:
    """The values that a constraint allows, however a database spells it."""
    return re.findall(r"'(\w+)'", told)


def test_again_changes_nothing(store: Store) -> None:
    migrate.upgrade(store)
    with store.write() as connection:
        names, values = "digest, plan_version, body, source, used_at", "'a', 1, '', '', '2026-01-01'"
        connection.execute(text(f"INSERT INTO plans ({names}) VALUES ({values})"))
    migrate.upgrade(store)
    with store.read() as connection:
        assert connection.execute(text("SELECT count(*) FROM plans")).scalar() == 1


def test_many_at_once(store: Store) -> None:
    url = store.url.render_as_string(hide_password=False)
    start = threading.Barrier(6)
    failures: list[BaseException] = []

    def run() -> None:
        own = Store(url)
        start.wait()
        try:
            migrate.upgrade(own)
        except BaseException as error:
            failures.append(error)
        finally:
            own.close()

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert migrate.current(store) == migrate.head()


def test_all_or_nothing(store: Store) -> None:
    with store.write() as connection:
        connection.execute(text("CREATE TABLE jobs (id INTEGER)"))
    with pytest.raises(Exception, match="already exists"):
        migrate.upgrade(store)
    with store.read() as connection:
        assert inspect(connection).get_table_names() == ["jobs"]


def test_a_newer_database_is_refused(store: Store) -> None:
    migrate.upgrade(store)
    with store.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(migrate.UnknownRevision):
        migrate.upgrade(store)


def test_foreign_keys_hold_after_a_migration(store: Store) -> None:
    migrate.upgrade(store)
    with pytest.raises(Exception, match=r"(?i)foreign key"), store.write() as connection:
        connection.execute(
            text(
                "INSERT INTO timers (execution, task, unit, kind, due_at) VALUES ('x', 'a', 0, 'k', '2026-01-01')"
            )
        )


def test_there_is_a_way_back(store: Store) -> None:
    migrate.upgrade(store)
    config = migrate._config()
    with migrate._alone(store) as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
    with store.read() as connection:
        assert set(inspect(connection).get_table_names()) <= {"alembic_version"}
