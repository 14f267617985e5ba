"""A Redis channel that no item in a queue can kill, and the queue of the dead.

A stock worker ends with "Unrecoverable error", or reconnects for ever, for these; and this is where each
is closed:

    item in the list                      where stock Celery breaks         closed by
    `not json`, bytes that are no UTF-8   loads() in _brpop_read            envelope(), before delivery
    nesting 100,000 deep                  loads(): RecursionError           envelope()
    `[]`, `null`, a number                Message(): no ["properties"]      envelope()
    an object without properties          Message(): KeyError, "reconnect"  envelope()
    a body that is no base64              Message(): binascii.Error         envelope()
    a compressed body                     decompress(): a bomb              envelope()
    pickle, another content type          ContentDisallowed, dropped        envelope()
    headers without task or id            Request(): KeyError, "reconnect"  gate.admit() in worker.Consumer
    a body that is no [args, kwargs, ..]  Request() or the pool's thread    gate.admit() in worker.Consumer
    a task that is not registered         result under a chosen id          worker.Consumer.on_unknown_task

All of them go to the list `dead`, with the reason, and are counted. kombu also believes what an item says of
where it came from, and pushes it *there* when it is restored: an item on `results` could name `node.web-1` or
`control`. And it files unacknowledged items under the item's own delivery tag, so a copied tag hides another
message. Both are written anew from the list that the item was taken from.

What is taken and not acknowledged lies in one hash, by tags that say when it was taken (decision 008). A worker
whose app sets `ack_emulation` to False keeps no such hash.
"""

from __future__ import annotations

import binascii
import hashlib
import itertools
import json
import logging
import math
import secrets
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from queue import Empty
from typing import Any

import kombu
from celery.utils.dispatch import Signal
from kombu.transport import redis as kombu_redis
from kombu.transport import virtual
from kombu.utils.encoding import bytes_to_str

from app.transport import rabbit
from app.transport.gate import Poison
from app.transport.line import Command, Line
from app.transport.queues import DEAD

logger = logging.getLogger(__name__)

DEAD_KEPT = 1000
"""How many dead items are kept, the newest."""

DEAD_COUNTS = "dead:counts"
"""A Redis hash: `<queue>|<reason>` to the number of items ever buried."""

dead_lettered = Signal(name="dead_lettered", providing_args={"queue", "reason", "item"})
"""Sent in the worker that buried an item: queue (text), reason (a Poison code), item (bytes). For audit and
metrics; connect with `weak=False`. A receiver that raises is logged and changes nothing."""

_DEAD_QUEUE = kombu.Queue(
    DEAD, kombu.Exchange(""), routing_key=DEAD, queue_arguments={"x-max-length": DEAD_KEPT}
)
_ITEM_BYTES = 8_000_000
_SHOWN_BYTES = 8_192
_PROCESS = secrets.token_hex(4)
_numbers = itertools.count()


def envelope(item: bytes, queue: str) -> dict[str, Any]:
    """The message that `item`, taken from `queue`, holds: what kombu expects, with our delivery tag and
    origin.

    Raises Poison with code `too-large`, `not-json`, `not-an-envelope`, `bad-content-type`, `compressed` or
    `bad-body`.
    """
    if len(item) > _ITEM_BYTES:
        raise Poison(f"an item of {len(item)} bytes", code="too-large")
    try:
        # Not kombu's decoder, which makes objects of what calls itself so, and asks of every mapping.
        payload = json.loads(item.decode())
    except (ValueError, RecursionError) as error:
        raise Poison(f"no JSON: {type(error).__name__}", code="not-json") from None
    if not isinstance(payload, dict):
        raise Poison(f"a {type(payload).__name__}, not an object", code="not-an-envelope")
    properties, headers, body = payload.get("properties"), payload.get("headers"), payload.get("body")
    if not (isinstance(properties, dict) and isinstance(headers, dict) and isinstance(body, str)):
        raise Poison("no properties, headers or body", code="not-an-envelope")
    if (payload.get("content-type"), payload.get("content-encoding")) != ("application/json", "utf-8"):
        raise Poison("no JSON in UTF-8", code="bad-content-type")
    if headers.get("compression"):
        raise Poison("a compressed body", code="compressed")
    if properties.get("body_encoding") != "base64":
        raise Poison("a body that is no base64", code="bad-body")
    try:
        binascii.a2b_base64(body.encode(), strict_mode=True)
    except ValueError:
        raise Poison("a body that is no base64", code="bad-body") from None
    origin = properties.get("delivery_info")
    again = isinstance(origin, dict) and origin.get("redelivered") is True
    properties["delivery_tag"] = new_tag()
    properties["priority"] = 0
    properties["delivery_info"] = {"exchange": "", "routing_key": queue, "redelivered": again}
    return payload


def new_tag() -> str:
    """A delivery tag: those that are given out later sort after it."""
    return f"{time.time_ns():020d}.{next(_numbers):010d}.{_PROCESS}"


def taken_at(tag: str) -> float:
    """When the message with this tag was taken, in Unix seconds; infinity for a tag that is none of ours."""
    digits = tag.partition(".")[0]
    return int(digits) / 1e9 if len(digits) == 20 and digits.isascii() and digits.isdecimal() else math.inf


class QoS(kombu_redis.QoS):
    """What was taken and not acknowledged: one command to note a message, one to forget it.

    kombu keeps a sorted set of times beside the hash, so each of them is a transaction there. Our tags hold the
    time, and the hash of one worker is short. What is to be forgotten is sent together with what is noted next,
    and before the worker asks for another message: an acknowledgement may so wait as long as one BRPOP does.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._forgotten: deque[str] = deque()

    def append(self, message: Any, delivery_tag: str) -> None:
        origin = message.delivery_info
        kept = json.dumps([message._raw, origin["exchange"], origin["routing_key"]], separators=(",", ":"))
        # Not waited for: a process that dies now has sent it, and whoever looks at the hash waits for what was sent.
        self.post([("HSET", self.unacked_key, delivery_tag, kept)])
        virtual.QoS.append(self, message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        self._forgotten.append(delivery_tag)
        virtual.QoS.ack(self, delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        if requeue:
            self.restore_by_tag(delivery_tag, leftmost=True)
            virtual.QoS.ack(self, delivery_tag)
        else:
            self.ack(delivery_tag)

    def post(self, commands: Sequence[Command] = ()) -> None:
        """Sends the commands, after what has been acknowledged is forgotten. Raises what redis-py raises.

        An acknowledgement that is lost so is harmless: the message is handed out twice.
        """
        wanted = [*self._forget(), *commands]
        if wanted:
            self.channel.line.post(wanted)

    def write(self) -> None:
        """Has the hash as it is to be: noted what was taken, forgotten what was acknowledged."""
        self.channel.line.call(self._forget())

    def _forget(self) -> list[Command]:
        gone = []
        while self._forgotten:
            gone.append(self._forgotten.popleft())
        return [("HDEL", self.unacked_key, *gone)] if gone else []

    def restore_by_tag(self, tag: str, client: Any = None, leftmost: bool = False) -> None:
        self.write()
        super().restore_by_tag(tag, client, leftmost)

    def restore_visible(self, start: int = 0, num: int = 10, interval: int = 10) -> None:
        """Hands out again what was taken longer ago than the visibility timeout."""
        with self.channel.conn_or_acquire() as client:
            before = time.time() - self.visibility_timeout
            # Each is pushed to the end that is read next, so the oldest goes last.
            for tag in reversed(self.tags(client)):
                if taken_at(tag) < before:
                    self.restore_by_tag(tag, client)

    def tags(self, client: Any) -> list[str]:
        """The tags of all that is not acknowledged, oldest first."""
        self.write()
        return sorted(bytes_to_str(tag) for tag in client.hkeys(self.unacked_key))

    def _remove_from_indices(self, delivery_tag: str, pipe: Any = None) -> Any:
        with self.pipe_or_acquire(pipe) as pipe:
            return pipe.hdel(self.unacked_key, delivery_tag)


class Channel(kombu_redis.Channel):
    """kombu's Redis channel, with every item looked at between the list and the consumer."""

    QoS = QoS

    @cached_property
    def line(self) -> Line:
        """The connection for what every message costs."""
        return Line(lambda: self.pool.get_connection())

    @property
    def is_listening(self) -> bool:
        """Whether Redis has been asked for another message and has not answered."""
        return bool(self._in_poll)

    @cached_property
    def _shared_client(self) -> Any:
        return self._create_client()

    @contextmanager
    def conn_or_acquire(self, client: Any = None) -> Iterator[Any]:
        # kombu makes a client each time, which takes longer than most commands. A client may be shared by threads.
        yield client or self._shared_client

    def _brpop_start(self, timeout: float | None = None) -> None:
        if isinstance(self._qos, QoS):
            self._qos.post()
        super()._brpop_start(timeout)

    def close(self) -> None:
        if not self.closed:
            try:
                if isinstance(self._qos, QoS):
                    self._qos.write()
            except self.connection_errors:
                logger.warning("what was acknowledged last may be handed out again: the broker is away")
        super().close()

    def _restore(self, message: Any, leftmost: bool = False) -> None:
        if self.ack_emulation:
            super()._restore(message, leftmost)
            return
        # kombu would write the message anew from the headers that the gate has replaced.
        queue = message._raw["properties"]["delivery_info"]["routing_key"]
        with self.conn_or_acquire() as client:
            self._do_restore_message(message._raw, "", queue, client, leftmost)

    def _disconnect_pools(self) -> None:
        # Both are made of the pool that goes now, and of a new one when they are needed again.
        self.__dict__.pop("line", None)
        self.__dict__.pop("_shared_client", None)
        super()._disconnect_pools()

    def _brpop_read(self, **options: Any) -> bool:
        # kombu's method with our decoding: there an item is lost when loads() raises.
        try:
            try:
                taken = self.client.parse_response(self.client.connection, "BRPOP", **options)
            except self.connection_errors:
                self.client.connection.disconnect()
                raise
            if not taken:
                raise Empty()
            queue = bytes_to_str(taken[0]).rsplit(self.sep, 1)[0]
            self._queue_cycle.rotate(queue)
            try:
                payload = envelope(taken[1], queue)
            except Poison as poison:
                bury(self, queue, poison.code, taken[1])
            else:
                self.connection._deliver(payload, queue)
            return True
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()

    def _get(self, queue: str) -> dict[str, Any]:
        with self.conn_or_acquire() as client:
            for priority in self.priority_steps:
                while item := client.rpop(self._q_for_pri(queue, priority)):
                    try:
                        return envelope(item, queue)
                    except Poison as poison:
                        bury(self, queue, poison.code, item)
        raise Empty()


class Transport(kombu_redis.Transport):
    Channel = Channel


class Connection(kombu.Connection):
    """kombu's connection, with our transports in place of kombu's own, however the URL spells them."""

    def get_transport_cls(self) -> Any:
        found = super().get_transport_cls()
        return Transport if found is kombu_redis.Transport else rabbit.OURS.get(found, found)


def bury(to: Any, queue: str, reason: str, item: bytes) -> None:
    """Moves an item that was taken from `queue` to the dead, newest first, and counts it.

    `to` is a Redis channel, or a kombu Producer where the broker is another. Never raises for want of rights
    or room: a node may not write `dead`, and a full broker takes nothing. Then the log has it.
    """
    record = {
        "queue": queue,
        "reason": reason,
        "at": time.time(),
        "bytes": len(item),
        "sha256": hashlib.sha256(item).hexdigest(),
        "item": item[:_SHOWN_BYTES].decode("utf-8", "backslashreplace"),
    }
    try:
        if isinstance(to, kombu_redis.Channel):
            _push(to, json.dumps(record), f"{queue}|{reason}")
        else:
            to.publish(record, exchange="", routing_key=DEAD, declare=[_DEAD_QUEUE], serializer="json")
    except Exception as error:  # noqa: BLE001 - the edge: whatever a broker says to it, the worker goes on
        logger.error("dead letter from %s could not be kept: %s", queue, type(error).__name__)
    _tell(queue, reason, item)


def _tell(queue: str, reason: str, item: bytes) -> None:
    sha256 = hashlib.sha256(item).hexdigest()
    logger.warning("dead letter from %s: %s (sha256 %s)", queue, reason, sha256)
    dead_lettered.send(sender=queue, queue=queue, reason=reason, item=item)


def bury_message(app: Any, message: Any, queue: str, reason: str, item: bytes) -> None:
    """`bury` for a message that `app` took from `queue`, whatever the broker is."""
    if isinstance(message.channel, Channel):
        bury(message.channel, queue, reason, item)
    elif app.muster.role == "node":
        # It has no right to write there, and RabbitMQ closes the channel of one who tries.
        _tell(queue, reason, item)
    else:
        # Another connection: to wait for the broker's word on this one would hand out messages meanwhile.
        with app.producer_or_acquire() as producer:
            bury(producer, queue, reason, item)


def _push(channel: Any, record: str, count: str) -> None:
    with channel.conn_or_acquire() as client, client.pipeline() as pipe:
        pipe.lpush(DEAD, record)
        pipe.ltrim(DEAD, 0, DEAD_KEPT - 1)
        pipe.hincrby(DEAD_COUNTS, count, 1)
        pipe.execute()
