"""The fixtures of the transport's tests."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from real_fleet import Broker, Workers


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    directory = Path(tempfile.mkdtemp(prefix="mt-"))
    server = Broker(directory)
    yield server
    server.stop()
    shutil.rmtree(directory)


@pytest.fixture
def workers(broker: Broker, tmp_path: Path) -> Iterator[Workers]:
    broker.client.flushall()
    fleet = Workers(broker, tmp_path)
    yield fleet
    fleet.stop()
