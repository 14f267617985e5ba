"""What a plain scalar means: YAML 1.2's core schema and nothing else, with the traps of YAML 1.1 named.

`true`, `false`, `null`, `~`, integers and floats have types; `on`, `12:30`, `1_000` and dates are texts.
"""

from __future__ import annotations

import math
import re
from typing import Any

LARGEST = 2**63 - 1
"""What every database, JSON reader and script on the way can carry as an integer."""

_INTEGER = re.compile(r"[-+]?[0-9]+\Z")
_OCTAL = re.compile(r"0o[0-7]+\Z")
_HEX = re.compile(r"0x[0-9a-fA-F]+\Z")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z")
_NOT_FINITE = re.compile(r"(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z")
_LEADING_ZERO = re.compile(r"[-+]?0[0-9]+\Z")
_TRAILING_ZERO = re.compile(r"[0-9]+\.[0-9]*[0-9]0\Z")

_WORDS: dict[str, Any] = {
    "": None,
    "~": None,
    "null": None,
    "Null": None,
    "NULL": None,
    "true": True,
    "True": True,
    "TRUE": True,
    "false": False,
    "False": False,
    "FALSE": False,
}
_NUMBER_STARTS = frozenset("-+.0123456789")

LEADING_ZERO = "leading-zero"
TOO_BIG = "number-too-big"
NOT_FINITE = "not-finite"
TRAILING_ZERO = "trailing-zero"


def resolve(text: str) -> tuple[Any, str]:
    """The value of a plain scalar, and the name of a trap in it ("" for none).

    With a trap other than `trailing-zero` the value is the text itself: where a text is wanted, the text is
    what was meant; where a number is wanted, the reader refuses it.
    """
    if text in _WORDS:
        return _WORDS[text], ""
    if text[0] not in _NUMBER_STARTS:
        return text, ""
    if _LEADING_ZERO.match(text):
        return text, LEADING_ZERO
    if _INTEGER.match(text):
        return _integer(text, 10)
    if _OCTAL.match(text):
        return _integer(text, 8)
    if _HEX.match(text):
        return _integer(text, 16)
    if _FLOAT.match(text):
        return _float(text)
    return (text, NOT_FINITE) if _NOT_FINITE.match(text) else (text, "")


def _integer(text: str, radix: int) -> tuple[Any, str]:
    # Python refuses to convert thousands of digits, and takes quadratic time below that.
    if len(text) > 24:
        return text, TOO_BIG
    value = int(text, radix) if radix == 10 else int(text[2:], radix)
    return (value, "") if -LARGEST - 1 <= value <= LARGEST else (text, TOO_BIG)


def _float(text: str) -> tuple[Any, str]:
    value = float(text) if len(text) <= 400 else math.inf
    if not math.isfinite(value):
        return text, TOO_BIG
    return value, TRAILING_ZERO if _TRAILING_ZERO.match(text) else ""


def trap_message(trap: str, text: str) -> tuple[str, str]:
    """Message and hint for a trap where any value may stand; `text` is already fit for showing."""
    if trap == LEADING_ZERO:
        return (
            f"{text} has a leading zero: octal to some, decimal to others",
            "quote it for a text, write 0o… for octal, or drop the zero",
        )
    if trap == TOO_BIG:
        return f"{text} does not fit into 64 bits", "quote it to keep every digit as text"
    if trap == NOT_FINITE:
        return f"{text} is not a number that JSON can carry", "quote it for a text"
    return f"{text} is read as a number and loses its last zero", "quote it if it is a version"
