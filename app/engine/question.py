"""What is asked of people, as a task or a gate says it: how many must agree, who may, and until when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from app.engine.context import number
from app.language.expressions import TemplateError

YEAR: Final = 366 * 86400.0
APPROVE, REJECT, TIMEOUT = "approve", "reject", "timeout"
_ON_EXPIRE = (TIMEOUT, REJECT, APPROVE)


@dataclass(frozen=True, slots=True)
class Question:
    """`wait` is in seconds, None where it does not expire; `approvers` are logins, any who may decide where empty."""

    prompt: str
    quorum: int
    approvers: tuple[str, ...]
    wait: float | None
    on_expire: str


def question(given: Mapping[str, Any]) -> Question:
    """The rendered input of `core.approval` or `core.inquiry`, or a plan's gate. Raises TemplateError."""
    quorum = int(number(given.get("quorum", 1), {}, "quorum", low=1, high=100))
    expires = given.get("expires_in")
    wait = None if expires is None else number(expires, {}, "expires_in", low=1, high=YEAR)
    approvers = given.get("approvers") or []
    if not isinstance(approvers, list | tuple) or not all(isinstance(one, str) for one in approvers):
        raise TemplateError("approvers must be a list of logins", str(approvers)[:80])
    if approvers and quorum > len(set(approvers)):
        message = f"a quorum of {quorum} of {len(set(approvers))} approvers cannot be reached"
        raise TemplateError(message, "quorum")
    on_expire = given.get("on_expire", TIMEOUT)
    if on_expire not in _ON_EXPIRE:
        raise TemplateError(f"on_expire must be one of {', '.join(_ON_EXPIRE)}", "on_expire")
    return Question(str(given.get("prompt", "")), quorum, tuple(approvers), wait, str(on_expire))
