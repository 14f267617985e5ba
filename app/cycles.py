"""The collector of cycles in a process that lives long."""

from __future__ import annotations

import gc

YOUNG = 10_000
"""Objects between two looks for cycles. Python's own 700 are made and freed several times over by a single request or
message, of which nothing is a cycle: looking cost the API 15 % of its time. What waits for a look is some MB."""


def collect_rarely() -> None:
    """From now on this process looks for cycles after `YOUNG` objects more than were freed."""
    gc.set_threshold(YOUNG)
