"""That an execution is over, said in Redis to whoever waits for it.

It is a hint and nothing more: who hears it looks at the rows, and who does not looks at them now and then.
"""

from __future__ import annotations

import logging
import time
from typing import Any

import redis

logger = logging.getLogger(__name__)

_KEPT = 60
"""Seconds that the word stays, for those who begin to wait a moment late."""


def key(execution: str) -> str:
    """The stream that gets an entry when the execution is over."""
    return f"muster:over:{execution}"


class Ends:
    """Tells and hears of ends. A Redis that is away costs time, never an error."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def tell(self, execution: str) -> None:
        """The execution is over, and that is committed."""
        try:
            with self._client.pipeline(transaction=False) as pipe:
                pipe.xadd(key(execution), {"over": 1}, maxlen=1, approximate=False)
                pipe.expire(key(execution), _KEPT)
                pipe.execute()
        except (redis.RedisError, OSError) as error:
            logger.warning("an end was not told: %s", type(error).__name__)

    def wait(self, execution: str, seconds: float, after: str = "0") -> str:
        """Waits so long for a word behind `after`; the place behind which to wait next.

        A word that the rows do not bear out is thus heard once. Without Redis the time passes all the same.
        """
        try:
            found = self._client.xread({key(execution): after}, count=1, block=max(1, int(seconds * 1000)))
        except (redis.RedisError, OSError) as error:
            logger.warning("ends cannot be heard: %s", type(error).__name__)
            time.sleep(seconds)
            found = None
        return str(found[0][1][-1][0].decode()) if found else after
