"""One fleet for every row: `muster up` as a person types it. What `tests/fleet` knows of processes is shared."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "fleet"))

from running import Running


@pytest.fixture(scope="session")
def running() -> Iterator[Running]:
    with Running() as fleet:
        yield fleet
