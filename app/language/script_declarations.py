"""How the parameters of saved scripts are declared, and everything that can be wrong with a declaration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from app.language import parameters, patterns
from app.language.problems import nearest, shown
from app.language.reserved_names import is_reserved
from app.language.script_parameters import (
    MOST_VALUE,
    NAME,
    NAME_RULE,
    TEXTS,
    TYPES,
    ScriptParameter,
    Told,
    from_json,
    is_storable,
    not_for,
    refused,
    step,
    told,
    wrong_with,
)

MOST_PARAMETERS: Final = 100
MOST_CHOICES: Final = 100
MOST_PLACES: Final = 2000
"""Places of all patterns of one script together: see `patterns`."""
LONGEST_DESCRIPTION: Final = 1000
LONGEST_CHOICE: Final = 1000

_KEYS = ("name", "type", "required", "default", "description", "pattern", "min", "max", "choices")


def read(given: Any, shell: str, pointer: str = "/parameters") -> tuple[ScriptParameter, ...]:
    """Declarations as a caller wrote them, JSON values. Raises InvalidInput whose `errors` tell everything wrong."""
    errors = list(_misshapen(given, pointer))
    found: tuple[ScriptParameter, ...] = ()
    if not errors:
        found = tuple(from_json(one) for one in given)
        errors = check(found, shell, pointer)
    if errors:
        raise refused(errors, "invalid-script")
    return found


def _misshapen(given: Any, pointer: str) -> Iterator[Told]:
    """What is wrong with the keys, before any value is looked at."""
    if not isinstance(given, list | tuple):
        yield told(pointer, "the parameters must be a list", "write [{name: target, type: string}]")
        return
    if len(given) > MOST_PARAMETERS:
        yield told(pointer, f"there are {len(given)} parameters, {MOST_PARAMETERS} are the most")
        return
    for place, one in enumerate(given):
        at = f"{pointer}/{place}"
        if not isinstance(one, Mapping):
            yield told(at, "a parameter must be an object", "write {name: target, type: string}")
            continue
        for key in one:
            if key not in _KEYS:
                near = nearest(str(key)[:100], _KEYS)
                hint = f"did you mean `{near}`?" if near else f"known here: {', '.join(_KEYS)}"
                yield told(f"{at}/{step(key)}", f"a parameter has no {shown(key)}", hint)


def check(
    declarations: Sequence[ScriptParameter], shell: str = "", pointer: str = "/parameters"
) -> list[Told]:
    """Everything that is wrong with the declarations of a script of `shell`; an empty list if nothing is."""
    errors: list[Told] = []
    seen: dict[str, str] = {}
    places = 0
    for place, one in enumerate(declarations):
        at = f"{pointer}/{place}"
        found = list(_of_name(one, shell, seen, at)) + list(_of_type(one, at))
        if not found:
            found = list(_of_limits(one, at))
        if not found:
            found = list(_of_values(one, shell, at))
        if not found and one.pattern:
            places += len(patterns.parse(one.pattern).follow)
            if places > MOST_PLACES:
                detail = f"written out, the patterns have more than {MOST_PLACES} characters together"
                found.append(told(f"{at}/pattern", detail, "make them simpler, or use `max` for the length"))
                places = 0
        errors += found
    return errors


def _of_name(one: ScriptParameter, shell: str, seen: dict[str, str], at: str) -> Iterator[Told]:
    name: Any = one.name
    if not isinstance(name, str) or not NAME.match(name):
        yield told(f"{at}/name", f"{shown(name)} cannot be the name of a parameter", NAME_RULE)
        return
    if is_reserved(one.name, shell):
        detail = f"the name {shown(one.name)} is taken: it means something to shells or programs"
        yield told(
            f"{at}/name", detail, "choose another; docs/user/guides/scripts.md lists those that are taken"
        )
    folded = one.name.lower()
    if folded in seen:
        first = seen[folded]
        how = (
            "stands here again" if first == one.name else f"differs from {shown(first)} in its capitals only"
        )
        yield told(f"{at}/name", f"the name {shown(one.name)} {how}", "give each parameter a name of its own")
    seen.setdefault(folded, one.name)


def _of_type(one: ScriptParameter, at: str) -> Iterator[Told]:
    kind: Any = one.type
    if not isinstance(kind, str) or kind not in TYPES:
        near = nearest(kind, TYPES) if isinstance(kind, str) and len(kind) < 100 else ""
        hint = f"did you mean `{near}`?" if near else f"one of {', '.join(TYPES)}"
        yield told(f"{at}/type", f"{shown(kind)} is no type of a parameter", hint)
    required: Any = one.required
    if not isinstance(required, bool):
        yield told(f"{at}/required", "`required` must be true or false")
    description: Any = one.description
    if not isinstance(description, str) or len(description) > LONGEST_DESCRIPTION:
        yield told(
            f"{at}/description", f"the description must be a text of {LONGEST_DESCRIPTION} characters at most"
        )
    elif not is_storable(description):
        yield told(
            f"{at}/description", "the description holds a character that no text may hold", "remove it"
        )


def _of_limits(one: ScriptParameter, at: str) -> Iterator[Told]:
    for key in ("min", "max"):
        if (limit := getattr(one, key)) is not None:
            yield from _of_limit(one, key, limit, at)
    pattern: Any = one.pattern
    if not pattern:
        return
    if one.type not in TEXTS:
        yield told(f"{at}/pattern", f"a parameter of type {one.type} has no pattern", "use `min` and `max`")
    elif not isinstance(pattern, str):
        yield told(f"{at}/pattern", "the pattern must be a text")
    else:
        try:
            patterns.parse(pattern)
        except patterns.BadPattern as error:
            yield told(f"{at}/pattern", error.message, error.hint)


def _of_limit(one: ScriptParameter, key: str, limit: Any, at: str) -> Iterator[Told]:
    if one.type == "boolean":
        yield told(f"{at}/{key}", f"a parameter of type boolean has no `{key}`", "remove it")
        return
    kind = "float" if one.type == "float" else "integer"
    if not parameters.accepts(kind, limit):
        yield told(f"{at}/{key}", f"`{key}` must be {parameters.wanted(kind)}")
    elif one.type in TEXTS and not 0 <= limit <= MOST_VALUE:
        detail = f"`{key}` is the length of a text: from 0 to {MOST_VALUE} characters"
        yield told(f"{at}/{key}", detail)
    elif key == "max" and parameters.accepts(kind, one.min) and one.min is not None and one.min > limit:
        yield told(f"{at}/max", "`max` is less than `min`: no value can be right", "exchange the two")


def _of_values(one: ScriptParameter, shell: str, at: str) -> Iterator[Told]:
    if one.type == "secret":
        for key, there in (("default", one.has_default), ("choices", one.choices is not None)):
            if there:
                hint = "leave it out; let the caller give the value"
                yield told(f"{at}/{key}", "a secret would stand here for all to read", hint)
        return
    if one.choices is not None:
        found = list(_of_choices(one, shell, at))
        yield from found
        if found:
            return
    if one.has_default and (wrong := wrong_with(one, one.default) or not_for(shell, one.default)):
        yield told(f"{at}/default", f"the default of `{one.name}` {wrong[0]}", wrong[1])


def _of_choices(one: ScriptParameter, shell: str, at: str) -> Iterator[Told]:
    choices: Any = one.choices
    if one.type == "boolean":
        yield told(f"{at}/choices", "a parameter of type boolean has no choices", "it is true or false")
    elif not isinstance(choices, tuple) or not 1 <= len(choices) <= MOST_CHOICES:
        yield told(f"{at}/choices", f"`choices` must be a list of 1 to {MOST_CHOICES} values")
    else:
        without = replace(one, choices=None)
        for place, choice in enumerate(choices):
            wrong = wrong_with(without, choice) or not_for(shell, choice)
            if wrong is None and isinstance(choice, str) and len(choice) > LONGEST_CHOICE:
                wrong = (f"is longer than {LONGEST_CHOICE} characters", "")
            if wrong is None and choice in choices[:place]:
                wrong = ("stands there twice", "remove one of the two")
            if wrong:
                yield told(f"{at}/choices/{place}", f"a choice of `{one.name}` {wrong[0]}", wrong[1])
