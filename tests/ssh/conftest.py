"""The ways to a far side that every rule is tried over."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from far_bench import FarBench, target_of
from shell_server import ShellServer
from sshd import Sshd

from app.ssh.target import Backend

WAYS = ("asyncssh", "agent", "openssh", "openssh agent", "in-process")
"""asyncssh to sshd, the `ssh` program to sshd, asyncssh to asyncssh's own server; with the process for many jobs from
the beginning."""


@pytest.fixture(
    scope="module", params=[*WAYS[:2], *(pytest.param(way, marks=pytest.mark.long) for way in WAYS[2:])]
)
def far(
    request: pytest.FixtureRequest, sshd_program: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FarBench]:
    """A far side that is the same for all tests of a module."""
    directory = tmp_path_factory.mktemp("far")
    if request.param == "in-process":
        server = ShellServer(directory)
        bench = FarBench(directory, server.start())
        yield bench
        bench.close()
        server.stop()
        return
    with Sshd(directory, environment={"HELD_BACK": "secret"}) as sshd:
        backend: Backend = "openssh" if "openssh" in request.param else "asyncssh"
        bench = FarBench(directory, target_of(sshd, backend=backend), agent="agent" in request.param)
        yield bench
        bench.close()


@pytest.fixture(params=["sessions", "agent"])
def near(request: pytest.FixtureRequest, sshd: Sshd, tmp_path: Path) -> Iterator[FarBench]:
    """asyncssh to a server of the test's own, which it may stop."""
    bench = FarBench(tmp_path, target_of(sshd), agent=request.param == "agent")
    yield bench
    bench.close()
