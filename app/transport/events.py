"""Celery's own events, for Flower: ids, names and times, and nothing of what a job was given or answered."""

from __future__ import annotations

from typing import Any

from celery.app.events import Events
from celery.events.dispatcher import EventDispatcher

from app.transport.wire import HIDDEN

_TELLING = ("args", "kwargs", "result", "exception", "traceback")


class QuietDispatcher(EventDispatcher):
    """Sends events without values. An exception's words and its traceback may hold any, so they stay in our log."""

    def send(self, type: str, *args: Any, **fields: Any) -> Any:
        quiet = {name: HIDDEN if name in _TELLING else value for name, value in fields.items()}
        return super().send(type, *args, **quiet)


class QuietEvents(Events):
    """The events of our apps."""

    dispatcher_cls = QuietDispatcher
