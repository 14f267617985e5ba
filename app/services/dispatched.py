"""The columns of a job that is handed over: sent to its node, or gone along in the order of the job before it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from app.compiler.canvas import Born
from app.engine.status import DISPATCHED, RUNNING
from app.services import along
from app.services.along import Along
from app.services.control import Control
from app.services.orders import Recipient
from app.services.telling import ORDER_BYTES, Told

BACKSTOP_MARGIN = 30.0
"""Seconds beyond timeout and grace after which the engine no longer waits for the node's word."""

ORDER_JOBS = 32
"""Jobs that share an order at the most."""


def columns(control: Control, told: Told, canvas_digest: str, to: Recipient, now: float) -> dict[str, Any]:
    """Of a job whose order is sent now. `canvas_digest` is of what the last of the order comes back with."""
    message = told.message
    limit = None if message.timeout is None else message.timeout + message.grace
    return {
        "digest": told.digest,
        **along.columns([(one.message.id, one.digest) for one in told.along], canvas_digest),
        **_sent(control, to.epoch, limit, now),
    }


def of_gone(
    control: Control, told: Along, timeout: float | None, epoch: str, began: float, now: float
) -> Mapping[str, Any]:
    """Of a job that its node has begun by itself when the one before it had ended, which `began` says: it runs, and
    should the node never report its end, the backstop does. `timeout` is in seconds."""
    limit = None if timeout is None else timeout + control.settings.grace
    return {
        **told.columns(),
        **_sent(control, epoch, limit, now),
        "status": RUNNING,
        "dispatched_at": began,
        "accepted_at": began,
        "backstop_at": None if limit is None else now + limit + BACKSTOP_MARGIN,
    }


def _sent(control: Control, epoch: str, time_limit: float | None, now: float) -> dict[str, Any]:
    return {
        "status": DISPATCHED,
        "epoch": epoch,
        "dispatched_at": now,
        "send_after": now + control.settings.resend_after,
        "order_expires_at": now + control.settings.order_lifetime,
        "give_up_at": None,
        "time_limit": time_limit,
    }


def shared(groups: Iterable[Sequence[Born]], said: Mapping[str, Told]) -> dict[str, tuple[Told, ...]]:
    """What the first job of an order is told with: those that run at the same time, as many as one order takes."""
    found: dict[str, tuple[Told, ...]] = {}
    for group in groups:
        head, size = "", 0
        for told in (said[born.id] for born in group):
            size += told.message.size
            if not head or size > ORDER_BYTES or len(found.get(head, ())) + 1 >= ORDER_JOBS:
                head, size = told.message.id, told.message.size
            else:
                found[head] = (*found.get(head, ()), told)
    return found
