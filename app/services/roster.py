"""The machines as the engine sees them, read from the database at most once a second a process."""

from __future__ import annotations

import threading
import time
from functools import reduce
from operator import add
from typing import Any

from sqlalchemy import Connection, Text, cast, func, literal_column, select

from app.engine.state import Node
from app.store.prepared import Query
from app.store.tables import Node as NodeRow
from app.store.tables import table

nodes = table(NodeRow)


def _node(name: str, shells: list[str], labels: dict[str, str] | None, address: str, state: str) -> Node:
    return Node(name, tuple(shells or ("bash", "sh")), labels or {}, address, state)


_columns = [nodes.c[name] for name in ("name", "shells", "labels", "address", "state")]
_select = Query(select(*_columns), _node)
_texts = [func.coalesce(cast(column, Text), literal_column("''")) for column in _columns]
_lines = select(reduce(add, _texts).label("line")).order_by(nodes.c.name).subquery()
_BETWEEN: Any = literal_column("';'")
_told = Query(select(func.aggregate_strings(_lines.c.line, _BETWEEN)), str)
"""All of that as one text in one row: with SQLite each row is a switch from one thread to another."""

FRESH_FOR = 1.0
"""Seconds that a reading may be used: labels and shells change rarely, and a submission reads anew."""


class Roster:
    """Every node by name. Thread safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._read_at = float("-inf")
        self._told: str | None = None
        self._nodes: dict[str, Node] = {}

    def nodes(self, connection: Connection, *, anew: bool = False) -> dict[str, Node]:
        """All nodes. A node that never said which shells it has is taken to have bash and sh."""
        with self._lock:
            if anew or time.monotonic() - self._read_at > FRESH_FOR:
                told = _told.first(connection)
                # They are hundreds, are read for every submission, and hardly ever change.
                if told != self._told:
                    self._nodes = {node.name: node for node in _select.all(connection)}
                    self._told = told
                self._read_at = time.monotonic()
            return self._nodes
