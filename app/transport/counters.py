"""Sums of the whole installation in Redis, and how much waits in its queues."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

KEY = "muster:figures"
MOST = 20_000
"""Fields beyond which nothing is read: no installation of ours has so many."""


def add(client: Any, amounts: Mapping[str, float]) -> None:
    """Add to the sums, all or none. Raises what the client raises."""
    with client.pipeline() as pipe:
        for name, amount in amounts.items():
            pipe.hincrbyfloat(KEY, name, amount)
        pipe.execute()


def read(client: Any) -> dict[str, float]:
    """The sums by name; what is no number is left out. Raises what the client raises."""
    if client.hlen(KEY) > MOST:
        return {}
    found = {}
    for name, value in client.hgetall(KEY).items():
        try:
            number = float(value)
        except ValueError:
            continue
        if math.isfinite(number):
            found[name.decode("utf-8", "replace")] = number
    return found


def lengths(client: Any, queues: Sequence[str]) -> dict[str, int]:
    """How many messages lie in each queue of a Redis broker. Raises what the client raises."""
    with client.pipeline(transaction=False) as pipe:
        for queue in queues:
            pipe.llen(queue)
        return dict(zip(queues, pipe.execute(), strict=True))
