"""A server that speaks the API's contract, and the environment that points at it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from speaking_server import Server, speaking


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    with speaking() as one:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("MUSTER_URL", one.url)
        monkeypatch.setenv("MUSTER_TOKEN", "mst_test")
        yield one
