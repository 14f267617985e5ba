"""Waiting for something to become so, with a deadline that only a fault reaches."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE = 100.0
"""Seconds. A machine that runs other tests as well may stand still for many; a test that fails is rare."""


def wait_until(condition: Callable[[], T], what: object = "", seconds: float = PATIENCE) -> T:
    """The first true value of `condition`; fails with `what` (called if it can be) when there is none in time."""
    end = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds:g} s: {what() if callable(what) else what}")
        time.sleep(0.01)
