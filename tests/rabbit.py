"""A virtual host of a test's own on the RabbitMQ that MUSTER_TEST_AMQP_URL names.

The server runs on this machine: virtual hosts and users are made and dropped by its own command, `rabbitmqctl`.
MUSTER_TEST_BROKER=amqp has every fleet of the tests send its messages through it.
"""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import kombu
import pytest
from amqp.exceptions import NotFound

from app.transport.queues import FROM_NODES

_CHOSEN = os.environ.get("MUSTER_TEST_BROKER", "redis")
assert _CHOSEN in ("redis", "amqp"), f"MUSTER_TEST_BROKER={_CHOSEN}: redis or amqp"
ON_RABBIT = _CHOSEN == "amqp"


def redis_broker_only(reason: str) -> Any:
    """Marks a test of what only Redis as the broker has; `reason` says why RabbitMQ has nothing of the kind."""
    return pytest.mark.skipif(ON_RABBIT, reason=reason)


rabbit_only = pytest.mark.skipif(not ON_RABBIT, reason="MUSTER_TEST_BROKER=amqp puts fleets on RabbitMQ")


def rabbitmqctl(*words: str) -> str:
    """The server's own command; what it printed."""
    done = subprocess.run(
        ["rabbitmqctl", "-q", *words], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, f"rabbitmqctl {' '.join(words)}: {done.stdout}{done.stderr}"
    return done.stdout


class Rabbit:
    """`make()`, then `url`. All that is in it goes with `drop()`."""

    def __init__(self) -> None:
        self._given = urlsplit(os.environ["MUSTER_TEST_AMQP_URL"])
        self.vhost = f"muster_test_{secrets.token_hex(6)}"
        self.url = self._given._replace(path=f"/{self.vhost}").geturl()
        self._users: list[str] = []

    def make(self) -> None:
        rabbitmqctl("add_vhost", self.vhost)
        user = unquote(self._given.username or "guest")
        rabbitmqctl("set_permissions", "-p", self.vhost, user, ".*", ".*", ".*")

    def drop(self) -> None:
        for user in self._users:
            rabbitmqctl("delete_user", user)
        if self.vhost in rabbitmqctl("list_vhosts", "name").split():
            rabbitmqctl("delete_vhost", self.vhost)

    def add_user(self, name: str, configure: str, write: str, read: str) -> str:
        """A user of this virtual host alone, with these rights; its URL."""
        user, password = f"{self.vhost}.{name}", secrets.token_hex(8)
        rabbitmqctl("add_user", user, password)
        self._users.append(user)
        rabbitmqctl("set_permissions", "-p", self.vhost, user, configure, write, read)
        place = f"{quote(user)}:{password}@{self._given.hostname}:{self._given.port or 5672}"
        return self._given._replace(netloc=place, path=f"/{self.vhost}").geturl()

    @contextmanager
    def channel(self, url: str = "") -> Iterator[Any]:
        """A channel of a connection of its own."""
        with kombu.Connection(url or self.url) as connection:
            yield connection.default_channel

    def length(self, queue: str) -> int:
        """How many messages wait to be taken; none where there is no queue."""
        with self.channel() as channel:
            try:
                return int(channel.queue_declare(queue, passive=True).message_count)
            except NotFound:
                return 0

    def exists(self, queue: str) -> bool:
        with self.channel() as channel:
            try:
                channel.queue_declare(queue, passive=True)
            except NotFound:
                return False
            return True

    def purge(self, queue: str) -> int:
        """Throws away what waits; how many that was."""
        with self.channel() as channel, suppress(NotFound):
            return int(channel.queue_purge(queue))
        return 0

    def contents(self) -> dict[str, int]:
        """Every queue, with what waits in it or was taken and not acknowledged."""
        rows = rabbitmqctl("list_queues", "-p", self.vhost, "name", "messages", "--no-table-headers")
        return {name: int(count) for name, count in (row.split() for row in rows.splitlines())}

    def wipe(self) -> None:
        """Every queue goes, with all that is in it, and the exchange that nodes write to."""
        with self.channel() as channel:
            channel.exchange_delete(FROM_NODES)
            for queue in self.contents():
                channel.queue_delete(queue)

    def cut(self) -> None:
        """The server closes every connection, as it does when it is stopped."""
        rabbitmqctl("close_all_connections", "--vhost", self.vhost, "a test")
