"""What a bound value must not reach in a shell command: places where a shell evaluates data as code.

A reference to a variable is data in nearly every place of a shell script. The exceptions are here: commands
that run their arguments (`eval`, `sh -c`), names of variables, and arithmetic, in which bash, ksh and zsh run
the `$(…)` of a subscript even when it comes out of a variable.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

QUOTED = "\1"


@dataclass(frozen=True, slots=True)
class Placeholder:
    """One `{{ … }}`: its text, the index where it starts, and whether it always gives an integer."""

    source: str
    start: int
    integer: bool


@dataclass(slots=True)
class Word:
    """A word of a command. A NUL stands for a placeholder, in `literal`, which is without its quotes, and in
    `bare`, in which QUOTED stands for whatever is quoted or expanded."""

    literal: str = ""
    bare: str = ""
    placeholders: list[Placeholder] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a placeholder must not stand where it stands, and the way out."""

    placeholder: Placeholder
    code: str
    message: str
    hint: str


INTEGER_HINT = (
    "if it is an integer, write `{{ … | int }}`; otherwise compare or compute outside of arithmetic"
)
_VARIABLE_HINT = "name the variable in the text and give it the value: `name={{ … }}`"
_CODE_HINT = "give the value as an argument: `sh -c 'echo \"$1\"' sh {{ … }}`"

_SHELLS = re.compile(r"(?:.*/)?(?:ba|da|k|mk|z|a)?sh")
_INTERPRETERS = re.compile(r"(?:.*/)?(?:python[0-9.]*|perl|ruby|node|php|lua)")
_SWITCH_USER = frozenset({"su", "runuser"})
_COMMANDS = frozenset({"-c", "--command"})
_RUN_ARGUMENTS = frozenset({"eval", "trap", "alias"})
_DECLARE = frozenset({"declare", "typeset", "local", "readonly", "export", "integer"})
_TAKE_NAMES = frozenset({"unset", "read", "mapfile", "readarray", "getopts"})
_WRAPPERS = frozenset({"command", "builtin", "exec", "sudo", "doas", "nohup", "time", "env"})
_COMPARISONS = frozenset({"-eq", "-ne", "-lt", "-le", "-gt", "-ge"})
ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\[[^\]]*\])?\+?=")


def find_block(text: str, start: int, end: int) -> tuple[int, str, str] | None:
    """The place of Jinja's `{%` or `{#` between `start` and `end`, a message and a hint; None without one.
    They count as marks only if they are closed: shells and awk write `{%` and `{#` as well."""
    for mark, closing, word, hint in (
        (
            "{%",
            "%}",
            "blocks",
            "choose within an expression: `{{ a if b else c }}`, or use the shell's own `if`",
        ),
        ("{#", "#}", "comments", "use the shell's own comments: # …"),
    ):
        place = text.find(mark, start, end)
        if place >= 0 and text.find(closing, place + 2) >= 0:
            return place, f"template {word} cannot be used in shell text", hint
    return None


def is_shell(words: list[Word]) -> bool:
    """Whether a command runs a shell, which then reads its here-document as code."""
    return any(_SHELLS.fullmatch(word.literal) for word in words)


def judge_command(words: list[Word], shell: str) -> Iterator[Refusal]:
    """What is wrong with the placeholders of one simple command (its words, assignments left out)."""
    if not any(word.placeholders for word in words):
        return
    yield from _judge_code_options(words)
    place = next((i for i, word in enumerate(words) if word.literal not in _WRAPPERS), 0)
    name, rest = words[place].literal, words[place + 1 :]
    if name in _RUN_ARGUMENTS:
        message = f"`{name}` runs its arguments as code, so that the value would be run"
        hint = (
            "call the command itself with the value as an argument, or assign the value to a variable first"
        )
        yield from _refuse(rest, "bind-code", message, hint)
    elif name == "let":
        yield from arithmetic(rest)
    elif name in _DECLARE:
        yield from _judge_declaration(name, rest)
    elif name in _TAKE_NAMES:
        message = f"`{name}` takes names of variables, and a shell evaluates such names"
        yield from _refuse(rest, "bind-name", message, _VARIABLE_HINT, integers=True)
    elif name in ("[", "test"):
        # Only ksh and zsh take the sides of -eq for expressions here; bash and dash want plain numbers.
        yield from judge_test(rest, comparisons=shell in ("ksh", "zsh"))
    elif name == "printf" and rest and rest[0].literal == "-v":
        yield from _refuse(rest[1:2], "bind-name", "`printf -v` takes the name of a variable", _VARIABLE_HINT)


def judge_test(words: list[Word], comparisons: bool = True) -> Iterator[Refusal]:
    """What is wrong within `[[ … ]]` or `[ … ]`: the sides of -eq and the like are arithmetic, and -v and -R
    take names."""
    for place, word in enumerate(words):
        if comparisons and word.bare in _COMPARISONS:
            yield from arithmetic(words[max(place - 1, 0) : place] + words[place + 1 : place + 2])
        elif word.literal in ("-v", "-R"):
            message = f"`{word.literal}` takes the name of a variable"
            yield from _refuse(words[place + 1 : place + 2], "bind-name", message, _VARIABLE_HINT)


def arithmetic(words: list[Word]) -> Iterator[Refusal]:
    """Refuse what is not always an integer."""
    message = "a shell evaluates arithmetic, so that a text in it can run commands"
    yield from _refuse(words, "bind-arithmetic", message, INTEGER_HINT, integers=True)


def _refuse(
    words: list[Word], code: str, message: str, hint: str, integers: bool = False
) -> Iterator[Refusal]:
    for word in words:
        for placeholder in word.placeholders:
            if not (integers and placeholder.integer):
                yield Refusal(placeholder, code, message, hint)


def _judge_code_options(words: list[Word]) -> Iterator[Refusal]:
    """Programs that take code as an argument. More do (ssh, awk, psql); these are the ones where nothing else
    can have been meant."""
    for place, word in enumerate(words):
        rest = words[place + 1 :]
        code: list[Word] = []
        if _SHELLS.fullmatch(word.literal):
            code = _after_options(rest, "c")
        elif _INTERPRETERS.fullmatch(word.literal):
            code = _after_options(rest, "ceEr")
        elif word.literal in _SWITCH_USER:
            code = [after for option, after in pairwise(rest) if option.literal in _COMMANDS]
        message = f"`{word.literal}` runs this text as code, so that the value would be run"
        yield from _refuse(code, "bind-code", message, _CODE_HINT)


def _after_options(words: list[Word], letters: str) -> list[Word]:
    """The word after the options, if one of these has one of `letters`: it is code."""
    runs = False
    for place, word in enumerate(words):
        if not re.match(r"[-+]", word.literal):
            return (
                [word] if runs and (place == 0 or words[place - 1].literal not in ("-o", "-O", "+O")) else []
            )
        runs = runs or (
            not word.literal.startswith("--") and any(letter in word.literal for letter in letters)
        )
    return []


def _judge_declaration(name: str, words: list[Word]) -> Iterator[Refusal]:
    integers = name == "integer" or any(re.match(r"[-+][a-zA-Z]*i", word.literal) for word in words)
    for word in words:
        if "\0" in word.literal.partition("=")[0]:
            message = f"`{name}` takes the name of a variable here, and a shell evaluates such names"
            yield from _refuse([word], "bind-name", message, _VARIABLE_HINT)
        elif integers:
            yield from arithmetic([word])
