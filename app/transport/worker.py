"""Celery's worker and consumer as every Muster worker is: quiet, one per name, and behind the gate.

`celery -A workers.node worker` as typed must not gossip, mingle or consume by accident, so what would be
flags is decided here. The consumer restores its own messages when it connects for the first time, lets every
message pass `gate.admit` before Celery's strategy sees it, and buries whatever makes that strategy raise.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from celery.apps.worker import Worker as CeleryWorker
from celery.utils.nodenames import default_nodename, gethostname
from celery.worker.consumer import Consumer as CeleryConsumer
from kombu.utils.json import dumps

from app.transport import gate, restore
from app.transport.channel import Channel, bury_message

logger = logging.getLogger(__name__)

Handler = Callable[[Any], None]


class Worker(CeleryWorker):
    """The worker that `celery worker` starts for our apps.

    Raises Conflict at once if another process on this machine runs under the app's worker name.
    """

    def __init__(self, app: Any = None, hostname: str | None = None, **options: Any) -> None:
        app = app or self.app
        self.name_lock = restore.hold_name(app.muster.name, app.conf.broker_url, app.muster.state_dir)
        if hostname in (None, default_nodename(None)):
            hostname = f"{app.muster.name}@{gethostname()}"
        # Heartbeats of Celery's own kind are events: with `-E` for Flower, else not at all.
        events = options.get("task_events") or app.conf.worker_send_task_events
        options.update(without_gossip=True, without_mingle=True, without_heartbeat=not events)
        # Named one by one: a queue that this process merely sent to would be consumed after a reconnect.
        options["queues"] = options.get("queues") or list(app.muster.queues)
        super().__init__(app, hostname, **options)


class Consumer(CeleryConsumer):
    """The consumer of our workers."""

    _restored = False

    def connect(self) -> Any:
        connection = super().connect()
        if not self._restored:
            restore.restore_own(connection.default_channel)
            self._restored = True
        return connection

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Handler:
        handle = super().create_task_handler(*args, **kwargs)

        def on_task_received(message: Any) -> None:
            try:
                self._admit(message)
                handle(message)
            except gate.Poison as poison:
                self._bury(message, poison.code)
            except Exception as error:
                # The edge: a message may make Celery's strategy raise anything. A lost connection is none of
                # the message's doing, but kombu counts KeyError as one, and a message can bring that about
                # for ever.
                if isinstance(error, self.connection_errors) and not isinstance(error, KeyError):
                    raise
                logger.warning("a message made the worker raise %s", type(error).__name__)
                self._bury(message, "failed")

        return on_task_received

    def call_soon_ack(self, p: Any, *args: Any, **kwargs: Any) -> Any:
        """Celery's own has the loop acknowledge, and wakes it for that: with every job, just as it begins.

        On Redis a thread of the pool may do it. The loop is woken only where it does not listen, as it does not once
        it has taken as much as it may have unacknowledged.
        """
        message = p.__self__
        channel = message.channel
        if not isinstance(channel, Channel) or p != message.ack_log_error:
            return super().call_soon_ack(p, *args, **kwargs)
        was_full = not channel.qos.can_consume()
        p(*args, **kwargs)
        # Looked at after the acknowledgement: a loop that stops listening from here on has seen it.
        if (was_full or not channel.is_listening) and self.hub is not None:
            self.hub.call_soon(_look_again)
        return None

    def on_unknown_message(self, body: Any, message: Any) -> None:
        self._bury(message, "bad-headers")

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:
        self._bury(message, "unknown-task")

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:
        self._bury(message, "bad-arguments")

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        self._bury(message, "bad-body")

    def _admit(self, message: Any) -> None:
        """Replaces what the message says by what the gate lets through. Raises Poison."""
        admitted = gate.admit(self._queue(message), message.headers, gate.decode(message))
        message.headers = admitted.headers
        message.properties = {"correlation_id": admitted.id, "reply_to": "", "priority": 0}
        # What `request.Request` runs the task with: nobody decodes the body again.
        message._decoded_cache = (admitted.args, admitted.kwargs, {})

    def _queue(self, message: Any) -> str:
        """The queue that the message was taken from, by who delivered it and never by what it says."""
        tag = message.delivery_info.get("consumer_tag")
        if tag is None:
            # Redis: written by our channel from the name of the list.
            return str(message.delivery_info.get("routing_key"))
        active: dict[str, str] = self.task_consumer._active_tags
        return next((queue for queue, known in active.items() if known == tag), "")

    def _bury(self, message: Any, reason: str) -> None:
        raw = getattr(message, "_raw", None) or {"headers": message.headers, "body": str(message.body)}
        try:
            item = dumps(raw).encode()
        except (TypeError, ValueError, RecursionError):
            item = repr(raw).encode("utf-8", "backslashreplace")
        bury_message(self.app, message, self._queue(message), reason, item)
        if not message.acknowledged:
            message.reject_log_error(logger, self.connection_errors)


def _look_again() -> None:
    """The loop asks the channel by itself, once it is awake, whether it may take more."""
