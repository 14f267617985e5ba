"""What time brings is seen to for each execution apart: what cannot be done for one must not stop time for others."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

log = logging.getLogger(__name__)


@contextmanager
def apart(what: str) -> Iterator[None]:
    """What goes wrong inside is logged under the name of the part or row, and the tick goes on with the rest."""
    try:
        yield
    except Exception:
        # The edge of one part or row: anything may be wrong with it.
        log.exception("a part of the tick failed: %s", what)
