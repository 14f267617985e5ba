"""Sending canvases and orders. Nothing here raises for a broker that is away: the rows are the outbox."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any

from celery import Celery

from app.transport.canvas import Member
from app.transport.queues import CONTROL, NODE_CTL, SETTLE, node_ctl_queue

log = logging.getLogger(__name__)


class Sender:
    """Sends through one Celery app. Thread safe, as the app's producer pool is."""

    def __init__(self, app: Celery) -> None:
        self._app = app

    def lines(self, sealed: Sequence[tuple[Member, str]]) -> None:
        """Each line's first order, with the rest of its canvas; chords are told their size first."""
        try:
            for group_id, size in {m.group_id: m.size for m, _ in sealed if m.group_id}.items():
                self._app.backend.set_chord_size(group_id, size)
            with self._app.producer_or_acquire(None) as producer:
                for member, token in sealed:
                    self._line(producer, member, token)
        except Exception:  # the edge to the broker's client: kombu raises AttributeError too
            log.warning("orders could not be sent; they will be sent again", exc_info=True)

    def _line(self, producer: Any, member: Member, token: str) -> None:
        self._app.send_task(
            member.order["task"],
            args=[token],
            task_id=member.job,
            queue=member.order["options"]["queue"],
            chain=_rest(member),
            producer=producer,
            ignore_result=True,
        )

    def ctl(self, node: str, token: str) -> None:
        """A signed order about jobs, to the node's `.ctl` queue."""
        self._send(NODE_CTL, [token], node_ctl_queue(node))

    def settle(self, executions: Iterable[str]) -> None:
        """Nudges control to settle executions."""
        for execution in executions:
            self._send(SETTLE, [execution], CONTROL)

    def task(self, name: str, args: Sequence[Any], queue: str) -> None:
        """A nudge by name."""
        self._send(name, list(args), queue)

    def _send(self, name: str, args: list[Any], queue: str) -> None:
        try:
            self._app.send_task(name, args=args, queue=queue, ignore_result=True)
        except Exception:  # the edge to the broker's client: kombu raises AttributeError too
            log.warning("%s could not be sent to %s; the tick will find the work", name, queue, exc_info=True)


def _rest(member: Member) -> list[dict[str, Any]]:
    """The links behind the order as a message carries them, next one last; the first `collect` counts in the
    chord."""
    first, *more = (dict(link) for link in member.rest)
    if member.body is not None:
        options = {**first["options"], "chord": dict(member.body), "group_id": member.group_id}
        first["options"] = options
    return [*reversed(more), first]
