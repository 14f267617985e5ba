"""The state of a flow as JSON: what goes there, and what comes back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from app.errors import InvalidInput
from app.language.jsonable import STATE_DEPTH, misfit

MOST_BYTES = 64 << 20
"""The largest state, either way: what the tool takes."""


class NotJson(InvalidInput):
    """A value that JSON cannot hold; the message names the flow and the path."""

    code = "state-not-json"


def check(flow: str, state: Mapping[str, Any]) -> None:
    """Raises NotJson where the state of a flow is none, which names the flow and the path."""
    found = misfit(state, STATE_DEPTH)
    if found is not None:
        raise NotJson(f"the state of flow {flow} is not JSON: {found[0]} {found[1]}")


def to_json(flow: str, state: Mapping[str, Any]) -> bytes:
    """The state of a flow as UTF-8. Raises NotJson."""
    check(flow, state)
    text = json.dumps(state, ensure_ascii=False, separators=(",", ":")).encode()
    if len(text) > MOST_BYTES:
        raise NotJson(f"the state of flow {flow} has {len(text)} bytes, {MOST_BYTES} are allowed")
    return text


def from_json(text: bytes, child: str) -> Mapping[str, Any]:
    """What a tool left of a state: a map with `task`, in which what it says of `child` can be kept, and an `error`.
    Raises InvalidInput."""
    try:
        found = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as problem:
        raise InvalidInput(f"the result of the flow is not JSON: {problem}", code="bad-result") from None
    if not isinstance(found, dict) or not isinstance(found.get("task"), dict):
        raise InvalidInput("the result of the flow has no `task`", code="bad-result")
    # `1e999` is a number to json.loads and infinite, and a database refuses it.
    odd = misfit({"task": {child: found["task"].get(child)}, "error": found.get("error")}, STATE_DEPTH)
    if odd is not None:
        raise InvalidInput(f"the result of the flow: {odd[0]} {odd[1]}", code="bad-result")
    return found


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")
