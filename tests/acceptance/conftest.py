"""One fleet for every row: `muster up` as a person types it. What `tests/fleet` knows of processes is shared, and
the desk of `tests/services`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

for name in ("fleet", "services"):
    sys.path.insert(0, str(Path(__file__).parent.parent / name))

# Before anything imports them: their assertions are to show their values too.
pytest.register_assert_rewrite("begun", "gates")

from gates import Gates  # noqa: E402
from running import Running  # noqa: E402


@pytest.fixture(scope="session")
def running() -> Iterator[Running]:
    with Running() as fleet:
        yield fleet


@pytest.fixture(scope="session")
def gates(running: Running) -> Iterator[Gates]:
    made = Gates(running)
    yield made
    made.open_all()
