"""Reading the files that a person names."""

from __future__ import annotations

import sys
from pathlib import Path

from app.errors import InvalidInput

MOST_BYTES = 1 << 20


def read_text(file: str) -> bytes:
    """The bytes of a file, `-` for standard input. Raises InvalidInput where it cannot be read."""
    try:
        if file == "-":
            return sys.stdin.buffer.read(MOST_BYTES)
        with Path(file).open("rb") as opened:
            return opened.read(MOST_BYTES)
    except OSError as error:
        raise InvalidInput(
            f"{file}: {error.strerror}", hint="give the path of a file that can be read"
        ) from None
