"""The blob store as a process sees it: opened when it is first needed, then kept; and tried before others need it."""

from __future__ import annotations

import hashlib
import io
import secrets
import threading
from typing import TYPE_CHECKING

from app.settings import Settings
from app.store.blobs import Blobs, open_blobs

if TYPE_CHECKING:
    from app.services.control import Control


class BlobStore:
    """Safe for any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._opened: Blobs | None = None

    def open(self, settings: Settings) -> Blobs:
        """The store that the settings name. Raises InvalidInput for what is none."""
        with self._lock:
            if self._opened is None:
                self._opened = open_blobs(settings)
            return self._opened


def ensure(control: Control) -> str:
    """Where the blobs are, once one was put there and taken away again. Raises InvalidInput and Unavailable."""
    store, probe = control.blobs.open(control.settings), secrets.token_bytes(16)
    digest = hashlib.sha256(probe).hexdigest()
    store.put(digest, len(probe), io.BytesIO(probe))
    store.delete(digest, float("inf"))
    return store.place
