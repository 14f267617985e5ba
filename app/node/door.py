"""Where orders are opened: what is not for this node, or not from control, comes no further, and is counted."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from typing import Any

from app.node.identity import Identity
from app.transport.messages import ORDER_VERSION, READABLE_VERSIONS, Order
from app.transport.sealing import Refused, open_order

log = logging.getLogger(__name__)


class Door:
    """Opens orders for one node and one journal. `refused` counts messages that were not obeyed."""

    def __init__(self, identity: Identity, epoch: str) -> None:
        self._identity = identity
        self._epoch = epoch
        self._lock = threading.Lock()
        self.refused = 0

    def open(self, token: Any) -> Order | None:
        """The order that has just come; None for one that is refused."""
        try:
            return self._opened(token, time.time(), (ORDER_VERSION,))
        except Refused as refused:
            self.refuse(f"{refused.code}: {refused.message}")
            return None

    def reopen(self, token: str, accepted_at: float) -> Order:
        """An order that was accepted then (Unix seconds). Raises Refused."""
        return self._opened(token, accepted_at, READABLE_VERSIONS)

    def _opened(self, token: Any, now: float, versions: Sequence[int]) -> Order:
        mine = self._identity
        return open_order(
            token,
            mine.keys,
            mine.control,
            installation=mine.installation,
            node=mine.node,
            epoch=self._epoch,
            now=now,
            versions=versions,
        )

    def refuse(self, why: str) -> None:
        """Count a message that was not obeyed: heartbeats say how many, and control keeps it on record."""
        with self._lock:
            self.refused += 1
        log.warning("refused an order: %s", why)
