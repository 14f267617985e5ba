"""A site for flows: hosts, a tool, and ways to get there."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from site_of_flows import Site
from sshd import Sshd

sys.path.insert(0, str(Path(__file__).parents[1] / "fleet"))


@pytest.fixture
def site(sshd_program: str, tmp_path: Path) -> Iterator[Site]:
    with Sshd(tmp_path, addresses=("127.0.0.2", "127.0.0.3")) as sshd:
        yield Site(tmp_path, sshd)
