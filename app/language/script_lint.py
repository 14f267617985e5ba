"""What is checked of a saved script's text beside its parameters, and the one pass of `substitution: text`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from app.language import patterns
from app.language.findings import Finding, Lint
from app.language.lint_posix import lint as lint_posix
from app.language.lint_windows import lint_cmd, lint_powershell
from app.language.script_parameters import ScriptParameter, Told, env_text, told

SHELLS: Final = ("bash", "zsh", "sh", "ksh", "powershell", "cmd", "dash", "python")
"""What may run a saved script."""

BOUND: Final = "bound"
TEXT: Final = "text"
SUBSTITUTIONS: Final = (BOUND, TEXT)
"""How values reach a script: as variables, or pasted into its text."""

METACHARACTERS: Final = "$`\"'\\;&|<>(){}[]*?!#~%^\n\r\t "

_PLACEHOLDER = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}", re.ASCII)
_LINTS: Final[dict[str, Lint]] = {
    **dict.fromkeys(("bash", "zsh", "sh", "ksh", "dash"), lint_posix),
    "powershell": lint_powershell,
    "cmd": lint_cmd,
}


def lint(shell: str, body: str, declarations: Sequence[ScriptParameter]) -> list[Finding]:
    """Places where a parameter's value would be run, or not be put in; the errors among them refuse the script."""
    check = _LINTS.get(shell)
    types = {one.name: one.type for one in declarations}
    return check(body, shell, types) if check is not None and types else []


def check_text(
    declarations: Sequence[ScriptParameter], requires_approval: bool
) -> tuple[list[Told], list[Told]]:
    """What is wrong, and what is doubtful, where values are to be pasted into the text of a script."""
    errors: list[Told] = []
    warnings: list[Told] = []
    if not requires_approval:
        detail = "values are pasted into a script only where each execution of it is approved"
        errors.append(told("/requires_approval", detail, "set it to true, or leave `substitution` out"))
    for place, one in enumerate(declarations):
        at = f"/parameters/{place}"
        if one.type == "secret":
            detail = f"the secret `{one.name}` would stand in the text of the script"
            errors.append(told(f"{at}/type", detail, "leave `substitution` out: secrets are variables only"))
        elif one.type == "string" and not one.pattern and one.choices is None:
            detail = f"the text of `{one.name}` would be pasted as it is"
            errors.append(told(f"{at}/pattern", detail, "declare a `pattern` or `choices`"))
        elif risky := _risky(one):
            shown = (
                " ".join(repr(character)[1:-1] for character in risky if not character.isspace()) or "blanks"
            )
            detail = f"`{one.name}` may hold what means something to a shell: {shown}"
            warnings.append(told(f"{at}/pattern", detail, "allow fewer characters"))
    return errors, warnings


def _risky(one: ScriptParameter) -> str:
    if one.choices is not None:
        return "".join(
            sorted({letter for text in one.choices for letter in str(text) if letter in METACHARACTERS})
        )
    return patterns.parse(one.pattern).characters_of(METACHARACTERS) if one.pattern else ""


def render_text(body: str, declarations: Sequence[ScriptParameter], values: Mapping[str, Any]) -> str:
    """The body with each `${name}` of a parameter replaced by its bound value, in one pass from left to right.

    What was put in is not looked at again, and other placeholders stay as they are.
    """
    texts = {one.name: env_text(one.type, values.get(one.name)) for one in declarations}
    return _PLACEHOLDER.sub(lambda found: texts.get(found[1], found[0]), body)
