"""One machine as the gateway reaches it: the owner of its scripts, what people are told of it, and its host key."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from app.gateway import host_key
from app.gateway.post import Post
from app.node.scripts import Events
from app.node.station import Station
from app.services.measures import SSH_CONNECTIONS
from app.services.ssh_nodes import SshNode
from app.services.tally import Tally
from app.settings import Settings
from app.ssh import connection, openssh
from app.ssh.breaker import Breaker
from app.ssh.failures import Refused, Unreachable
from app.ssh.link import Link
from app.ssh.reach import Connect
from app.ssh.remote_runner import RemoteRunner
from app.ssh.target import Target
from app.ssh.workplace import make_far_workplace
from app.transport.celery_app import Muster

ASYNCSSH: Final = "asyncssh"
OPENSSH: Final = "openssh"


@dataclass(frozen=True, slots=True)
class Place:
    """Where the gateway is: its settings, the installation's id, the app that it sends with, whom to wake and tell."""

    settings: Settings
    installation: str
    app: Muster
    wake: Callable[[], None]
    tally: Tally


class Reached(RemoteRunner):
    """The scripts of one SSH node. `wake` is called where control should hear of the node, or people of its breaker;
    `count` is told what became of each attempt to connect: made, failed, refused.
    """

    def __init__(
        self, target: Target, directory: Path, events: Events, place: Place, count: Callable[[str], None]
    ) -> None:
        settings = place.settings
        super().__init__(
            directory,
            directory.name,
            target,
            events,
            installation=place.installation,
            leash=settings.ssh_leash,
            patience=settings.ssh_patience,
            breaker=Breaker(settings.ssh_breaker_failures, settings.ssh_breaker_cooldown),
            changed=self._changed,
            connect=_counting(_connect(target, settings), count),
        )
        self.wake: Callable[[], None] = _nothing
        self._is_refused = False
        self._until: tuple[float, float] = (0.0, 0.0)

    def is_reachable(self) -> bool:
        """One that lets nobody in is heard as well: its jobs are to fail at once, and say why."""
        is_closed = self.breaker.state(time.monotonic()) == "closed"
        return is_closed and (self._is_refused or bool(self.facts()))

    def look(self) -> None:
        """Connects where there is no connection and the breaker lets one try. Raises `Refused`, `Unreachable`."""
        if not self.breaker.admits(time.monotonic()):
            return
        was_heard = self.is_reachable()
        try:
            self.probe()
            self._is_refused = False
        except Refused:
            self._is_refused = True
            raise
        finally:
            if self.is_reachable() and not was_heard:
                self.wake()

    def told(self) -> dict[str, Any]:
        """The state of the breaker, for people; `error` is left out while all is well."""
        found = self.breaker
        state = found.state(time.monotonic())
        told: dict[str, Any] = {"state": state, "until": self._wall(found.until) if state == "open" else None}
        if found.failures:
            told |= {"failures": found.failures, "error": found.error}
        return told

    def _wall(self, until: float) -> float:
        """A moment of the monotonic clock in Unix seconds, always the same for the same moment."""
        if self._until[0] != until:
            self._until = (until, round(time.time() + until - time.monotonic(), 3))
        return self._until[1]

    def _changed(self, _: Breaker) -> None:
        self.wake()


def begin(node: SshNode, key: str, directory: Path, place: Place) -> tuple[Reached, Post]:
    """The node's scripts and its post, at work. `key` is the text of the private key, `directory` the node's own.

    Raises BadTarget for a row that names no place.
    """
    found: list[Reached] = []
    target = target_of(node, key)
    count = partial(place.tally.count, SSH_CONNECTIONS, node.name)

    def make(events: Events) -> Reached:
        found.append(Reached(target, directory, events, place, count))
        return found[0]

    slots = int(node.ssh.get("slots") or 1)
    own = replace(place.settings, node=node.name, node_dir=str(directory), node_slots=slots)
    station = Station(own, place.app, make, make_far_workplace(directory, own, lambda: found[0].reach))
    (reached,) = found

    def wake() -> None:
        station.heart.soon()
        place.wake()

    reached.wake = wake
    reached.ensure()
    post = Post(station)
    station.begin()
    return reached, post


def target_of(node: SshNode, key: str) -> Target:
    """Where the node is, and how it is logged in to."""
    return Target(
        user=node.ssh["user"],
        host=node.ssh["host"],
        port=node.ssh["port"],
        private_key=key,
        host_key=node.host_key,
        backend=OPENSSH if node.ssh.get("backend") == OPENSSH else ASYNCSSH,
        base=node.ssh.get("workdir", ""),
    )


def shown_host_key(node: SshNode, settings: Settings) -> str:
    """The host key that the machine shows now, kind and base64. Nobody logs in for that. Raises `Unreachable`."""
    address = node.address
    if node.ssh.get("backend") == OPENSSH:
        return host_key.by_openssh(address, settings.ssh_config)
    return connection.offered_host_key(address.host, address.port)


def _connect(target: Target, settings: Settings) -> Connect:
    if target.backend == OPENSSH:
        return partial(openssh.connect, config=settings.ssh_config)
    return connection.connect


def _counting(connect: Connect, count: Callable[[str], None]) -> Connect:
    def attempt(target: Target) -> Link:
        try:
            link = connect(target)
        except Refused:
            count("refused")
            raise
        except Unreachable:
            count("failed")
            raise
        count("made")
        return link

    return attempt


def _nothing() -> None:
    """Nobody is to be woken yet."""
