"""What may be run, and whether something may: entries for commands and scripts, judged by their text alone.

Used twice, with one meaning: by control for what people make up on the spot, and by a node for every job it gets.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from app.allow.patterns import Pattern, Resolve
from app.allow.programs import SEARCH_PATH

ENFORCE, AUDIT, OFF = "enforce", "audit", "off"
MODES = (ENFORCE, AUDIT, OFF)
"""`enforce` refuses what no entry allows; `audit` lets it run and says so; `off` does not look at entries."""

_BOUND = re.compile(r"MUSTER_V[0-9]{1,9}\Z")
"""Variables of this form carry the values that were bound into a script's text: data, whatever they hold."""

LONGEST_VALUE = 4096
_SHOWN = 80


def digest_of(script: str) -> str:
    """The digest by which an entry names the exact text of a script."""
    return "sha256:" + hashlib.sha256(script.encode("utf-8", "surrogatepass")).hexdigest()


def shown(text: str) -> str:
    """A text as it may stand in a message: cut, and with nothing in it that moves a cursor."""
    cut = text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
    return f"`{''.join(one if one.isprintable() else '·' for one in cut)}`"


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be run: `argv`, or `script` by `shell`; with these variables, in this directory (None: its own)."""

    argv: Sequence[str] | None = None
    script: str | None = None
    shell: str = "sh"
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str | None = None


@dataclass(frozen=True, slots=True)
class Option:
    """A word that begins with `-`; with `value`, the word after it belongs to it."""

    word: Pattern
    value: Pattern | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """What every entry has. `number` counts from 1 in its file; `environment` are names, some ending in `*`."""

    number: int
    environment: tuple[str, ...] = ()
    cwd: tuple[Pattern, ...] = ()
    unsafe: bool = False
    note: str = ""


@dataclass(frozen=True, slots=True)
class ScriptEntry(Entry):
    """The exact text of a script, by its digest, run by one shell."""

    digest: str = ""
    shell: str = "sh"

    @property
    def title(self) -> str:
        return f"entry {self.number} (a script of {self.shell})"


@dataclass(frozen=True, slots=True)
class CommandEntry(Entry):
    """A program and the words that may follow it. `more` is for any number of arguments after `arguments`."""

    command: str = ""
    options: tuple[Option, ...] = ()
    arguments: tuple[Pattern, ...] = ()
    more: Pattern | None = None
    most: int = 0
    end_of_options: bool = False

    @property
    def title(self) -> str:
        return f"entry {self.number} ({self.command})"

    def mismatch(self, words: Sequence[str], resolve: Resolve | None = None) -> str:
        """Why the words after the program are not what this entry allows; empty if they are."""
        if len(words) > self.most:
            return f"it has {len(words)} words after the program, {self.most} are allowed"
        arguments: list[str] = []
        at, options_end = 0, False
        while at < len(words):
            word = words[at]
            at += 1
            if options_end or not word.startswith("-"):
                arguments.append(word)
            elif word == "--":
                if not self.end_of_options:
                    return "`--` is not allowed"
                options_end = True
            else:
                option = self._option(word, resolve)
                if option is None:
                    return f"the option {shown(word)} is not allowed"
                if option.value is not None:
                    if at == len(words):
                        return f"the option {shown(word)} needs a value"
                    if not option.value.matches(words[at], resolve):
                        return f"the option {shown(word)} may not have the value {shown(words[at])}"
                    at += 1
        return self._arguments_mismatch(arguments, resolve)

    def _option(self, word: str, resolve: Resolve | None) -> Option | None:
        return next((one for one in self.options if one.word.matches(word, resolve)), None)

    def _arguments_mismatch(self, words: Sequence[str], resolve: Resolve | None) -> str:
        for position, word in enumerate(words):
            inside = position < len(self.arguments)
            pattern = self.arguments[position] if inside else self.more
            if pattern is None:
                return f"the argument {shown(word)} is one too many"
            if not pattern.matches(word, resolve):
                return f"the argument {shown(word)} is not {shown(pattern.text)}"
        if len(words) < len(self.arguments):
            return f"the argument {shown(self.arguments[len(words)].text)} is missing"
        return ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether an entry allows it, which one, and why not. `denied` holds in every mode."""

    allowed: bool
    why: str = ""
    entry: CommandEntry | ScriptEntry | None = None
    denied: bool = False


@dataclass(frozen=True)
class Policy:
    """The content of one file. `problem` says why there is none: then nothing is allowed."""

    mode: str = ENFORCE
    entries: tuple[CommandEntry | ScriptEntry, ...] = ()
    environment: tuple[str, ...] = ()
    deny: frozenset[str] = frozenset()
    problem: str = ""

    @cached_property
    def _commands(self) -> Mapping[str, list[CommandEntry]]:
        found: dict[str, list[CommandEntry]] = {}
        for entry in self.entries:
            if isinstance(entry, CommandEntry):
                found.setdefault(entry.command, []).append(entry)
        return found

    @cached_property
    def _scripts(self) -> Mapping[tuple[str, str], ScriptEntry]:
        return {
            (entry.digest, entry.shell): entry for entry in self.entries if isinstance(entry, ScriptEntry)
        }

    def for_program(self, word: str) -> list[CommandEntry]:
        """The entries for a program as it is called: by their own spelling, or in a directory of the search path."""
        found = self._commands.get(word, [])
        directory, slash, name = word.rpartition("/")
        if slash and directory in SEARCH_PATH.split(":"):
            return [*found, *self._commands.get(name, [])]
        return found

    def judge(self, asked: Asked, resolve: Resolve | None = None) -> Verdict:
        """Whether this may be run. `resolve` follows symbolic links, where they can be followed: on the node."""
        if self.problem:
            return Verdict(False, self.problem)
        if asked.script is not None:
            return self._judge_script(asked, resolve)
        if not asked.argv:
            return Verdict(False, "there is no command")
        return self._judge_command(asked, asked.argv, resolve)

    def _judge_script(self, asked: Asked, resolve: Resolve | None) -> Verdict:
        digest = digest_of(asked.script or "")
        if digest in self.deny:
            return Verdict(False, f"the script {digest} is denied", denied=True)
        entry = self._scripts.get((digest, asked.shell))
        if entry is None:
            return Verdict(False, f"no entry is for this text, run by {asked.shell}: its digest is {digest}")
        why = self._surroundings(asked, entry, resolve)
        return Verdict(not why, why, entry)

    def _judge_command(self, asked: Asked, argv: Sequence[str], resolve: Resolve | None) -> Verdict:
        name = argv[0].rpartition("/")[2]
        if name in self.deny or argv[0] in self.deny:
            return Verdict(False, f"the program {shown(argv[0])} is denied", denied=True)
        reasons = []
        for entry in self.for_program(argv[0]):
            why = entry.mismatch(argv[1:], resolve) or self._surroundings(asked, entry, resolve)
            if not why:
                return Verdict(True, entry=entry)
            reasons.append(f"{entry.title}: {why}")
        if not reasons:
            return Verdict(False, f"no entry is for the program {shown(argv[0])}")
        more = f" (and {len(reasons) - 3} entries more)" if reasons[3:] else ""
        return Verdict(False, "; ".join(reasons[:3]) + more)

    def _surroundings(self, asked: Asked, entry: CommandEntry | ScriptEntry, resolve: Resolve | None) -> str:
        """Why the variables or the directory are not allowed; empty if they are."""
        known = (*self.environment, *entry.environment)
        for name, value in asked.env.items():
            if name == "PATH" and value == SEARCH_PATH:
                continue
            if _BOUND.match(name) and asked.script is not None:
                continue
            if not any(_names(pattern, name) for pattern in known):
                return f"the variable {shown(name)} is not allowed"
            if len(value) > LONGEST_VALUE or not value.isprintable():
                return f"the value of the variable {shown(name)} is too long or holds control characters"
        if asked.cwd is not None and not any(pattern.matches(asked.cwd, resolve) for pattern in entry.cwd):
            return f"the directory {shown(asked.cwd)} is not allowed as `cwd`"
        return ""


def _names(pattern: str, name: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern
