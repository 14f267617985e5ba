"""Filters on text and numbers."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Callable
from typing import Any, NoReturn

from app.language.arguments import Function, as_count, as_items, as_number, as_text, look_up, settled
from app.language.plain import (
    MAX_INTEGER,
    MAX_ITEMS,
    ValueRefused,
    check_items,
    check_number,
    check_plain,
    check_storable,
    check_text,
    kind_of,
    text_of,
)


def _simple(method: Callable[[str], str]) -> Function:
    def simple(value: Any) -> str:
        result = method(as_text(value))
        check_text(len(result))
        return result

    return simple


def _title(text: str) -> str:
    return re.sub(r"\S+", lambda word: word[0][:1].upper() + word[0][1:].lower(), text)


def _trim(value: Any, chars: Any = None) -> str:
    return as_text(value).strip(None if chars is None else as_text(chars))


def _replace(value: Any, old: Any, new: Any, count: Any = None) -> str:
    text, old, new = as_text(value), as_text(old), as_text(new)
    times = len(text) + 1 if old == "" else text.count(old)
    if count is not None:
        times = min(times, as_count(count, 0, MAX_INTEGER))
    check_text(len(text) + times * (len(new) - len(old)))
    return text.replace(old, new, times)


def _split(value: Any, separator: Any = None, maxsplit: Any = -1) -> list[str]:
    if separator is not None and as_text(separator) == "":
        raise ValueRefused("cannot split at an empty text", "`| list` gives the characters")
    result = as_text(value).split(separator, as_count(maxsplit, -1, MAX_ITEMS))
    check_items(len(result))
    return result


def _join(value: Any, separator: Any = "", attribute: Any = None) -> str:
    between = as_text(separator)
    parts: list[str] = []
    size = 0
    for item in as_items(value):
        parts.append(text_of(look_up(item, attribute)))
        size += len(parts[-1]) + len(between)
        check_text(size - len(between))
    return between.join(parts)


def _from_json(value: Any) -> Any:
    text = as_text(value)
    check_text(len(text))
    try:
        result = json.loads(text, parse_constant=_no_constant, parse_int=_json_integer)
    except RecursionError:
        raise ValueRefused("the JSON is nested too deep") from None
    except json.JSONDecodeError as error:
        raise ValueRefused(f"not JSON: {error}") from None
    check_plain(result, storable=True)
    return result


def _json_integer(digits: str) -> int:
    if len(digits) > 40:
        raise ValueRefused("not JSON that can be used: an integer of more than 40 digits")
    return int(digits)


def _no_constant(name: str) -> NoReturn:
    raise ValueRefused(f"not JSON: {name} is no number of JSON")


def _to_json(value: Any) -> str:
    check_plain(value)
    result = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=dict)
    check_text(len(result))
    return result


def _b64encode(value: Any) -> str:
    raw = text_of(value).encode()
    check_text(len(raw) * 4 // 3)
    return base64.b64encode(raw).decode()


def _b64decode(value: Any) -> str:
    check_text(len(as_text(value)))
    try:
        text = base64.b64decode(value, validate=True).decode()
    except ValueError:
        raise ValueRefused("not base64 of UTF-8 text") from None
    check_storable(text)
    return text


def _int(value: Any, default: Any = None) -> int:
    """Always an integer, also by way of `default`: shell arithmetic relies on it."""
    number = _parsed(value, default)
    return int(check_number(int(number) if math.isfinite(number) else number))


def _float(value: Any, default: Any = None) -> float:
    return float(check_number(float(_parsed(value, default))))


def _parsed(value: Any, default: Any) -> int | float:
    if isinstance(value, (bool, int, float)):
        return value
    text = value.strip() if isinstance(value, str) else ""
    if len(text) <= 64 and re.fullmatch(r"[+-]?[0-9]+", text):
        return int(text)
    if len(text) <= 64 and re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?", text):
        return float(text)
    if default is None:
        raise ValueRefused(f"{kind_of(value)} that is no number: {text[:40]!r}", "give a default: `| int(0)`")
    return as_number(default)


def _round(value: Any, precision: Any = 0, method: Any = "common") -> float:
    number, digits = as_number(value), as_count(precision, 0, 15)
    if method == "common":
        return float(round(number, digits))
    if method not in ("ceil", "floor"):
        raise ValueRefused("knows the methods common, ceil and floor")
    scaled = float(check_number(number * 10.0**digits))
    return float((math.ceil(scaled) if method == "ceil" else math.floor(scaled)) / 10.0**digits)


def _sum(value: Any, attribute: Any = None, start: Any = 0) -> int | float:
    total = as_number(start)
    for item in as_items(value):
        total = check_number(total + as_number(settled(look_up(item, attribute))))
    return total


TEXT_FILTERS: dict[str, Function] = {
    "b64decode": _b64decode,
    "b64encode": _b64encode,
    "capitalize": _simple(str.capitalize),
    "from_json": _from_json,
    "join": _join,
    "lower": _simple(str.lower),
    "replace": _replace,
    "split": _split,
    "string": text_of,
    "title": _simple(_title),
    "to_json": _to_json,
    "tojson": _to_json,
    "trim": _trim,
    "upper": _simple(str.upper),
}
NUMBER_FILTERS: dict[str, Function] = {
    "abs": lambda value: abs(as_number(value)),
    "float": _float,
    "int": _int,
    "round": _round,
    "sum": _sum,
}
