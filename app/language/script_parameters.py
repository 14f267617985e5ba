"""Parameters of saved scripts: how they are declared, and how a caller's values are bound to them.

Values reach a script as data: as environment variables named like the parameters, as the text that `env_text` gives.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from app.errors import InvalidInput
from app.language import parameters, patterns
from app.language.model import Parameter
from app.language.problems import nearest, shown

TYPES: Final = ("string", "integer", "boolean", "float", "secret")
MOST_UNKNOWN: Final = 100
"""Names that are none of the script's, told of at the most."""
MOST_VALUE: Final = 65_536
"""Bytes of one text, as UTF-8. Systems carry 131,071 in one variable."""
MOST_VALUES: Final = 1_000_000
"""Bytes of all texts together."""

NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}\Z", re.ASCII)
NAME_RULE: Final = "letters, digits and `_`, not starting with a digit, 64 at the most"

CMD_VALUE: Final = re.compile(r"[A-Za-z0-9 _.:\\/@=,+-]*\Z", re.ASCII)
"""What a text may hold where cmd is to read it."""
CMD_RULE: Final = "letters, digits, blanks and _ . : \\ / @ = , + - only"

TEXTS: Final = ("string", "secret")

Told = dict[str, str]
"""{pointer, detail, hint} of one thing that is wrong."""


@dataclass(frozen=True, slots=True)
class ScriptParameter:
    """One declared parameter of a saved script.

    `min` and `max` are limits of a number, and of the length in characters of a text. `pattern` is one of `patterns`
    and meets the whole text, `choices` are all the values there are. `default` counts only if `has_default`.
    """

    name: str
    type: str = "string"
    required: bool = False
    has_default: bool = False
    default: Any = None
    description: str = ""
    pattern: str = ""
    min: int | float | None = None
    max: int | float | None = None
    choices: tuple[Any, ...] | None = None


def from_json(given: Mapping[str, Any]) -> ScriptParameter:
    """A declaration as `to_json` gives it, or as somebody wrote it: `script_declarations` tells what is wrong then."""
    choices = given.get("choices")
    return ScriptParameter(
        name=given.get("name", ""),
        type=given.get("type", "string"),
        required=given.get("required", False),
        has_default=given.get("default") is not None,
        default=given.get("default"),
        description=given.get("description", ""),
        pattern=given.get("pattern") or "",
        min=given.get("min"),
        max=given.get("max"),
        choices=None if choices is None else tuple(choices) if isinstance(choices, list | tuple) else choices,
    )


def to_json(declared: ScriptParameter) -> dict[str, Any]:
    """The declaration as a JSON map: name, type and required always, the rest where it says something."""
    found: dict[str, Any] = {"name": declared.name, "type": declared.type, "required": declared.required}
    if declared.has_default:
        found["default"] = declared.default
    for key in ("description", "pattern"):
        if getattr(declared, key):
            found[key] = getattr(declared, key)
    for key in ("min", "max"):
        if getattr(declared, key) is not None:
            found[key] = getattr(declared, key)
    if declared.choices is not None:
        found["choices"] = list(declared.choices)
    return found


def refused(errors: Sequence[Told], code: str) -> InvalidInput:
    """One error that tells the first problem, and all of them in its detail."""
    rest = f" (and {len(errors) - 1} more)" if errors[1:] else ""
    return InvalidInput(errors[0]["detail"] + rest, hint=errors[0]["hint"], code=code, errors=list(errors))


def told(pointer: str, detail: str, hint: str = "") -> Told:
    """One thing that is wrong; `pointer` is a JSON pointer."""
    return {"pointer": pointer, "detail": detail, "hint": hint}


def step(name: Any) -> str:
    """A name as a step of a JSON pointer."""
    return str(name)[:100].replace("~", "~0").replace("/", "~1")


def bind(
    declarations: Sequence[ScriptParameter],
    given: Mapping[str, Any],
    pointer: str = "/parameter_values",
    shell: str = "",
) -> dict[str, Any]:
    """The typed values of all declared parameters, in the order declared.

    A text counts for an integer, float or boolean if it spells one, and a whole number for a float; nothing else is
    converted. A parameter that is not given has its default, else null; null takes the place of a default unless the
    parameter is required. With `shell` cmd, texts must be CMD_VALUE. Raises InvalidInput whose `errors` tell everything
    that is wrong, with a pointer below `pointer`.
    """
    errors = list(_unknown(declarations, given, pointer))
    bound: dict[str, Any] = {}
    size = 0
    for one in declarations:
        at = f"{pointer}/{step(one.name)}"
        value = given.get(one.name)
        if value is None and (one.name not in given or one.required):
            if one.required and not one.has_default:
                hint = one.description or f"give {parameters.wanted(one.type)}"
                errors.append(told(at, f"the parameter `{one.name}` is required", hint))
            value = one.default if one.has_default else None
        if value is not None:
            value = _typed(one.type, value)
            wrong = wrong_with(one, value) or not_for(shell, value)
            if wrong:
                errors.append(told(at, f"the parameter `{one.name}` {wrong[0]}", wrong[1]))
            elif isinstance(value, str):
                size += len(value.encode())
        bound[one.name] = value
    if size > MOST_VALUES:
        detail = f"the values have {size} bytes together, {MOST_VALUES} are the most"
        errors.append(told(pointer, detail, "bring large texts to the nodes in another way"))
    if errors:
        raise refused(errors, "invalid-parameters")
    return bound


def _unknown(
    declarations: Sequence[ScriptParameter], given: Mapping[str, Any], pointer: str
) -> Iterator[Told]:
    known = {one.name for one in declarations}
    listed = f"known here: {', '.join(sorted(known))}" if known else "this script takes no parameters"
    compared = 0
    for name in given:
        if name not in known:
            compared += 1
            near = nearest(str(name)[:100], known) if compared <= 20 else ""
            hint = f"did you mean `{near}`?" if near else listed
            yield told(f"{pointer}/{step(name)}", f"there is no parameter {shown(name)}", hint)
            if compared == MOST_UNKNOWN:
                return


def _typed(kind: str, value: Any) -> Any:
    value = parameters.spelled(kind, value)
    if kind == "float" and parameters.accepts("integer", value):
        return float(value)
    return value


def wrong_with(one: ScriptParameter, value: Any) -> tuple[str, str] | None:
    """What is wrong with a typed value, as the end of a sentence, and a hint; None if nothing is. No secret is told."""
    is_told = one.type != "secret" and isinstance(value, str | int | float)
    seen = f", not {_shown(value)}" if is_told else ""
    if not parameters.accepts(one.type, value):
        if isinstance(value, str) and one.type in TEXTS:
            return "holds the character NUL", "remove it"
        return f"must be {parameters.wanted(one.type)}{seen}", f"its type is {one.type}"
    if isinstance(value, str) and (wrong := _wrong_text(value)):
        return wrong
    if wrong := _out_of_limits(one, value, seen):
        return wrong
    if one.pattern and not patterns.parse(one.pattern).matches(value):
        if len(value) > patterns.LONGEST_VALUE:
            return f"has a pattern, so it can have {patterns.LONGEST_VALUE} characters at most", ""
        return (
            f"does not match its pattern{f': {_shown(value)}' if is_told else ''}",
            f"the pattern is {shown(one.pattern)}, for the whole value",
        )
    if one.choices is not None and value not in one.choices:
        texts = [text for text in one.choices if isinstance(text, str)]
        near = nearest(value[:100], texts) if isinstance(value, str) else ""
        listed = ", ".join(_shown(choice) for choice in one.choices[:20])
        return f"cannot be {_shown(value)}", f"did you mean `{near}`?" if near else f"one of {listed}"
    return None


def _wrong_text(value: str) -> tuple[str, str] | None:
    if (size := len(value.encode("utf-8", "surrogatepass"))) > MOST_VALUE:
        return f"has {size} bytes, {MOST_VALUE} are the most", "bring large texts to the nodes in another way"
    return None if is_storable(value) else ("holds a character that no text may hold", "remove it")


def _out_of_limits(one: ScriptParameter, value: Any, seen: str) -> tuple[str, str] | None:
    is_text = isinstance(value, str)
    size = len(value) if is_text else value
    for limit, is_beyond, word in (
        (one.min, one.min is not None and size < one.min, "least"),
        (one.max, one.max is not None and size > one.max, "most"),
    ):
        if limit is not None and is_beyond:
            number = env_text("float" if isinstance(limit, float) else "integer", limit)
            return (
                f"must have {number} characters at {word}"
                if is_text
                else f"must be {number} at {word}{seen}",
                "",
            )
    return None


def is_storable(text: str) -> bool:
    """Whether every database takes the text."""
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def not_for(shell: str, value: Any) -> tuple[str, str] | None:
    """As `wrong_with`: what is wrong with a typed value for scripts of `shell`."""
    if shell == "cmd" and isinstance(value, str) and not CMD_VALUE.match(value):
        return "holds a character that cmd could take for more than text", CMD_RULE
    return None


def _shown(value: Any) -> str:
    return shown(str(value).lower() if isinstance(value, bool) else value)


def env_text(kind: str, value: Any) -> str:
    """What a script sees of a bound value of type `kind`: true and false, numbers in plain decimal, null as nothing."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) or kind == "float":
        return format(Decimal(repr(float(value))), "f")
    return str(value)


def as_workflow(declarations: Sequence[ScriptParameter]) -> tuple[Parameter, ...]:
    """The same parameters as a workflow declares them; what a workflow does not know, `bind` has checked."""
    return tuple(
        Parameter(
            one.name,
            one.type,
            required=one.required,
            has_default=one.has_default,
            default=one.default,
            enum=one.choices,
            description=one.description,
        )
        for one in declarations
    )
