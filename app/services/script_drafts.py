"""A script as somebody wants it kept: all that can be wrong with it, told at once and before anything is written."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from app.errors import InvalidInput
from app.language import script_declarations, script_lint, script_parameters
from app.language.findings import Finding
from app.language.script_lint import BOUND, TEXT
from app.language.script_parameters import ScriptParameter, Told, refused, told
from app.services.people import LOGIN, LOGIN_RULE
from app.transport.messages import canonical

NAME: Final = r"[a-z][a-z0-9_-]{0,63}"
NAME_RULE: Final = "lower-case letters, digits, `-` and `_`, starting with a letter, 64 at the most"
ON_EXPIRE: Final = ("timeout", "reject", "approve")
MOST_QUORUM: Final = 20
MOST_APPROVERS: Final = 100
MOST_TAGS: Final = 50
LONGEST_DESCRIPTION: Final = 4000
YEAR: Final = 366 * 86400.0

_TAG: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}\Z", re.ASCII)
TAG_RULE: Final = "letters, digits and `._:-`, starting with a letter or digit, 64 at the most"


@dataclass(frozen=True, slots=True)
class Draft:
    """A script as somebody wants it kept. `parameters` are declarations as JSON, `timeout` is in seconds.

    `approval` has what is not the default of: quorum (1), approvers (any who may decide), expires_in (seconds; it does
    not), on_expire (timeout).
    """

    name: str
    shell: str
    body: str
    parameters: Sequence[Any] = ()
    timeout: float = 300.0
    description: str = ""
    tags: Sequence[str] = ()
    requires_approval: bool = False
    approval: Mapping[str, Any] | None = None
    substitution: str = BOUND


@dataclass(frozen=True, slots=True)
class Checked:
    """A draft that may be kept: its declarations read, and what whoever wrote it should know."""

    draft: Draft
    declared: tuple[ScriptParameter, ...]
    warnings: tuple[Mapping[str, Any], ...]

    @property
    def essence(self) -> dict[str, Any]:
        """What makes another version when it changes."""
        declared = [script_parameters.to_json(one) for one in self.declared]
        draft = self.draft
        return {
            "shell": draft.shell,
            "body": draft.body,
            "parameters": declared,
            "substitution": draft.substitution,
        }

    @property
    def digest(self) -> str:
        """sha256 over the essence."""
        return hashlib.sha256(canonical(self.essence)).hexdigest()

    @property
    def rest(self) -> dict[str, Any]:
        """What holds for all versions."""
        draft = self.draft
        return {
            "description": draft.description,
            "tags": list(dict.fromkeys(draft.tags)),
            "timeout": draft.timeout,
            "requires_approval": draft.requires_approval,
            "approval": dict(draft.approval or {}),
        }


def check(draft: Draft) -> Checked:
    """Raises InvalidInput whose `errors` tell everything that is wrong, with pointers."""
    errors: list[Any] = [*_of_name(draft), *_of_approval(draft), *_of_tags(draft)]
    warnings: list[Any] = []
    declared: tuple[ScriptParameter, ...] = ()
    try:
        declared = script_declarations.read(list(draft.parameters), draft.shell)
    except InvalidInput as error:
        errors += error.detail.get("errors", ())
    if draft.substitution == TEXT:
        wrong, doubtful = script_lint.check_text(declared, draft.requires_approval)
        errors += wrong
        warnings += doubtful
    else:
        for one in script_lint.lint(draft.shell, draft.body, declared):
            (errors if one.severity == "error" else warnings).append(_placed(one))
    if errors:
        raise refused(errors, "invalid-script")
    return Checked(draft, declared, tuple(warnings))


def _placed(one: Finding) -> dict[str, Any]:
    """A finding in the body, as an error of an answer: with its line and column."""
    detail = f"line {one.line}, column {one.column}: {one.message}"
    place = {"code": one.code, "line": one.line, "column": one.column}
    return {"pointer": "/body", "detail": detail, "hint": one.hint, **place}


def _of_name(draft: Draft) -> Iterator[Told]:
    if not re.fullmatch(NAME, draft.name, re.ASCII):
        yield told("/name", f"{draft.name[:80]!r} cannot be the name of a script", NAME_RULE)


def _of_tags(draft: Draft) -> Iterator[Told]:
    for number, tag in enumerate(draft.tags):
        if not _TAG.match(tag):
            yield told(f"/tags/{number}", f"{tag[:80]!r} cannot be a tag", TAG_RULE)


def _of_approval(draft: Draft) -> Iterator[Told]:
    approval = draft.approval or {}
    if approval and not draft.requires_approval:
        yield told("/approval", "this script needs no approval", "set `requires_approval: true`")
    approvers = approval.get("approvers") or []
    for number, login in enumerate(approvers):
        if not LOGIN.fullmatch(login):
            yield told(f"/approval/approvers/{number}", f"{login[:80]!r} is no login", LOGIN_RULE)
    if approvers and approval.get("quorum", 1) > len(set(approvers)):
        detail = f"{approval['quorum']} of {len(set(approvers))} approvers can never agree"
        yield told("/approval/quorum", detail, "name more approvers, or ask for fewer")
    if "on_expire" in approval and "expires_in" not in approval:
        detail = "the request never expires"
        yield told("/approval/on_expire", detail, "say after how many seconds it does: expires_in")
