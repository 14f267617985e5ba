"""The machines as the engine sees them, read from the database at most once a second a process."""

from __future__ import annotations

import threading
import time

from sqlalchemy import Connection, select

from app.engine.state import Node
from app.store.prepared import Query
from app.store.tables import Node as NodeRow
from app.store.tables import table

nodes = table(NodeRow)


def _node(name: str, shells: list[str], labels: dict[str, str] | None, address: str, state: str) -> Node:
    return Node(name, tuple(shells or ("bash", "sh")), labels or {}, address, state)


_select = Query(select(nodes.c.name, nodes.c.shells, nodes.c.labels, nodes.c.address, nodes.c.state), _node)

FRESH_FOR = 1.0
"""Seconds that a reading may be used: labels and shells change rarely, and a submission reads anew."""


class Roster:
    """Every node by name. Thread safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._read_at = float("-inf")
        self._nodes: dict[str, Node] = {}

    def nodes(self, connection: Connection, *, anew: bool = False) -> dict[str, Node]:
        """All nodes. A node that never said which shells it has is taken to have bash and sh."""
        with self._lock:
            if anew or time.monotonic() - self._read_at > FRESH_FOR:
                self._nodes = {node.name: node for node in _select.all(connection)}
                self._read_at = time.monotonic()
            return self._nodes
