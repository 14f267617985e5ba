"""Puts messages of ours into queues, many at once: through one connection on Redis, through kombu on RabbitMQ."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from celery import Celery
from celery.utils.nodenames import anon_nodename
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from app.transport import wire
from app.transport.channel import Transport
from app.transport.line import Line
from app.transport.wire import Message

AGAIN_AFTER = (0.2, 0.4, 0.6)
"""Seconds before a Redis that was away is tried once more, and again: it may only be starting anew."""


class Publisher:
    """Publishes for one Celery app, to the queues that the app may send to. Thread safe."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._line = Line(self._connect)

    def send(self, messages: Sequence[Message]) -> None:
        """Publishes the messages in order.

        Raises KeyError for a queue that the app may not send to, with nothing sent. Raises whatever the broker's
        client raises where the broker is away or refuses: then any of the messages may have been taken, and to
        send them again is right.
        """
        for message in messages:
            self._app.amqp.queues[message.queue]
        if self._is_redis:
            self._push(messages)
        else:
            self._publish(messages)

    @cached_property
    def _is_redis(self) -> bool:
        return self._app.connection_for_write().get_transport_cls() is Transport

    def _push(self, messages: Sequence[Message]) -> None:
        origin = anon_nodename()
        commands = [("LPUSH", message.queue, wire.item(message, origin)) for message in messages]
        for wait in AGAIN_AFTER:
            try:
                self._line.call(commands)
                return
            except (RedisConnectionError, RedisTimeoutError, OSError):
                time.sleep(wait)
        self._line.call(commands)

    def _connect(self) -> Any:
        """A connection to Redis with all that kombu makes of the broker's URL and options."""
        transport = self._app.connection_for_write().transport
        established = transport.establish_connection()
        try:
            return transport.create_channel(established).pool.get_connection()
        finally:
            transport.close_connection(established)

    def _publish(self, messages: Sequence[Message]) -> None:
        origin, policy = anon_nodename(), self._app.conf.task_publish_retry_policy
        with self._app.producer_or_acquire() as producer:
            for message in messages:
                producer.publish(
                    wire.body(message),
                    exchange="",
                    routing_key=message.queue,
                    declare=[self._app.amqp.queues[message.queue]],
                    content_type=wire.CONTENT_TYPE,
                    content_encoding=wire.CONTENT_ENCODING,
                    headers=wire.headers(message, origin),
                    delivery_mode=wire.PERSISTENT,
                    correlation_id=message.id,
                    reply_to="",
                    retry=True,
                    retry_policy=policy,
                )
