"""Typed parameters: which values a declared type takes, and how a caller's values are bound."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Final

from app.errors import InvalidInput
from app.language.model import Parameter
from app.language.problems import nearest, shown
from app.language.scalars import LARGEST

TYPES: Final = ("string", "integer", "number", "float", "boolean", "object", "array", "secret", "any")
"""The types a parameter may have; `float` means `number`, `secret` is a string that is never shown."""

_WANTED: Final = {
    "string": "a text",
    "secret": "a text",
    "integer": "a whole number",
    "number": "a number",
    "float": "a number",
    "boolean": "true or false",
    "object": "an object",
    "array": "a list",
    "any": "a value",
}
_INTEGER = re.compile(r"[-+]?[0-9]{1,19}\Z", re.ASCII)
_NUMBER = re.compile(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]{1,3})?\Z", re.ASCII)


def accepts(kind: str, value: Any) -> bool:
    """True if the JSON value is one of the type `kind`; nothing is converted. A null is of type any only."""
    if kind in ("string", "secret"):
        return isinstance(value, str) and "\0" not in value
    if kind == "boolean":
        return isinstance(value, bool)
    if kind == "integer":
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= LARGEST
    if kind in ("number", "float"):
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if kind == "object":
        return isinstance(value, Mapping)
    return isinstance(value, list) if kind == "array" else True


def wanted(kind: str) -> str:
    """What a message calls a value of the type."""
    return _WANTED[kind]


def bind(parameters: tuple[Parameter, ...], given: Mapping[str, Any]) -> dict[str, Any]:
    """The values of all declared parameters, in the order declared.

    A text counts for an integer, number or boolean if it spells one, as on a command line; nothing else is
    converted. A parameter that is not given has its default, else null. Raises InvalidInput whose detail
    `errors` lists every {pointer, detail, hint}.
    """
    errors: list[dict[str, str]] = []
    bound: dict[str, Any] = {}
    known = {parameter.name for parameter in parameters}
    for name in given:
        if name not in known:
            near = nearest(str(name)[:100], known)
            listed = (
                f"known here: {', '.join(sorted(known))}" if known else "this workflow takes no parameters"
            )
            hint = f"did you mean `{near}`?" if near else listed
            errors.append(_error(str(name), f"there is no parameter {shown(name)}", hint))
    for parameter in parameters:
        value = given.get(parameter.name)
        if value is None and (parameter.name not in given or parameter.required):
            if parameter.required and not parameter.has_default:
                hint = parameter.description or f"give {wanted(parameter.type)}"
                errors.append(_error(parameter.name, f"the parameter `{parameter.name}` is required", hint))
            value = parameter.default if parameter.has_default else None
        elif value is not None:
            value = spelled(parameter.type, value)
            if problem := _problem(parameter, value):
                errors.append(_error(parameter.name, *problem))
        bound[parameter.name] = value
    if errors:
        first = errors[0]
        rest = f" (and {len(errors) - 1} more)" if errors[1:] else ""
        raise InvalidInput(
            first["detail"] + rest, hint=first["hint"], code="invalid-parameters", errors=errors
        )
    return bound


def _error(name: str, detail: str, hint: str) -> dict[str, str]:
    pointer = "/parameters/" + name.replace("~", "~0").replace("/", "~1")
    return {"pointer": pointer, "detail": detail, "hint": hint}


def _problem(parameter: Parameter, value: Any) -> tuple[str, str] | None:
    name = parameter.name
    if not accepts(parameter.type, value):
        # A secret's value must not end up in a message.
        seen = (
            ""
            if parameter.type == "secret" or not isinstance(value, (str, int, float))
            else f", not {_shown(value)}"
        )
        return (
            f"the parameter `{name}` must be {wanted(parameter.type)}{seen}",
            f"its type is {parameter.type}",
        )
    if parameter.enum is not None and not any(same(value, allowed) for allowed in parameter.enum):
        listed = ", ".join(_shown(allowed) for allowed in parameter.enum[:20])
        if parameter.type == "secret":
            return f"the parameter `{name}` is none of the values allowed", ""
        near = (
            nearest(value, [text for text in parameter.enum if isinstance(text, str)])
            if isinstance(value, str)
            else ""
        )
        return (
            f"the parameter `{name}` cannot be {_shown(value)}",
            f"did you mean `{near}`?" if near else f"one of {listed}",
        )
    return None


def _shown(value: Any) -> str:
    return shown(str(value).lower() if isinstance(value, bool) else value)


def same(left: Any, right: Any) -> bool:
    return bool(left == right) and isinstance(left, bool) == isinstance(right, bool)


def spelled(kind: str, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if kind == "integer" and _INTEGER.match(value):
        return int(value)
    if kind in ("number", "float") and len(value) <= 40 and _NUMBER.match(value):
        return int(value) if _INTEGER.match(value) else float(value)
    return {"true": True, "false": False}.get(value, value) if kind == "boolean" else value
