"""One SSH node at work: a node's station as everywhere, here in the gateway, with threads of its own.

The worker itself only sorts what comes: a machine that hangs holds up its own orders and nobody else's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from app.gateway.lane import Lane
from app.node.lines import in_a_thread
from app.node.station import Station
from app.transport.gate import Canvas

log = logging.getLogger(__name__)

WAITING = 256
"""Orders of one node that wait for a slot here. Control hands over two for each slot: more is somebody else's doing."""


class Post:
    """Takes what is meant for one node. Its methods return at once, but for `close`."""

    def __init__(self, station: Station) -> None:
        name = station.identity.node
        self.station = station
        self._orders = Lane(f"{name}-order", station.settings.node_slots, WAITING)
        self._words = Lane(f"{name}-ctl", 1, WAITING)
        station.spread = self._spread

    def order(self, token: Any, canvas: Canvas) -> None:
        """An order to run a job. What finds no room is sent again by control: nobody has promised it."""
        if not self._orders.put(self.station.run, token, canvas):
            log.warning("an order for %s found no room", self.station.identity.node)

    def _spread(self, what: Callable[[], None]) -> None:
        if not self._orders.put(what):
            # It is promised already. Once all is closed it lets go at once, and whoever comes next takes it up.
            in_a_thread(what)

    def obey(self, token: Any) -> None:
        """An order about jobs."""
        if not self._words.put(self.station.obey, token):
            log.warning("a word to %s found no room", self.station.identity.node)

    def release(self) -> None:
        """Nothing more is begun, and whoever waits for a script lets go. The scripts go on."""
        self._orders.close()
        self._words.close()
        self.station.release()

    def close(self) -> None:
        """Say what is left to say, then go."""
        self.release()
        self.station.close()
