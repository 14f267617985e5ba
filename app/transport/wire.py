"""A Celery message as data, and as what lies in a queue: protocol 2, field for field what Celery itself writes.

Celery takes some 0.5 ms of processor time to publish a message, most of it for choices that are made here once
and for all: JSON, the default exchange, a queue's name as its address, no delay, no result, no stamps. A test
holds what is written here against what `Celery.send_task` writes. The one difference is `reply_to`, which is
empty: nobody waits for a reply.

Pure: nothing here sends, or reads a clock.
"""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

HIDDEN = "-"
"""What events, logs and Flower show for arguments and results."""

CONTENT_TYPE, CONTENT_ENCODING = "application/json", "utf-8"

PERSISTENT = 2
"""AMQP's delivery mode for a message that survives a restart of the broker."""

_encode = json.JSONEncoder(separators=(",", ":")).encode


@dataclass(frozen=True, slots=True)
class Message:
    """One call of a task: where to, which, with what, and what Celery is to carry along.

    `chain` holds signatures with the next link last, `chord` the body that this call counts for.
    """

    queue: str
    task: str
    id: str
    args: Sequence[Any]
    chain: Sequence[Mapping[str, Any]] | None = None
    chord: Mapping[str, Any] | None = None
    group_id: str | None = None
    group_index: int | None = None
    root_id: str | None = None
    parent_id: str | None = None

    @classmethod
    def nudge(cls, queue: str, task: str, *args: Any) -> Message:
        """A call that stands for itself, with an id of its own."""
        return cls(queue, task, str(uuid.uuid4()), args)


def headers(message: Message, origin: str) -> dict[str, Any]:
    """The headers of protocol 2. `origin` names the process that sends, for people."""
    return {
        "lang": "py",
        "task": message.task,
        "id": message.id,
        "shadow": None,
        "eta": None,
        "expires": None,
        "group": message.group_id,
        "group_index": message.group_index,
        "retries": 0,
        "timelimit": [None, None],
        "root_id": message.root_id or message.id,
        "parent_id": message.parent_id,
        "argsrepr": HIDDEN,
        "kwargsrepr": HIDDEN,
        "origin": origin,
        "ignore_result": True,
        "replaced_task_nesting": 0,
        "stamped_headers": None,
        "stamps": {},
    }


def body(message: Message) -> bytes:
    """The body: [args, kwargs, what else Celery is to do]."""
    embed = {"callbacks": None, "errbacks": None, "chain": message.chain, "chord": message.chord}
    return _encode([message.args, {}, embed]).encode()


def item(message: Message, origin: str) -> str:
    """The message as kombu's Redis transport writes it into a list."""
    return _encode(
        {
            "body": base64.b64encode(body(message)).decode(),
            "content-encoding": CONTENT_ENCODING,
            "content-type": CONTENT_TYPE,
            "headers": headers(message, origin),
            "properties": {
                "correlation_id": message.id,
                "reply_to": "",
                "delivery_mode": PERSISTENT,
                "delivery_info": {"exchange": "", "routing_key": message.queue},
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": str(uuid.uuid4()),
            },
        }
    )
