"""Rules that every test shares: what may be skipped, and whose environment counts.

A test that needs a server takes the fixture that names it. A server that no variable names is skipped everywhere;
one that is named and does not answer is skipped on a person's machine and fails where CI=true, so that a skip
cannot rot.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import sshd as ssh_server
from hypothesis import settings
from rabbit import ON_RABBIT, Rabbit

DATABASE = "MUSTER_TEST_DATABASE_URL"
AMQP = "MUSTER_TEST_AMQP_URL"
PORTS = {"postgresql": 5432, "amqp": 5672, "pyamqp": 5672}

for name in list(os.environ):
    # A broker or database that a person has in mind is none of a test's business.
    if (name.startswith("MUSTER_") and not name.startswith("MUSTER_TEST_")) or name in (
        "REDIS_URL",
        "DATABASE_URL",
        "CELERY_BROKER_URL",
    ):
        del os.environ[name]


if os.environ.get("CI") == "true":
    # A change is judged by the same examples each time; new ones are looked for wherever people run the tests.
    settings.register_profile("ci", derandomize=True)
    settings.load_profile("ci")


# Who starts the tests in the background of a script has Ctrl-C ignored, and every process of theirs inherits that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _named_server(variable: str) -> str:
    """The URL in a variable; skips, or fails in CI, where nothing answers there."""
    url = os.environ.get(variable, "")
    if not url:
        pytest.skip(f"{variable} names no server")
    parts = urlsplit(url)
    address = (parts.hostname or "127.0.0.1", parts.port or PORTS.get(parts.scheme.split("+")[0], 0))
    try:
        socket.create_connection(address, timeout=3).close()
    except OSError as error:
        reason = f"{variable} names {address[0]}:{address[1]}, which does not answer: {error}"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return url


@pytest.fixture(scope="session")
def database_url() -> str:
    """The URL of a PostgreSQL database in which tests may make schemas."""
    return _named_server(DATABASE)


@pytest.fixture(scope="session")
def sshd_program() -> str:
    """The sshd that `sshd.Sshd` starts. Skips where the machine has none, and fails in CI."""
    if not ssh_server.PROGRAM:
        reason = "this machine has no sshd: install openssh-server"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return ssh_server.PROGRAM


@pytest.fixture(scope="session")
def gnu_parallel_program() -> str:
    """GNU Parallel with the rsync that it copies by. Skips where the machine has not both, and fails in CI."""
    found = shutil.which("parallel")
    if not found or not shutil.which("rsync"):
        reason = "this machine has no GNU Parallel with rsync: install parallel and rsync"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return found


@pytest.fixture
def sshd(sshd_program: str, tmp_path: Path) -> Iterator[ssh_server.Sshd]:
    """A server at 127.0.0.1 for one test."""
    with ssh_server.Sshd(tmp_path) as server:
        yield server


@pytest.fixture(scope="session")
def rabbit() -> Iterator[Rabbit]:
    """A virtual host of the tests' own. Skips where no RabbitMQ is named."""
    _named_server(AMQP)
    made = Rabbit()
    made.make()
    yield made
    made.drop()


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("postgres"):
        _named_server(DATABASE)
    if ON_RABBIT and item.get_closest_marker("fleet"):
        _named_server(AMQP)
