"""The way to one machine: one connection for all of its jobs, made when it is needed, and the breaker before it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from app.ssh import connection, facts, far_side, openssh
from app.ssh.breaker import Breaker
from app.ssh.desk import Desk
from app.ssh.facts import Details, Facts
from app.ssh.failures import Refused, Unreachable
from app.ssh.far_side import Ground
from app.ssh.link import Link
from app.ssh.target import Target

log = logging.getLogger(__name__)

_PROBE = connection.CONNECT_WITHIN + facts.WITHIN + 5.0

_LOOK_EVERY = 300.0

Changed = Callable[[Breaker], None]
Connect = Callable[[Target], Link]


class Reach:
    """Every method may be called from any thread. `changed` is told every new state of the breaker, quickly."""

    def __init__(
        self,
        target: Target,
        ground: Ground,
        breaker: Breaker,
        *,
        changed: Changed | None = None,
        connect: Connect | None = None,
    ) -> None:
        self.target = target
        self.breaker = breaker
        self._ground = ground
        self._changed = changed
        self._connect = connect or (openssh.connect if target.backend == "openssh" else connection.connect)
        self._lock = threading.Lock()
        self._connecting = threading.Lock()
        self._link: Link | None = None
        self._desking = threading.Lock()
        self._desk: Desk | None = None
        self._is_short_of_sessions = False
        self._facts: Facts | None = None
        self._details: Details | None = None
        self._looked_at = 0.0
        self._closed = False

    @property
    def facts(self) -> Facts | None:
        """What the machine said when it was connected to last."""
        return self._facts

    @property
    def details(self) -> Details | None:
        """What it said it is, when it was asked last."""
        return self._details

    @property
    def ground(self) -> Ground:
        """With the directory and the names that the machine has told."""
        found = self._facts
        return (
            self._ground
            if found is None
            else replace(self._ground, base=found.base, variables=found.variables)
        )

    @property
    def open_link(self) -> Link | None:
        """The connection, where there is one."""
        link = self._link
        return link if link is not None and link.is_open else None

    def link(self) -> Link:
        """The connection; it is made where there is none. Raises `Refused` and `Unreachable`, the latter at once while
        the breaker is open."""
        if (link := self.open_link) is not None:
            return link
        with self._connecting:
            if (link := self.open_link) is not None:
                return link
            self._begin()
            try:
                link = self._connect(self.target)
                try:
                    self._facts = facts.greet(link, self._ground, self.target)
                except BaseException:
                    link.close()
                    raise
            except Unreachable as error:
                self.failed(error.message)
                raise
            except Refused:
                # The machine is there: that its key is wrong says nothing about the next attempt's chances to hear so.
                self._set(self.breaker.succeeded())
                raise
            with self._lock:
                if self._closed:
                    link.close()
                    raise Unreachable("the connection is being closed")
                self._link = link
            self._set(self.breaker.succeeded())
            return link

    @property
    def open_desk(self) -> Desk | None:
        """The process for many jobs, where there is one."""
        desk = self._desk
        return desk if desk is not None and not desk.is_over and desk.link is self.open_link else None

    def engage(self) -> None:
        """Has a process for many jobs on the machine, where there may be one. Without it each has a session."""
        link, details = self.open_link, self._details
        with self._desking:
            last = self._desk
            if (
                link is None
                or details is None
                or details.version < far_side.AGENT_SINCE
                or self._is_short_of_sessions
            ):
                return
            # One that never said a word will not say it the next time.
            if last is not None and last.link is link and not (last.is_over and last.has_answered):
                return
            try:
                self._desk = Desk(link, self.ground)
            except Unreachable as error:
                log.info("%s: %s", self.target.address, error.message)

    def spare(self) -> None:
        """Where a session was not opened the process for many jobs may be one too many: from now on they do without."""
        desk = self.open_desk
        if desk is not None and desk.close():
            self._is_short_of_sessions = True
            log.info("%s opens few sessions at once", self.target.address)

    def look(self) -> None:
        """Asks the machine what it is, unless it was asked not long ago. Raises what `link` raises."""
        now = time.monotonic()
        if self._details is None or now - self._looked_at > _LOOK_EVERY:
            link = self.link()
            try:
                self._details = facts.look(link, self.ground)
            except Unreachable:
                self.spare()
                raise
            self._looked_at = now

    def failed(self, why: str) -> None:
        """The machine does not answer."""
        now = time.monotonic()
        before = self.breaker.state(now)
        self._set(self.breaker.failed(now, why))
        if before != "open" and self.breaker.state(now) == "open":
            wait = self.breaker.until - now
            log.warning("nothing is tried with %s for %.0f s: %s", self.target.address, wait, why)

    def broken(self, link: Link, why: str) -> None:
        """A connection that is there does not answer any more."""
        with self._lock:
            if self._link is not link:
                return
            self._link = None
        link.close()
        self.failed(why)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            link, self._link = self._link, None
        if link is not None:
            link.close()

    def _begin(self) -> None:
        now = time.monotonic()
        if self._closed:
            raise Unreachable("the connection is being closed")
        if not self.breaker.admits(now):
            raise Unreachable(
                f"nothing is tried with {self.target.address} after {self.breaker.failures} failures"
                f", for {max(0.0, self.breaker.until - now):.0f} s more: {self.breaker.error}",
                code="breaker-open",
            )
        before = self.breaker
        after = before.began(now, _PROBE)
        if after is not before:
            self._set(after)

    def _set(self, breaker: Breaker) -> None:
        if breaker == self.breaker:
            return
        self.breaker = breaker
        if self._changed is not None:
            self._changed(breaker)
