"""What lies in the queues of a test's fleet, on Redis and on RabbitMQ: put in, looked at, taken out.

An item is the bytes of an envelope as kombu writes it for Redis, on RabbitMQ as well.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from amqp.exceptions import NotFound
from fleet import Fleet
from fleet_items import monitored, pushes
from rabbit import rabbitmqctl


def push(fleet: Fleet, queue: str, *items: Any) -> None:
    """Puts items in, in order: dictionaries or bytes of envelopes; on Redis whatever one likes."""
    raw = [item if isinstance(item, bytes | str) else json.dumps(item) for item in items]
    if fleet.rabbit is None:
        fleet.broker.client.lpush(queue, *raw)
        return
    with fleet.rabbit.channel() as channel:
        for item in map(json.loads, raw):
            properties = {name: item["properties"][name] for name in ("reply_to", "correlation_id")}
            packed = channel.prepare_message(
                base64.b64decode(item["body"]),
                content_type=item["content-type"],
                content_encoding=item["content-encoding"],
                headers=item["headers"],
                properties=properties,
            )
            channel.basic_publish(packed, exchange="", routing_key=queue)


def take(fleet: Fleet, queue: str) -> list[bytes]:
    """Takes out all that waits, what is handed out next first."""
    if fleet.rabbit is None:
        return list(fleet.broker.client.rpop(queue, 100_000) or ())
    found: list[bytes] = []
    with fleet.rabbit.channel() as channel, suppress(NotFound):
        while (message := channel.basic_get(queue, no_ack=True)) is not None:
            found.append(_envelope(message))
    return found


def length(fleet: Fleet, queue: str) -> int:
    """How many messages wait to be taken."""
    return fleet.rabbit.length(queue) if fleet.rabbit else int(fleet.broker.client.llen(queue))


def exists(fleet: Fleet, queue: str) -> bool:
    return fleet.rabbit.exists(queue) if fleet.rabbit else bool(fleet.broker.client.exists(queue))


def purge(fleet: Fleet, *queues: str) -> int:
    """Throws away what waits; how many messages or, on Redis, queues that were."""
    if fleet.rabbit is None:
        return int(fleet.broker.client.delete(*queues))
    return sum(map(fleet.rabbit.purge, queues))


def at_rest(fleet: Fleet) -> bool:
    """Nothing lies in a queue or is at work in control."""
    if fleet.rabbit is None:
        client = fleet.broker.client
        waits = any(client.llen(key) for key in ("results", "control"))
        return not waits and not client.hlen("unacked:control")
    if length(fleet, "results") or length(fleet, "control"):
        return False
    contents = fleet.rabbit.contents()
    return not any(contents.get(queue) for queue in ("results", "control"))


@contextmanager
def published(fleet: Fleet) -> Iterator[Callable[[], list[str]]]:
    """The queues that anything is sent to meanwhile, by whomsoever, but for what a fleet at rest says."""
    if fleet.rabbit is None:
        with monitored(fleet) as seen:
            yield lambda: pushes(seen)
        return
    with fleet.rabbit.channel() as channel:
        queue = channel.queue_declare(exclusive=True).queue
        channel.queue_bind(queue, "amq.rabbitmq.trace", "publish.#")
        rabbitmqctl("trace_on", "-p", fleet.rabbit.vhost)
        found: list[str] = []

        def told() -> list[str]:
            while (message := channel.basic_get(queue, no_ack=True)) is not None:
                found.extend(message.properties["application_headers"]["routing_keys"])
            return [key for key in found if key not in _AT_REST]

        try:
            yield told
        finally:
            rabbitmqctl("trace_off", "-p", fleet.rabbit.vhost)


_AT_REST = ("tick", "heartbeats", "dead")


def _envelope(message: Any) -> bytes:
    properties = dict(message.properties)
    headers = properties.pop("application_headers", {})
    body = message.body.encode() if isinstance(message.body, str) else bytes(message.body)
    return json.dumps(
        {
            "body": base64.b64encode(body).decode(),
            "content-type": properties.pop("content_type", None),
            "content-encoding": properties.pop("content_encoding", None),
            "headers": headers,
            "properties": {"body_encoding": "base64", "reply_to": "", **properties},
        }
    ).encode()
