"""A change that holds only for what its ETag was of."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

from flask import request
from werkzeug.exceptions import PreconditionFailed

from app.errors import Conflict
from app.services.kv import NEVER

_T = TypeVar("_T")


def if_unchanged(change: Callable[[], _T]) -> _T:
    """What `change` gives. Raises PreconditionFailed where another change came after its ETag was looked at."""
    try:
        return change()
    except Conflict as error:
        if error.code == "revision-conflict":
            raise PreconditionFailed from None
        raise


class Known(NamedTuple):
    """What is there before a change: its ETag and its revision."""

    tag: str
    revision: int


def check_match(tag: str | None) -> None:
    """Raises PreconditionFailed unless If-Match is of this ETag; None is that of what is not there."""
    if tag is None or not (request.if_match.star_tag or tag in request.if_match):
        raise PreconditionFailed


def expected(look: Callable[[], Known | None]) -> int | None:
    """The revision that the caller's If-Match or If-None-Match is about; None where there is neither, and no look.

    Raises PreconditionFailed where the condition does not hold already.
    """
    if not request.if_match and not request.if_none_match:
        return None
    known = look()
    if request.if_match:
        check_match(known and known.tag)
    elif known is not None and (request.if_none_match.star_tag or known.tag in request.if_none_match):
        raise PreconditionFailed
    return NEVER if known is None else known.revision
