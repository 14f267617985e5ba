"""What a request to the runner must look like before anything is done for it."""

from __future__ import annotations

from typing import Any

from app.node import jobdir
from app.transport.filenames import is_file_name

_NUMBER = (int, float)
_MAX_OUTPUT = 1 << 30
_NOT_SAID: dict[str, Any] = {
    "shell": "sh",
    "file": "script",
    "mode": 0o500,
    "cleanup": False,
    "env": {},
    "grace": 10.0,
    "output_limit": 1 << 20,
    "ok_codes": (0,),
}
"""What a worker that is older than this runner does not say."""


class BadRequest(Exception):
    """A request that the runner will not serve; `kind` is stable."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def job_id(request: dict[str, Any]) -> str:
    """The id in a request's `job`. Raises `BadRequest`."""
    value = request.get("job")
    if not isinstance(value, str) or not jobdir.is_id(value):
        raise BadRequest("bad_request", f"{value!r} is not a job's id")
    return value


def job(value: Any) -> dict[str, Any]:
    """A job to be started, in the form of `app.node.told`, each field that is used of the right type.

    Raises `BadRequest`, which names the field.
    """
    if not isinstance(value, dict) or not jobdir.is_id(value.get("id")):
        raise BadRequest(
            "bad_request", "a job must be an object with an id of letters, digits, `_`, `.`, `-`"
        )
    found = {**_NOT_SAID, **value}
    argv, script, env = found.get("argv"), found.get("script"), found["env"]
    right = {
        "argv": argv is None or (_is_list(argv, str) and bool(argv) and bool(argv[0])),
        "script": script is None or isinstance(script, str),
        "argv or script": (argv is None) != (script is None),
        "shell": isinstance(found["shell"], str),
        "file": is_file_name(found["file"]),
        "mode": isinstance(found["mode"], int) and found["mode"] & ~0o700 == 0,
        "cleanup": isinstance(found["cleanup"], bool),
        "env": isinstance(env, dict) and _is_list(list(env.values()), str),
        "cwd": isinstance(found.get("cwd"), str | None),
        "workdir": isinstance(found.get("workdir"), str | None),
        "stdin": isinstance(found.get("stdin"), str | None),
        "timeout": found.get("timeout") is None or _is_seconds(found["timeout"]),
        "grace": _is_seconds(found["grace"]),
        "output_limit": isinstance(found["output_limit"], int) and 0 < found["output_limit"] <= _MAX_OUTPUT,
        "ok_codes": _is_list(found["ok_codes"], int),
        "execution": isinstance(found.get("execution"), str | None),
        "task": isinstance(found.get("task"), str | None),
        "trace_id": isinstance(found.get("trace_id"), str | None),
    }
    for name, is_right in right.items():
        if not is_right:
            raise BadRequest("bad_request", f"job {found['id']}: {name} is not what it must be")
    return found


def secrets(request: dict[str, Any]) -> dict[str, str]:
    """The values of the job's marks, by reference. Raises `BadRequest`."""
    found = request.get("secrets") or {}
    if not isinstance(found, dict) or not _is_list(list(found.values()), str):
        raise BadRequest("bad_request", "secrets must be texts by reference")
    return found


def _is_list(value: object, kind: type) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(item, kind) for item in value)


def _is_seconds(value: object) -> bool:
    return isinstance(value, _NUMBER) and not isinstance(value, bool) and 0 <= value < 1e9
