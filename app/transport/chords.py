"""The result backend of control and of whoever sends canvases: it counts the members of chords in Redis.

Nobody waits for a result, so none is kept, and nothing subscribes to one. Celery's own backend stores what each member
returned and, behind the last, takes a lock, joins what was stored and sends the body as any other task: half a
millisecond of processor time a member, and eight exchanges with Redis before the body leaves. Here a member is
one exchange.

To count a member again changes nothing. Two members that are counted at the same time may both be the last: then the
body is sent twice, which every body of ours can bear, as it is a nudge.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from celery.backends.redis import RedisBackend

from app.transport.gate import chord_body
from app.transport.line import Command, Line

log = logging.getLogger(__name__)


class ChordBackend(RedisBackend):
    """Holds, of each chord that is not complete, its size and the ids of the members that are counted."""

    @cached_property
    def line(self) -> Line:
        """The connection for what every member costs."""
        return Line(lambda: self.client.connection_pool.get_connection())

    def expect(self, sizes: Mapping[str, int]) -> None:
        """Tells how many members the chords have, by the ids of their groups. Raises what redis-py raises."""
        commands: list[Command] = []
        for group_id, expected in sizes.items():
            size, members = self._keys(group_id)
            commands += [("SET", size, str(expected), "EX", str(self.chord_expires)), ("DEL", members)]
        self.line.call(commands)

    def set_chord_size(self, group_id: str, chord_size: int) -> None:
        self.expect({group_id: chord_size})

    def on_chord_part_return(self, request: Any, state: str, result: Any, *_: Any, **__: Any) -> None:
        """Counts one member. Where Redis does not let it, the tick finds the work: an error from here would leave the
        message unacknowledged for as long as this worker lives, and after a few of them it would be given no more."""
        try:
            self._count(request)
        except Exception:  # the edge to Redis' client
            log.warning("a part of a chord could not be counted", exc_info=True)

    def add_pending_result(self, result: Any, *args: Any, **options: Any) -> Any:
        # Celery's own keeps a subscription for every member of a group it ever sent whose result never comes.
        return result

    def add_pending_results(self, results: Any, *args: Any, **options: Any) -> Any:
        return results

    def _count(self, request: Any) -> None:
        if not request.group:
            return
        size, members = self._keys(request.group)
        _, counted, _, expected = self.line.call(
            [
                ("SADD", members, request.id),
                ("SCARD", members),
                ("EXPIRE", members, str(self.chord_expires)),
                ("GET", size),
            ]
        )
        if expected is None or counted < int(expected):
            return
        # Forgotten only once it is sent: who takes the message of a member again sends it again.
        self.app.publisher.send([chord_body(request)])
        self.line.post([("DEL", size, members)])

    def _keys(self, group_id: str) -> tuple[bytes, bytes]:
        """Where its size lies, and the ids of its members that are counted."""
        return self.get_key_for_group(group_id, ".s"), self.get_key_for_group(group_id, ".members")
