"""Messages as any sender may write them, and what became of them."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from real_fleet import Broker

from app.transport import queues


def notes(directory: Path, what: str | None = None) -> list[dict[str, Any]]:
    path = directory / "notes"
    lines = path.read_text().splitlines() if path.exists() else []
    found = [json.loads(line) for line in lines]
    return [each for each in found if what in (None, each["what"])]


def message(
    name: str, args: Any = (), *, kwargs: Any = None, embed: Any = None, id: str = "j1", **headers: Any
) -> dict[str, Any]:
    """An envelope as a kombu sender writes it, with whatever is asked for in it."""
    body = json.dumps([args, {} if kwargs is None else kwargs, {} if embed is None else embed])
    return {
        "body": base64.b64encode(body.encode()).decode(),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {"lang": "py", "task": name, "id": id, "retries": 0, "root_id": id, **headers},
        "properties": {
            "delivery_info": {"exchange": "", "routing_key": queues.RESULTS},
            "delivery_tag": f"tag-{id}",
            "body_encoding": "base64",
            "priority": 0,
            "reply_to": "",
            "correlation_id": id,
        },
    }


def push(broker: Broker, queue: str, item: Any) -> None:
    broker.client.lpush(queue, item if isinstance(item, bytes | str) else json.dumps(item))


def dead(broker: Broker) -> list[dict[str, Any]]:
    return [json.loads(item) for item in broker.client.lrange("dead", 0, -1)]


GOOD = message(queues.COLLECT, ["ok"])
