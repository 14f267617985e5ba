"""Celery's request of a task, for messages that came through the gate."""

from __future__ import annotations

from typing import Any

from celery.worker.request import Request as CeleryRequest


class Request(CeleryRequest):
    """Hands the arguments that the gate has decoded to the pool, where Celery's own has the body decoded again."""

    def __init__(self, message: Any, **options: Any) -> None:
        options.update(body=message.payload, decoded=True)
        super().__init__(message, **options)
        # The gate lets no header of one's own through, and Celery would look for one among all that there are.
        self._request_dict["headers"] = {}
