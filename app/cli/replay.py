"""`muster execution replay`: what happened, and whether it is the whole truth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from app.cli.client import Client, api
from app.cli.connection import Call
from app.cli.plain import safe
from app.cli.terminal import Screen

_PAGE = 1000


def replay(call: Call, id_: str, told: Any) -> int:
    """Prints the events and what the server's replay of them came to. Ends with 1 where that is something else.

    `told` makes a line of an event's log.
    """
    found = call.client.get(api("workflow-executions", id_, "replay"))
    if call.json:
        call.show({**found, "items": list(_events(call.client, id_))}, str)
    else:
        screen = Screen()
        for event in _events(call.client, id_):
            words = " ".join(safe(str(event.get(name))) for name in ("seq", "at", "kind"))
            screen.line(f"{words}  {told(event.get('log'))}".rstrip())
        screen.line(_verdict(found))
    return 0 if found.get("is_same") else 1


def _events(client: Client, id_: str) -> Iterator[Mapping[str, Any]]:
    after = 0
    while True:
        page = client.items(api("workflow-executions", id_, "events"), after=after, limit=_PAGE)
        yield from page
        if len(page) < _PAGE:
            return
        after = page[-1]["seq"]


def _verdict(found: Mapping[str, Any]) -> str:
    events, status = found.get("events"), safe(str(found.get("status")))
    if found.get("is_same"):
        return f"replayed {events} events: the same as what is stored, {status}"
    odd = [f"{one.get('place')} {one.get('column')}".strip() for one in found.get("differences") or ()]
    lines = "".join(f"\n  {safe(place)}" for place in odd)
    return f"replayed {events} events: NOT what is stored ({status}), which differs in{lines}"
