"""Pages by key: a cursor says behind which item to go on, so nothing is lost or seen twice while rows come."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from urllib.parse import urlencode

from flask import request

from app.errors import InvalidInput

Item = TypeVar("Item")

_LONGEST = 400


def encode(place: Sequence[str | int]) -> str:
    """A cursor for a place: opaque, and safe in a URL."""
    return (
        base64.urlsafe_b64encode(json.dumps(list(place), separators=(",", ":")).encode()).decode().rstrip("=")
    )


def decode(cursor: str | None, *kinds: type) -> list[Any] | None:
    """The place that `encode` was given, of values of these kinds; None for none. Raises InvalidInput."""
    if cursor is None:
        return None
    try:
        if len(cursor) > _LONGEST or not cursor.isascii():
            raise ValueError(cursor)
        place = json.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True))
        if not isinstance(place, list) or [type(one) for one in place] != list(kinds):
            raise ValueError(cursor)
        if encode(place) != cursor or not all(_storable(one) for one in place):
            raise ValueError(cursor)
    except (ValueError, binascii.Error, RecursionError):
        detail = "the cursor is not one that we gave"
        hint = "take `next_cursor` of the page before, or leave it out"
        raise InvalidInput(
            detail,
            hint=hint,
            code="bad-cursor",
            errors=[{"pointer": "?cursor", "detail": detail, "hint": hint}],
        ) from None
    return place


def behind(cursor: str | None, kind: type) -> Any:
    """The one value of a cursor that has one, None for no cursor. Raises InvalidInput."""
    place = decode(cursor, kind)
    return place[0] if place else None


def _storable(value: str | int) -> bool:
    if isinstance(value, str):
        return value.isascii() and value.isprintable()
    return abs(value) < 1 << 31


def answer(
    found: Sequence[Item], limit: int, place: Callable[[Item], Sequence[str | int]]
) -> tuple[dict[str, Any], int, dict[str, str]]:
    """What a view returns for rows of which one more than `limit` was asked for."""
    items = found[:limit]
    return _page(items, encode(place(items[-1])) if len(found) > limit else None)


def answer_to(
    items: Sequence[Any], place: Sequence[str | int] | None
) -> tuple[dict[str, Any], int, dict[str, str]]:
    """The same for rows that are a page already, and the place to go on from."""
    return _page(items, None if place is None else encode(place))


def _page(items: Sequence[Any], cursor: str | None) -> tuple[dict[str, Any], int, dict[str, str]]:
    headers = {}
    if cursor is not None:
        query = urlencode({**request.args.to_dict(), "cursor": cursor})
        # Where the next page is, for clients that know RFC 8288.
        headers["Link"] = f'<{request.path}?{query}>; rel="next"'
    return {"items": items, "next_cursor": cursor}, 200, headers
