"""One fleet for all tests that only watch, and a rougher one for those that kill."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fleet import Fleet
from fleet_api import Api


@pytest.fixture(scope="session")
def fleet() -> Iterator[Fleet]:
    with Fleet(tcp=True) as running:
        yield running


@pytest.fixture(scope="session")
def api(fleet: Fleet) -> Api:
    """The HTTP API of the fleet that is only watched."""
    return Api(fleet)


@pytest.fixture(scope="session")
def fleet_on_postgres(database_url: str) -> Iterator[Fleet]:
    """A fleet whose rows are in PostgreSQL. Skips where there is none."""
    with Fleet(tcp=True, postgres=database_url) as running:
        yield running


@pytest.fixture(scope="module")
def rough() -> Iterator[Fleet]:
    with Fleet() as running:
        yield running
