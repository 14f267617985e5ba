"""What a line of a log belongs to: ids that each door (a request, a job function) says and every line behind it has.

A door calls `begin`, so that nothing of what its thread did before is left; `note` adds what becomes known later.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

ID_LIMIT = 200

_NOTHING: Mapping[str, str] = MappingProxyType({})
_scope: ContextVar[Mapping[str, str]] = ContextVar("muster_log_scope", default=_NOTHING)


def begin(**ids: str | None) -> None:
    """From here on the lines of this thread have these ids and no others."""
    _scope.set(_given(ids))


def note(**ids: str | None) -> None:
    """Add ids to those that the lines of this thread have."""
    _scope.set({**_scope.get(), **_given(ids)})


def current() -> Mapping[str, str]:
    """The ids that a line written now would have."""
    return _scope.get()


def facts(**values: str | int | float | None) -> dict[str, Any]:
    """For `extra` of a logging call: values beside the text. Ids, counts, seconds and names; never what a
    workflow computes with, a command or its output."""
    return {"muster": values}


def _given(ids: Mapping[str, str | None]) -> dict[str, str]:
    # Some come from outside: what does not print has no place in a line.
    return {
        name: value[:ID_LIMIT] if value.isprintable() else ascii(value[:ID_LIMIT])
        for name, value in ids.items()
        if value
    }
