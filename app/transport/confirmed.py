"""One connection to RabbitMQ for whoever publishes: messages go out together, then the broker's word is awaited.

Without that word a message that was refused, or went to no queue, is lost in silence. kombu waits for it after every
message; here what leaves together costs one wait.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import kombu

from app.errors import Unavailable
from app.transport import wire
from app.transport.wire import Message

PATIENCE = 5.0
"""Seconds to wait for the word of a broker that is there: one that is short of memory or disk says nothing."""

_SHORT = "it may be short of memory or disk: `rabbitmqctl list_alarms`"


class NotTaken(Unavailable):
    """RabbitMQ refused a message, had no queue for it, or gave no word."""


class ConfirmedLine:
    """A connection that `connect` makes when it is first needed, in each process anew. Thread safe.

    `find` gives the declaration of a queue by its name.
    """

    def __init__(self, connect: Callable[[], kombu.Connection], find: Callable[[str], kombu.Queue]) -> None:
        self._connect = connect
        self._find = find
        self._ends: dict[int, _End] = {}

    def send(self, messages: Sequence[Message], origin: str) -> None:
        """Publishes the messages in order; `origin` is for their headers.

        Raises NotTaken for what was refused, found no queue or got no word, and what py-amqp raises where the broker is
        away or forbids it: then any of the messages may have been taken.
        """
        # A fork's child may use neither its parent's connection nor its lock.
        end = self._ends.setdefault(os.getpid(), _End(self._connect, self._find))
        with end.lock:
            try:
                lost = end.publish(messages, origin)
                if lost:
                    # Somebody has deleted a queue since it was declared.
                    end.declared -= lost
                    lost = end.publish([each for each in messages if each.queue in lost], origin)
            except BaseException:
                # Words may still be under way, and would be taken for those about the next messages.
                end.disconnect()
                raise
        if lost:
            raise NotTaken(
                f"RabbitMQ has no queue {min(lost)!r}", hint="start a control worker: it makes them"
            )

    def close(self) -> None:
        """Ends this process' connection; whoever sends after that makes another."""
        end = self._ends.get(os.getpid())
        if end is not None:
            with end.lock:
                end.disconnect()


class _End:
    """What one process has of a line."""

    def __init__(self, connect: Callable[[], kombu.Connection], find: Callable[[str], kombu.Queue]) -> None:
        self.lock = threading.Lock()
        self.declared: set[str] = set()
        self._connect = connect
        self._find = find
        self._connection: Any = None
        self._channel: Any = None
        self._sent = 0
        # Numbers of messages that the broker has said nothing about yet.
        self._unconfirmed: set[int] = set()
        self._refused = False
        self._returned: set[str] = set()

    def publish(self, messages: Sequence[Message], origin: str) -> set[str]:
        """Publishes and waits for the broker's word; returns the names of queues that it does not have."""
        channel = self._open()
        self._returned.clear()
        for message in messages:
            queue = self._declared(message.queue)
            packed = channel.prepare_message(
                wire.body(message),
                priority=0,
                content_type=wire.CONTENT_TYPE,
                content_encoding=wire.CONTENT_ENCODING,
                headers=wire.headers(message, origin),
                properties={
                    "delivery_mode": wire.PERSISTENT,
                    "correlation_id": message.id,
                    "reply_to": "",
                },
            )
            self._sent += 1
            self._unconfirmed.add(self._sent)
            channel.basic_publish(
                packed, queue.exchange.name, queue.routing_key, mandatory=True, timeout=PATIENCE
            )
        self._await()
        return set(self._returned)

    def disconnect(self) -> None:
        """Leaves the connection without a word; the next message makes another."""
        if self._connection is not None:
            self._connection.collect()
        self._connection = self._channel = None
        self.declared.clear()

    def _open(self) -> Any:
        if self._channel is None:
            self._connection = self._connect()
            self._channel = self._connection.channel()
            self._channel.confirm_select()
            self._channel.events["basic_ack"].add(self._on_word)
            self._channel.events["basic_nack"].add(self._on_refusal)
            self._channel.events["basic_return"].add(self._on_return)
            self._sent = 0
            self._unconfirmed.clear()
            self._refused = False
        return self._channel

    def _declared(self, name: str) -> kombu.Queue:
        queue = self._find(name)
        if name not in self.declared and not queue.no_declare:
            queue(self._channel).declare()
            self.declared.add(name)
        return queue

    def _await(self) -> None:
        end = time.monotonic() + PATIENCE
        while self._unconfirmed:
            try:
                self._connection.drain_events(timeout=max(0.001, end - time.monotonic()))
            except TimeoutError:
                raise NotTaken(f"RabbitMQ gave no word within {PATIENCE:g} s", hint=_SHORT) from None
        if self._refused:
            raise NotTaken(
                "RabbitMQ refused a message",
                hint="a queue may be full, or its machine away: its log says why",
            )

    def _on_word(self, tag: int, multiple: bool) -> None:
        if multiple:
            self._unconfirmed = {other for other in self._unconfirmed if other > tag}
        else:
            self._unconfirmed.discard(tag)

    def _on_refusal(self, tag: int, multiple: bool) -> None:
        self._refused = True
        self._on_word(tag, multiple)

    def _on_return(self, _error: Any, _exchange: str, routing_key: str, _message: Any) -> None:
        self._returned.add(routing_key)
