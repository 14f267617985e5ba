"""What tests put into queues, and how they watch what comes of it."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from fleet import Fleet
from waiting import PATIENCE, wait_until

from app.transport import queues


def shell(command: str, node: str = "web-1", **more: Any) -> str:
    """A workflow of one task `a`; `command` is for a block scalar."""
    lines = "\n".join(f"          {line}" for line in command.splitlines())
    keys = "".join(f"    {key}: {value}\n" for key, value in more.items())
    return (
        "parameters: {effects: {type: string, required: true}, gate: {type: string, default: none}}\n"
        f"tasks:\n  - name: a\n    action: core.shell\n    delegate_to: {node}\n{keys}"
        f"    input:\n      command: |\n{lines}\n"
    )


def message(
    name: str, args: Any = (), *, kwargs: Any = None, embed: Any = None, id: str = "j1", **headers: Any
) -> dict[str, Any]:
    """An envelope as kombu writes it, with whatever is asked for in it."""
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


def changed(item: bytes, **parts: Any) -> dict[str, Any]:
    """A genuine item with parts of it replaced: `embed` and `args` in the body, anything else in the headers."""
    found: dict[str, Any] = json.loads(item)
    args, kwargs, embed = json.loads(base64.b64decode(found["body"]))
    embed = {**embed, **parts.pop("embed", {})}
    body = json.dumps([parts.pop("args", args), kwargs, embed])
    found["body"] = base64.b64encode(body.encode()).decode()
    found["headers"].update(parts)
    return found


@contextmanager
def monitored(fleet: Fleet) -> Iterator[list[tuple[str, str]]]:
    """Every command that Redis executes meanwhile: the client's address, the command with its keys."""
    seen: list[tuple[str, str]] = []
    stop = threading.Event()
    client = fleet.broker.client

    def watch() -> None:
        with suppress(Exception), client.monitor() as monitor:
            while not stop.is_set():
                entry = monitor.next_command()
                seen.append((f"{entry['client_address']}:{entry['client_port']}", entry["command"]))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    wait_until(lambda: client.execute_command("ECHO", "watched") and seen, "MONITOR")
    try:
        yield seen
    finally:
        stop.set()
        client.execute_command("ECHO", "over")
        thread.join(PATIENCE)


def pushes(seen: list[tuple[str, str]]) -> list[str]:
    """The lists that anything was pushed to, but for what a fleet at rest says."""
    keys = [command.split()[1] for _, command in seen if command.split()[0].upper() in ("LPUSH", "RPUSH")]
    return [key for key in keys if key not in ("tick", "heartbeats", "dead")]
