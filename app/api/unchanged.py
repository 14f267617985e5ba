"""A change that holds only for what its ETag was of."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from werkzeug.exceptions import PreconditionFailed

from app.errors import Conflict

_T = TypeVar("_T")


def if_unchanged(change: Callable[[], _T]) -> _T:
    """What `change` gives. Raises PreconditionFailed where another change came after its ETag was looked at."""
    try:
        return change()
    except Conflict as error:
        if error.code == "revision-conflict":
            raise PreconditionFailed from None
        raise
