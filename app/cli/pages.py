"""Lists that the server gives in pages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.cli.client import Client

_PAGE = 100


def newest(client: Client, path: str, limit: int, **query: Any) -> tuple[list[Mapping[str, Any]], str | None]:
    """The first so many items at a path, and the cursor to go on from if there are more."""
    items: list[Mapping[str, Any]] = []
    cursor = None
    while len(items) < limit:
        page = client.get(path, **query, limit=min(limit - len(items), _PAGE), cursor=cursor)
        items += page.get("items") or ()
        cursor = page.get("next_cursor")
        if not cursor:
            break
    return items, cursor
