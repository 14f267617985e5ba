"""What a part of a workflow is given and leaves: parameters, variables, and the results of tasks; as JSON in files."""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from app.engine.state import TaskState
from app.engine.status import SUCCEEDED, TASK_OVER, TASK_STATUSES
from app.errors import InvalidInput, TooLarge
from app.language import names
from app.language.jsonable import STATE_DEPTH, misfit

MOST_BYTES: Final = 64 << 20
"""What a file with a state may have."""

_GIVEN: Final = ("parameters", "vars", "task", "system")
_LEFT: Final = ("status", "error", "output")
"""What only a state that was left has: one may be given on as it is, and these are passed over."""

_COUNTS: Final = {"succeeded_count": "succeeded", "failed_count": "failed", "total_count": "total"}
_EXECUTION_ID: Final = re.compile(r"[0-9A-Za-z]{1,40}")

_OF_TASK: Final = ("status", "result", "error", "items", *_COUNTS)


@dataclass(frozen=True, slots=True)
class State:
    """Values by name; `task` holds for each task what templates see of it: status, result, error, and counts. `system`
    is what they see of the execution that the part belongs to, empty where it belongs to none."""

    parameters: Mapping[str, Any] = field(default_factory=dict)
    vars: Mapping[str, Any] = field(default_factory=dict)
    task: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    system: Mapping[str, Any] = field(default_factory=dict)


def read(file: str) -> State:
    """The state in a file. Raises InvalidInput, with the path of what is wrong in it, and TooLarge."""
    try:
        with Path(file).open("rb") as opened:
            data = opened.read(MOST_BYTES + 1)
    except OSError as error:
        raise InvalidInput(f"{file}: {error.strerror}", hint="give the path of a JSON file") from None
    if len(data) > MOST_BYTES:
        raise TooLarge(f"{file} has more than {MOST_BYTES} bytes", code="state-too-large")
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        hint = 'write {"parameters": {…}, "vars": {…}, "task": {…}}'
        raise InvalidInput(f"{file} is not JSON: {error}", hint=hint, code="bad-state") from None
    refuse_other_than_json(value, file)
    return _checked(value, file)


def refuse_other_than_json(value: Any, whose: str) -> None:
    """Raises InvalidInput with the path of what cannot be JSON."""
    found = misfit(value, STATE_DEPTH)
    if found is not None:
        path, why = found
        raise InvalidInput(
            f"{whose}: {path} {why}", hint="a state holds JSON values only", code="state-not-json"
        )


def _checked(value: Any, file: str) -> State:
    if not isinstance(value, dict):
        raise _bad(file, "it", "must be an object with `parameters`, `vars` and `task`")
    for name in value:
        if name not in (*_GIVEN, *_LEFT):
            raise _bad(file, name, f"is not known; there are {', '.join(_GIVEN)}")
    for name in _GIVEN:
        if not isinstance(value.get(name, {}), dict):
            raise _bad(file, name, "must be an object")
    for name in value.get("vars", {}):
        if not re.search(names.VARIABLE, name):
            raise _bad(file, f"vars.{name}", f"cannot be a variable: {names.VARIABLE_RULE}")
    for name, one in value.get("task", {}).items():
        _check_task(file, f"task.{name}", one)
    _check_system(file, value.get("system", {}))
    return State(*(value.get(name, {}) for name in _GIVEN))


def _check_task(file: str, path: str, one: Any) -> None:
    if not isinstance(one, dict):
        raise _bad(file, path, "must be an object with `status` and `result`")
    for key, value in one.items():
        if key not in _OF_TASK:
            raise _bad(file, f"{path}.{key}", f"is not known; there are {', '.join(_OF_TASK)}")
        if key in _COUNTS and (type(value) is not int or value < 0):
            raise _bad(file, f"{path}.{key}", "must be a number of units")
    if one.get("status", SUCCEEDED) not in TASK_STATUSES:
        raise _bad(file, f"{path}.status", f"must be one of {', '.join(TASK_STATUSES)}")
    if not isinstance(one.get("error"), dict | None):
        raise _bad(file, f"{path}.error", "must be null, or an object with `type` and `message`")
    if not isinstance(one.get("items"), list | None):
        raise _bad(file, f"{path}.items", "must be a list")


def _check_system(file: str, system: Mapping[str, Any]) -> None:
    for key, value in system.items():
        if key == "execution_id":
            fits = isinstance(value, str) and _EXECUTION_ID.fullmatch(value) is not None
        elif key == "timestamp":
            fits = isinstance(value, str | int | float) and not isinstance(value, bool)
        elif key == "identity":
            fits = isinstance(value, dict) and value.keys() == {"login"} and isinstance(value["login"], str)
        else:
            raise _bad(file, f"system.{key}", "is not known; there are execution_id, timestamp, identity")
        if not fits:
            raise _bad(file, f"system.{key}", "must be what `system` has in an execution")


def _bad(file: str, path: str, why: str) -> InvalidInput:
    hint = "the guide to parts of workflows shows such a file"
    return InvalidInput(f"{file}: {path[:200]} {why}", hint=hint, code="bad-state")


def put_into(row: TaskState, one: Mapping[str, Any]) -> None:
    """Have a task's row say what a state says of it; one that was not over there has left what it had."""
    status = one.get("status", SUCCEEDED)
    row.status = status if status in TASK_OVER else row.status
    row.result, row.error, row.items = one.get("result"), one.get("error"), one.get("items")
    for key, column in _COUNTS.items():
        setattr(row, column, one.get(key, 0))
    row.units = row.total


def check_target(file: str) -> None:
    """Raises InvalidInput where nothing could be written in the end: before anything runs."""
    target = Path(file)
    if target.is_dir() or not os.access(target.parent, os.W_OK | os.X_OK):
        why = "is a directory" if target.is_dir() else "cannot be written there"
        raise InvalidInput(f"{file}: {why}", hint="give the path of a file in a directory that there is")


def write(file: str, document: Mapping[str, Any]) -> None:
    """Write a document whole or not at all: whoever looks sees the old file or the new one. Raises OSError."""
    target = Path(file)
    aside = target.with_name(f".{target.name[:200]}.{secrets.token_hex(4)}")
    try:
        with aside.open("x", encoding="utf-8") as opened:
            opened.write(text_of(document))
            opened.flush()
            os.fsync(opened.fileno())
        os.replace(aside, target)
    finally:
        aside.unlink(missing_ok=True)


def text_of(document: Mapping[str, Any]) -> str:
    """The document as JSON for people and programs."""
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
