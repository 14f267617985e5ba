"""Puts messages of ours into queues, many at once: in one write to Redis, behind one wait on RabbitMQ."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import kombu
from amqp.exceptions import RecoverableConnectionError
from celery import Celery
from celery.utils.nodenames import anon_nodename
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from app.transport import wire
from app.transport.channel import Transport
from app.transport.confirmed import ConfirmedLine
from app.transport.line import Line
from app.transport.wire import Message

AGAIN_AFTER = (0.2, 0.4, 0.6)
"""Seconds before a broker that was away is tried once more, and again: it may only be starting anew."""

AWAY = (RedisConnectionError, RedisTimeoutError, RecoverableConnectionError, OSError)


class Publisher:
    """Publishes for one Celery app, to the queues that the app may send to. Thread safe."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._line = Line(self._connect)
        self._confirmed = ConfirmedLine(self._connect_confirmed, lambda name: app.amqp.queues[name])

    def send(self, messages: Sequence[Message]) -> None:
        """Publishes the messages in order.

        Raises KeyError for a queue that the app may not send to, with nothing sent. Raises whatever the broker's
        client raises where the broker is away or refuses: then any of the messages may have been taken, and to
        send them again is right.
        """
        for message in messages:
            self._app.amqp.queues[message.queue]
        send = self._push if self._is_redis else self._confirm
        for wait in AGAIN_AFTER:
            try:
                send(messages)
                return
            except AWAY:
                time.sleep(wait)
        send(messages)

    def close(self) -> None:
        """Ends the connection that waits for RabbitMQ's word; whoever sends after that makes another."""
        self._confirmed.close()

    @cached_property
    def _is_redis(self) -> bool:
        return self._app.connection_for_write().get_transport_cls() is Transport

    def _push(self, messages: Sequence[Message]) -> None:
        origin = anon_nodename()
        self._line.call([("LPUSH", message.queue, wire.item(message, origin)) for message in messages])

    def _confirm(self, messages: Sequence[Message]) -> None:
        self._confirmed.send(messages, anon_nodename())

    def _connect(self) -> Any:
        """A connection to Redis with all that kombu makes of the broker's URL and options."""
        transport = self._app.connection_for_write().transport
        established = transport.establish_connection()
        try:
            return transport.create_channel(established).pool.get_connection()
        finally:
            transport.close_connection(established)

    def _connect_confirmed(self) -> kombu.Connection:
        """A connection to RabbitMQ on which nothing waits by itself."""
        given = self._app.connection_for_write()
        connection: kombu.Connection = given.clone(
            transport_options={**given.transport_options, "confirm_publish": False}
        )
        connection.connect()
        return connection
