"""Parameters as a person types them."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from app.cli.files import MOST_BYTES
from app.errors import InvalidInput
from app.language.known import Known, action_from_json


def read_parameters(pairs: Sequence[str], file: str | None) -> dict[str, Any]:
    """The parameters of a JSON file, then those of `-p`, which win. Raises InvalidInput."""
    given: dict[str, Any] = {}
    if file is not None:
        try:
            text = sys.stdin.read(MOST_BYTES) if file == "-" else Path(file).read_text("utf-8")
            given = json.loads(text, parse_constant=_no_constant)
        except OSError as error:
            raise InvalidInput(f"{file}: {error.strerror}", hint="give the path of a JSON file") from None
        except ValueError as error:
            raise InvalidInput(f"{file} is not JSON: {error}", hint='write {"name": value}') from None
        if not isinstance(given, dict):
            raise InvalidInput(f"{file} holds no JSON object", hint='write {"name": value}')
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise InvalidInput(f"-p {pair!r} is not NAME=VALUE", hint="for example -p version=1.4")
        given[name] = _value(value)
    return given


def read_actions(file: str) -> Known:
    """The actions of packs in a JSON file, as a server tells them to flows: {ref: action}. Raises InvalidInput."""
    try:
        with Path(file).open("rb") as opened:
            text = opened.read(MOST_BYTES + 1)
        if len(text) > MOST_BYTES:
            raise ValueError(f"more than {MOST_BYTES} bytes")
        given = json.loads(text, parse_constant=_no_constant)
        return Known({str(ref): action_from_json(one, 0) for ref, one in given.items()})
    except OSError as error:
        raise InvalidInput(f"{file}: {error.strerror}", hint="give the path of a JSON file") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        message = f"{file} holds no actions: {error!s:.200}"
        raise InvalidInput(message, hint="such a file comes with a flow; leave the option away") from None


def _value(text: str) -> Any:
    """Lists and objects are read as JSON; anything else stays text, which the declared type then reads."""
    if text[:1] in ("[", "{"):
        try:
            return json.loads(text, parse_constant=_no_constant)
        except ValueError:
            return text
    return text


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON value")
