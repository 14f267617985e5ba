"""The queues that the gateway's worker consumes beside its own: they come and go with the nodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from app.transport.celery_app import make_queue, make_rabbit_queue
from app.transport.queues import node_ctl_queue, node_queue


class Consuming:
    """Changes what a running Celery consumer consumes. For any thread: its own loop does the work."""

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer

    def begin(self, node: str) -> None:
        """Consume the queues of a node from now on, after a reconnect too."""
        self._soon(self._begin, node_ctl_queue(node))
        self._soon(self._begin, node_queue(node))

    def end(self, node: str) -> None:
        """Leave the queues of a node alone."""
        self._soon(self._end, node_queue(node))
        self._soon(self._end, node_ctl_queue(node))

    def _soon(self, act: Callable[[str], None], queue: str) -> None:
        self._consumer.call_soon(act, queue)

    def _begin(self, name: str) -> None:
        app, tasks = self._consumer.app, self._consumer.task_consumer
        make = make_rabbit_queue if app.muster.is_rabbit else make_queue
        queue = app.amqp.queues.select_add(make(name))
        # None while the connection is made anew: then it takes all that was selected.
        if tasks is not None and not tasks.consuming_from(name):
            tasks.add_queue(queue)
            tasks.consume()

    def _end(self, name: str) -> None:
        self._consumer.app.amqp.queues.deselect(name)
        if self._consumer.task_consumer is not None:
            self._consumer.task_consumer.cancel_by_queue(name)
