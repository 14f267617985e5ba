"""A saved script as somebody wrote it, and everything that is checked before it is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from app.language import script_declarations, script_lint
from app.language.findings import Finding
from app.language.problems import nearest
from app.language.script_parameters import Told, refused, to_json, told
from app.marks import is_marked

LONGEST_BODY: Final = 500_000
"""Bytes, as UTF-8."""
DEFAULT_TIMEOUT: Final = 300.0
MOST_TAGS: Final = 50
MOST_QUORUM: Final = 20
NAME: Final = r"^[a-z][a-z0-9_-]{0,63}$(?!\n)"
NAME_RULE: Final = "lower-case letters, digits, `_` and `-`, starting with a letter, 64 at the most"
ON_EXPIRE: Final = ("reject", "approve", "timeout")


@dataclass(frozen=True, slots=True)
class Form:
    """What a script says. `parameters` are declarations as JSON, `timeout` is in seconds.

    `approval` has quorum, approvers (logins), expires_in (seconds) and on_expire, each if it is given.
    """

    name: str
    shell: str
    body: str
    parameters: Sequence[Any] = ()
    substitution: str = script_lint.BOUND
    description: str = ""
    tags: Sequence[str] = ()
    timeout: float = DEFAULT_TIMEOUT
    requires_approval: bool = False
    approval: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Checked:
    """`parameters` as rows keep them; `warnings` are {pointer, detail, hint} and for places in the body more."""

    parameters: list[dict[str, Any]]
    warnings: list[dict[str, Any]]


def check(form: Form) -> Checked:
    """Raises InvalidInput (code invalid-script) whose `errors` tell everything that is wrong with the script."""
    errors: list[Any] = list(_of_form(form))
    if errors:
        raise refused(errors, "invalid-script")
    declared = script_declarations.read(list(form.parameters), form.shell)
    found = script_lint.lint(form.shell, form.body, declared)
    errors = [_shown(one) for one in found if one.severity == "error"]
    warnings: list[dict[str, Any]] = [_shown(one) for one in found if one.severity == "warning"]
    if form.substitution == script_lint.TEXT:
        wrong, doubtful = script_lint.check_text(declared, form.requires_approval)
        errors, warnings = [*wrong, *errors], [*doubtful, *warnings]
    if errors:
        raise refused(errors, "invalid-script")
    return Checked([to_json(one) for one in declared], warnings)


def _of_form(form: Form) -> list[Told]:
    errors: list[Told] = []
    if form.shell not in script_lint.SHELLS:
        near = nearest(form.shell[:100], script_lint.SHELLS)
        hint = f"did you mean `{near}`?" if near else f"one of {', '.join(script_lint.SHELLS)}"
        errors.append(told("/shell", "there is no such shell", hint))
    for name in ("body", "description"):
        if is_marked(getattr(form, name)):
            detail = f"the {name} holds U+FDD0 or U+FDD1, which are no characters"
            errors.append(told(f"/{name}", detail, "remove them"))
    approvers, quorum = form.approval.get("approvers"), form.approval.get("quorum", 1)
    if approvers is not None and len(set(approvers)) < quorum:
        detail = f"{quorum} must approve, and {len(set(approvers))} may"
        errors.append(told("/approval/approvers", detail, "name more people, or lower the quorum"))
    if "on_expire" in form.approval and "expires_in" not in form.approval:
        errors.append(told("/approval/on_expire", "nothing expires without `expires_in`", "give both"))
    return errors


def _shown(one: Finding) -> dict[str, Any]:
    return {
        "pointer": "/body",
        "detail": one.message,
        "hint": one.hint,
        "line": one.line,
        "column": one.column,
        "code": one.code,
        "severity": one.severity,
    }
