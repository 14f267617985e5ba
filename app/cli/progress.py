"""One line on a terminal that says how far something is; silence anywhere else."""

from __future__ import annotations

import sys
import time

_EVERY = 0.1
_UNITS = ("bytes", "kB", "MB", "GB")


class Progress:
    """`what` and how many of all bytes are done. The line is gone at the end."""

    def __init__(self, what: str, total: int) -> None:
        self._what = what
        self._total = total
        self._done = 0
        self._shown_at = 0.0
        self._is_shown = sys.stderr.isatty()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_shown and self._shown_at:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()

    def add(self, count: int) -> None:
        """So many bytes more are done."""
        self._done += count
        now = time.monotonic()
        if self._is_shown and now - self._shown_at >= _EVERY:
            self._shown_at = now
            sys.stderr.write(f"\r\033[K{self._what}: {size(self._done)} of {size(self._total)}")
            sys.stderr.flush()


def size(count: int) -> str:
    """A number of bytes for people, in powers of 1000."""
    value, unit = float(count), 0
    while value >= 1000 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.1f} {_UNITS[unit]}" if unit else f"{count} bytes"
