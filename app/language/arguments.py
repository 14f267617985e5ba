"""Arguments of template filters and tests: what is undefined, and the kinds that a filter wants."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from jinja2 import StrictUndefined, Undefined, UndefinedError

from app.language import opaque
from app.language.plain import ValueRefused, kind_of

Function = Callable[..., Any]


class MissingValue(UndefinedError):
    """Something undefined was used. `missing` is the undefined value, for a message that names its path."""

    def __init__(self, missing: Missing, message: str) -> None:
        super().__init__(message)
        self.missing = missing


class Missing(StrictUndefined):
    """What is undefined: every use but `default(…)` and `is defined` raises MissingValue."""

    __slots__ = ()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._undefined_exception = functools.partial(MissingValue, self)  # type: ignore[assignment]

    @property
    def owner(self) -> Any:
        """The value that lacks `name`; a private marker of Jinja for a name that is no scope."""
        return self._undefined_obj

    @property
    def name(self) -> str:
        """The name or position that was looked up; empty when `hint` tells what is undefined."""
        return "" if self._undefined_name is None else str(self._undefined_name)

    @property
    def hint(self) -> str:
        """What is undefined, in words, where no name was looked up."""
        return self._undefined_hint or ""


def step_into(value: Any, key: Any) -> Any:
    """`value[key]` for a map's key, or a position in a list or text; Missing otherwise. Attributes of Python
    objects are out of reach, so `task.T.items` is a key like any other."""
    if isinstance(value, Mapping):
        if isinstance(key, (str, int)) and key in value:
            return value[key]
    elif isinstance(value, Missing):
        return value  # The first thing that is missing in a chain is the one worth naming.
    elif isinstance(value, (list, tuple, str)) and isinstance(key, int) and -len(value) <= key < len(value):
        return value[key]
    return Missing(obj=value, name=key)


def as_text(value: Any) -> str:
    """`value` if it is text; ValueRefused otherwise, as in the functions below."""
    if not isinstance(value, str):
        raise ValueRefused(f"needs text, not {kind_of(value)}", "write `| string` before it")
    return value


def as_number(value: Any) -> int | float:
    """`value` if it is a number; booleans are none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueRefused(f"needs a number, not {kind_of(value)}", "write `| int` or `| float` before it")
    return value


def as_count(value: Any, least: int, most: int) -> int:
    """`value` if it is an integer from `least` to `most`."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ValueRefused(f"needs an integer from {least} to {most}")
    return value


def as_items(value: Any) -> list[Any]:
    """A list with the items of `value` if that is a list."""
    if not isinstance(value, (list, tuple)):
        raise ValueRefused(f"needs a list, not {kind_of(value)}")
    return list(value)


def as_map(value: Any) -> Mapping[str, Any]:
    """`value` if it is a map."""
    if not isinstance(value, Mapping):
        raise ValueRefused(f"needs a map, not {kind_of(value)}")
    return value


def look_up(value: Any, attribute: Any) -> Any:
    """Look up `attribute` ("a.b", or a position); None is the value itself."""
    if attribute is None:
        return value
    for key in attribute.split(".") if isinstance(attribute, str) else [attribute]:
        position = isinstance(value, list) and isinstance(key, str) and key.isdecimal() and len(key) < 10
        value = step_into(value, int(key) if position else key)
    return value


def settled(value: Any) -> Any:
    """Return `value`; raise its own error if it is undefined."""
    if isinstance(value, Undefined):
        fail(value)
    return value


def fail(missing: Undefined) -> NoReturn:
    """Raise the error of an undefined value."""
    str(missing)
    raise AssertionError("an undefined value has a text")


def strict(name: str, function: Function) -> Function:
    """`function`, with the errors of undefined arguments and of secrets raised before it sees them, and its own
    errors about what it needs beginning with `name`."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        for value in (*args, *kwargs.values()) if kwargs else args:
            if isinstance(value, Undefined):
                fail(value)
            if isinstance(value, opaque.Handle):
                raise opaque.refused()
        try:
            return function(*args, **kwargs)
        except ValueRefused as refused:
            if refused.message.startswith("needs"):
                raise ValueRefused(f"`{name}` {refused.message}", refused.hint) from None
            raise

    return wrapped
