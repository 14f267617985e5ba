"""Keeps a post for every SSH node that somebody trusts, as the rows say: looked at every few seconds and when nudged.

What takes time (a machine that does not answer) is done for each node by itself, a few nodes at once.
"""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from app.errors import MusterError
from app.gateway import reaching
from app.gateway.consuming import Consuming
from app.gateway.home import Home
from app.gateway.post import Post
from app.gateway.reaching import Place, Reached
from app.logs import scope
from app.node.ctl import CtlConsumer
from app.services import ssh_nodes
from app.services.control import Control
from app.services.installation import Installed
from app.services.ssh_nodes import SshNode
from app.ssh.failures import Refused
from app.transport.celery_app import Muster
from app.transport.queues import node_ctl_queue

log = logging.getLogger(__name__)

LOOK_EVERY = 2.0
AT_ONCE = 16
"""Nodes that are seen to at once: a machine that does not answer takes seconds of one of these threads."""
FIRST_PAUSE, LONGEST_PAUSE = 2.0, 60.0
"""Seconds between two attempts to reach a machine that could not be reached; they double."""


@dataclass(slots=True)
class Watch:
    """What the gateway has of one node. Only the thread that sees to the node changes it, while it is `busy`.

    `made_of` is what the post was made of, `due` when it is tried again after a failure (monotonic seconds).
    """

    name: str
    busy: bool = False
    made_of: Any = None
    kid: str = ""
    reached: Reached | None = None
    post: Post | None = None
    failures: int = 0
    due: float = 0.0
    error: str = ""

    def failed(self, error: str) -> None:
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2**self.failures)
        self.failures, self.due, self.error = self.failures + 1, time.monotonic() + pause, error

    def went_well(self) -> None:
        self.failures, self.due, self.error = 0, 0.0, ""

    def told(self) -> dict[str, Any]:
        """The state of the connection, for the row."""
        found = {"state": "closed", "failures": self.failures, "until": None, "error": self.error}
        return found if self.reached is None else {**found, **self.reached.told()}


class Gateway:
    """`start` once there is a consumer; `post` for what comes on the nodes' queues."""

    def __init__(self, control: Control, installed: Installed, app: Muster) -> None:
        self.control = control
        self._installed = installed
        self._home = Home(control, installed)
        self._watches: dict[str, Watch] = {}
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._place = Place(control.settings, installed.id, app, self._wake.set, control.tally)
        self._leaving = threading.Event()
        self._scouts = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="scout")
        self._thread = threading.Thread(target=self._run, name="gateway", daemon=True)
        self._consuming: Consuming | None = None

    def start(self, consuming: Consuming) -> None:
        self._consuming = consuming
        self._thread.start()

    def nudge(self, node: str) -> None:
        """Something about the node was changed; whatever it is, the rows say it."""
        with self._lock:
            watch = self._watches.get(node)
        if watch is not None:
            watch.due = 0.0
        self._wake.set()

    def post(self, node: str) -> Post | None:
        """Who takes what is meant for the node; None where it is not, or no longer, ours."""
        with self._lock:
            watch = self._watches.get(node)
        return None if watch is None else watch.post

    def release(self) -> None:
        """Nothing more is begun. The scripts go on."""
        self._leaving.set()
        self._wake.set()
        for post in self._posts():
            post.release()

    def close(self) -> None:
        """Ends every post. The scripts go on, for as long as their leash is."""
        self.release()
        if self._thread.ident is not None:
            self._thread.join(5.0)
        self._scouts.shutdown(wait=False, cancel_futures=True)
        for post in self._posts():
            post.close()

    def _posts(self) -> list[Post]:
        with self._lock:
            return [watch.post for watch in self._watches.values() if watch.post is not None]

    # looking

    def _run(self) -> None:
        while not self._leaving.is_set():
            try:
                self._look()
            except Exception:  # the edge to the database: it may be back in a moment
                log.warning("the rows of SSH nodes could not be read", exc_info=True)
            self._wake.wait(LOOK_EVERY)
            self._wake.clear()

    def _look(self) -> None:
        # Those that nobody is at are set aside before the rows are read: no row is older than what was done by it.
        with self._lock:
            idle = {name: watch for name, watch in self._watches.items() if not watch.busy}
            for watch in idle.values():
                watch.busy = True
        try:
            with self.control.store.read() as connection:
                rows = {node.name: node for node in ssh_nodes.known(connection)}
        except BaseException:
            for watch in idle.values():
                watch.busy = False
            raise
        with self._lock:
            for name in rows.keys() - self._watches.keys():
                idle[name] = self._watches[name] = Watch(name, busy=True)
        for name, watch in idle.items():
            if not self._leaving.is_set():
                self._scouts.submit(self._see_to, watch, rows.get(name))

    def _see_to(self, watch: Watch, node: SshNode | None) -> None:
        """One node, by its row; None where it has none as an SSH node any more."""
        scope.begin(node=watch.name)
        try:
            if node is None or node.is_removed:
                self._forget(watch, node)
                return
            try:
                self._reach(watch, node)
            except MusterError as error:
                watch.failed(f"{error.message}: {error.hint}" if error.hint else error.message)
                log.warning("%s: %s", watch.name, watch.error)
            told = watch.told()
            if told != node.breaker:
                ssh_nodes.put_breaker(self.control, node.name, told)
        except Exception:  # the edge to disk and database, for one node: the others go on
            watch.failed("the gateway's log says why")
            log.exception("%s could not be seen to", watch.name)
        finally:
            watch.busy = False

    def _forget(self, watch: Watch, node: SshNode | None) -> None:
        self._drop(watch)
        if node is not None:
            self._home.forget(node.name)
        # Last of all: a node that is added anew under the name is seen to by another thread from then on.
        with self._lock:
            self._watches.pop(watch.name, None)

    def _drop(self, watch: Watch) -> None:
        """Ends the post. What still runs there goes on for its leash; a new post for the same place finds it again."""
        post, watch.post, watch.reached = watch.post, None, None
        if post is not None:
            if self._consuming is not None:
                self._consuming.end(watch.name)
            post.close()

    def _reach(self, watch: Watch, node: SshNode) -> None:
        made_of = (dict(node.ssh), node.host_key, node.key_version)
        if watch.made_of != made_of or (watch.reached and watch.kid != node.sign_kid):
            self._drop(watch)
            watch.made_of = made_of
            watch.went_well()
        if time.monotonic() < watch.due:
            return
        if not node.host_key:
            self._offer(node)
            watch.failed(f"its host key is not trusted yet: `muster node trust {node.name}`")
            return
        if watch.post is None or watch.reached is None:
            reached = self._begin(watch, node)
        else:
            reached = watch.reached
        try:
            reached.look()
        except Refused as refused:
            if refused.kind == "ssh_host_key":
                self._offer(node)
            raise
        watch.went_well()

    def _offer(self, node: SshNode) -> None:
        """Keeps the host key that the machine shows, for a person to trust or not."""
        ssh_nodes.offer(self.control, node.name, reaching.shown_host_key(node, self.control.settings))

    def _begin(self, watch: Watch, node: SshNode) -> Reached:
        directory = self._home.prepare(node)
        key = ssh_nodes.private_key(self.control, node)
        reached, post = reaching.begin(node, key, directory, self._place)
        try:
            # Cancels that came meanwhile are known before any order is taken.
            CtlConsumer(self._place.app, node_ctl_queue(node.name), post.station.obey).drain()
        except BaseException:
            post.close()
            raise
        watch.reached, watch.post, watch.kid = reached, post, post.station.identity.keys.kid
        if self._leaving.is_set():
            post.release()
        elif self._consuming is not None:
            self._consuming.begin(node.name)
        return reached
