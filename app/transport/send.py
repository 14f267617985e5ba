"""Sending canvases and orders. Nothing here raises for a broker that is away: the rows are the outbox."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any

from app.transport.canvas import Member
from app.transport.celery_app import Muster
from app.transport.queues import CALL, CONTROL, IO, LOOK, NODE_CTL, SETTLE, SSH, node_ctl_queue
from app.transport.wire import Message

log = logging.getLogger(__name__)


class Sender:
    """Sends through one Celery app. Thread safe."""

    def __init__(self, app: Muster) -> None:
        self._app = app

    def lines(self, sealed: Sequence[tuple[Member, str]]) -> None:
        """Each line's first order, with the rest of its canvas; chords are told their size first."""
        try:
            if sizes := {m.group_id: m.size for m, _ in sealed if m.group_id}:
                self._app.backend.expect(sizes)
            self._app.publisher.send([_order(member, token) for member, token in sealed])
        except Exception:  # the edge to the broker's client: kombu raises AttributeError too
            log.warning("orders could not be sent; they will be sent again", exc_info=True)

    def link(self, message: Message) -> None:
        """The next link of a chain."""
        self._send([message])

    def ctl(self, node: str, token: str) -> None:
        """A signed order about jobs, to the node's `.ctl` queue."""
        self._send([Message.nudge(node_ctl_queue(node), NODE_CTL, token)])

    def settle(self, executions: Iterable[str]) -> None:
        """Nudges control to settle executions."""
        self._send([Message.nudge(CONTROL, SETTLE, execution) for execution in executions])

    def calls(self, jobs: Iterable[str]) -> None:
        """Nudges whoever makes calls to look at these jobs."""
        self._send([Message.nudge(IO, CALL, job) for job in jobs])

    def look(self, nodes: Iterable[str]) -> None:
        """Nudges the gateway to look at the rows of these SSH nodes."""
        self._send([Message.nudge(SSH, LOOK, node) for node in nodes])

    def task(self, name: str, args: Sequence[Any], queue: str) -> None:
        """A nudge by name."""
        self._send([Message.nudge(queue, name, *args)])

    def _send(self, messages: Sequence[Message]) -> None:
        if not messages:
            return
        try:
            self._app.publisher.send(messages)
        except Exception:  # the edge to the broker's client: kombu raises AttributeError too
            log.warning("could not be sent; the tick will find the work: %s", _named(messages), exc_info=True)


def _order(member: Member, token: str) -> Message:
    """The first order of a line, with the links behind it as a message carries them, next one last.

    The first `collect` counts in the chord.
    """
    first, *more = (dict(link) for link in member.rest)
    if member.body is not None:
        first["options"] = {**first["options"], "chord": dict(member.body), "group_id": member.group_id}
    order = member.order
    return Message(
        order["options"]["queue"], order["task"], member.job, [token], chain=[*reversed(more), first]
    )


def _named(messages: Sequence[Message]) -> str:
    return ", ".join(sorted({f"{message.task} to {message.queue}" for message in messages}))
