"""Errors as a person at a terminal meets them: text, hint and exit code; and errors that came by HTTP."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from app.cli.loading import load
from app.cli.plain import safe
from app.errors import MusterError

TIMED_OUT = 124
_BY_STATUS = {400: 2, 413: 2, 415: 2, 422: 2, 401: 3, 403: 3, 404: 4, 409: 5, 412: 5, 428: 5, 408: TIMED_OUT}


class TimedOut(MusterError):
    """The time that the caller gave is over; what was started goes on."""

    code = "timeout"
    status = 408


class ApiProblem(MusterError):
    """What the server answered instead (problem+json). `source` and `file` are of the text that was sent.

    The names of `headers` are in small letters.
    """

    def __init__(
        self, status: int, problem: Mapping[str, Any], headers: Mapping[str, str] | None = None
    ) -> None:
        title = problem.get("detail") or problem.get("title") or f"the server answered with status {status}"
        code = str(problem.get("code") or "error")
        super().__init__(safe(str(title)), hint=safe(str(problem.get("hint") or "")), code=code)
        self.status = status
        self.problem = dict(problem)
        self.headers = dict(headers or {})
        self.file = ""
        self.source = ""

    @property
    def errors(self) -> list[dict[str, Any]]:
        """The single errors of the problem, those of a workflow's text with line and column."""
        found = self.problem.get("errors")
        return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def exit_code(error: MusterError) -> int:
    """What the process exits with."""
    return _BY_STATUS.get(error.status, 1)


def render(error: MusterError, *, as_json: bool = False) -> str:
    """The error for stderr: as text with its hint, or as one JSON object."""
    problems = _problems(error)
    if as_json:
        found: dict[str, Any] = {"code": error.code, "message": error.message, "hint": error.hint}
        errors = error.errors if isinstance(error, ApiProblem) else error.detail.get("errors")
        return json.dumps({"error": found | ({"errors": errors} if errors else {})}, ensure_ascii=False)
    if problems:
        return safe(load("app.language.problems:render_text")(problems), keep="\n")
    lines = [f"error: {error.message}"]
    if isinstance(error, ApiProblem):
        lines += _other_errors(error.errors, error.message)
    if error.hint:
        lines.append(f"hint: {error.hint}")
    return "\n".join(lines)


def _problems(error: MusterError) -> Sequence[Any]:
    """The error's places in a workflow's text, if that is what it is about."""
    local = getattr(error, "problems", ())
    if local or not isinstance(error, ApiProblem):
        return tuple(local)
    lines = error.source.splitlines()
    return [_problem(one, error.file, lines) for one in error.errors if isinstance(one.get("line"), int)]


def _problem(one: Mapping[str, Any], file: str, lines: Sequence[str]) -> Any:
    line, column = int(one["line"]), int(one.get("column") or 1)
    return load("app.language.problems:Problem")(
        code=str(one.get("code") or "invalid"),
        message=str(one.get("detail") or one.get("message") or "is not right"),
        file=file or str(one.get("file") or "<workflow>"),
        line=line,
        column=column,
        path=str(one.get("pointer") or one.get("path") or ""),
        hint=str(one.get("hint") or ""),
        severity="warning" if one.get("severity") == "warning" else "error",
        source_line=lines[line - 1] if 0 < line <= len(lines) else "",
    )


def _other_errors(errors: Sequence[Mapping[str, Any]], message: str) -> list[str]:
    lines = []
    for one in errors:
        detail = safe(str(one.get("detail") or ""))
        pointer = safe(str(one.get("pointer") or ""))
        if detail and message not in (detail, f"{pointer}: {detail}"):
            hint = safe(str(one.get("hint") or ""))
            lines.append(f"  {pointer}: {detail}" + (f" ({hint})" if hint else ""))
    return lines
