"""Files that hold a secret: readable by their owner alone, whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from app.errors import NotAllowed


def write(path: Path, text: str) -> None:
    """Puts `text` in place of what was there, with its directory if need be.

    Raises NotAllowed where that cannot be done.
    """
    partial = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial.unlink(missing_ok=True)
        handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise NotAllowed(
            f"{path} cannot be written: {error.strerror}",
            hint="give a file in a directory where this user may write",
            code="cannot-write",
        ) from None


def client_file(url: str, token: str) -> str:
    """What clients need, as text for `set -a; . FILE; set +a`."""
    return f"MUSTER_URL={url}\nMUSTER_TOKEN={token}\n"
