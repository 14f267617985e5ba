"""One fleet for every row: `muster up` as a person types it. What `tests/fleet` knows of processes is shared, and
the desk of `tests/services`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

for name in ("fleet", "services"):
    sys.path.insert(0, str(Path(__file__).parent.parent / name))

# Before anything imports them: their assertions are to show their values too.
pytest.register_assert_rewrite("begun", "gates")

from gates import Gates  # noqa: E402
from lasting import Lasting  # noqa: E402
from running import Running  # noqa: E402

LASTING = Lasting()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    LASTING.close_after(item, nextitem)


@pytest.fixture(scope="module")
def running() -> Running:
    return LASTING.get("running", Running)


@pytest.fixture(scope="module")
def gates(running: Running) -> Gates:
    return LASTING.get("gates", lambda: _open_at_the_end(Gates(running)))


@contextmanager
def _open_at_the_end(gates: Gates) -> Iterator[Gates]:
    yield gates
    gates.open_all()
