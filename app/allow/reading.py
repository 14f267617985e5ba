"""From plain data (of YAML or TOML) to a policy, with every problem at its place."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from app.allow.patterns import BadPattern, Pattern, parse
from app.allow.policy import ENFORCE, MODES, CommandEntry, Entry, Option, Policy, ScriptEntry
from app.allow.programs import is_unsafe, is_unsafe_variable

VERSION = 1
MOST_ENTRIES, MOST_ITEMS, MOST_WORDS, LONGEST_TEXT = 2000, 100, 256, 1000
MORE_WORDS = 16
"""How many arguments `more` stands for where an entry does not say `most`."""

Path = tuple[str | int, ...]
Report = Callable[[Path, str, str, str], None]
"""Takes the place (keys and positions from the top), the code, the message and the hint of one problem."""

OF_FILE = ("version", "mode", "environment", "deny", "entries")
_SHARED = ("environment", "cwd", "unsafe", "note")
OF_COMMAND = ("command", "options", "arguments", "more", "most", "end_of_options", *_SHARED)
OF_SCRIPT = ("script", "shell", *_SHARED)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}\*?\Z")
_PROGRAM = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,127}\Z")
_SHELL = re.compile(r"[a-z][a-z0-9]{0,31}\Z")
_OPTION_START = re.compile(r"-[A-Za-z0-9]\Z|--[A-Za-z0-9][A-Za-z0-9_-]*=\Z")


def read(data: Any, report: Report) -> Policy:
    """The policy in plain data. What is wrong is reported, and the result then good for nothing."""
    return _Reader(report).policy(data)


class _Reader:
    def __init__(self, report: Report) -> None:
        self._report = report

    def _wrong(self, path: Path, message: str, hint: str = "", *, code: str) -> None:
        self._report(path, code, message, hint)

    def policy(self, data: Any) -> Policy:
        if not self._is_table(data, (), OF_FILE):
            return Policy(problem="it is no mapping")
        if data.get("version") != VERSION or isinstance(data["version"], bool):
            path: Path = ("version",) if "version" in data else ()
            self._wrong(path, f"`version` must be {VERSION}", code="bad-value")
        mode = data.get("mode", ENFORCE)
        if mode not in MODES:
            self._wrong(("mode",), f"`mode` must be one of {', '.join(MODES)}", code="bad-choice")
        entries = self._list(data, (), "entries", MOST_ENTRIES)
        found = [self._entry(entry, ("entries", at), at + 1) for at, entry in enumerate(entries)]
        return Policy(
            str(mode),
            tuple(one for one in found if one is not None),
            self._variables(data, (), unsafe=False),
            self._denied(data),
        )

    def _denied(self, data: Mapping[str, Any]) -> frozenset[str]:
        found = set()
        for at, text in self._texts(data, (), "deny"):
            if _is_program(text) or _DIGEST.match(text):
                found.add(text)
            else:
                message = "it must be a program, or the digest of a script as sha256:…"
                self._wrong(("deny", at), message, code="bad-value")
        return frozenset(found)

    def _entry(self, data: Any, path: Path, number: int) -> CommandEntry | ScriptEntry | None:
        if not isinstance(data, Mapping) or ("command" in data) == ("script" in data):
            message = "an entry is a mapping with either `command` or `script`"
            self._wrong(path, message, code="one-of")
            return None
        if not self._is_table(data, path, OF_COMMAND if "command" in data else OF_SCRIPT):
            return None
        unsafe = self._flag(data, path, "unsafe")
        shared = Entry(
            number,
            self._variables(data, path, unsafe=unsafe),
            self._patterns(data, path, "cwd"),
            unsafe,
            self._text(data, path, "note", ""),
        )
        return self._command(data, path, shared) if "command" in data else self._script(data, path, shared)

    def _script(self, data: Mapping[str, Any], path: Path, shared: Entry) -> ScriptEntry:
        digest = self._text(data, path, "script", "")
        if isinstance(data["script"], str) and not _DIGEST.match(digest):
            self._wrong(
                (*path, "script"),
                "`script` must be sha256: and 64 hexadecimal digits",
                "`muster allowlist test --script FILE` prints them",
                code="bad-value",
            )
        shell = self._text(data, path, "shell", "sh")
        if not _SHELL.match(shell):
            self._wrong((*path, "shell"), "`shell` must name a shell, such as bash", code="bad-value")
        return ScriptEntry(
            shared.number, shared.environment, shared.cwd, shared.unsafe, shared.note, digest, shell
        )

    def _command(self, data: Mapping[str, Any], path: Path, shared: Entry) -> CommandEntry:
        command = self._text(data, path, "command", "")
        if isinstance(data["command"], str) and not _is_program(command):
            message = "`command` must be the name of a program, or its absolute path without `.` and `..`"
            hint = "words that follow it belong to `arguments` and `options`"
            self._wrong((*path, "command"), message, hint, code="bad-value")
        elif is_unsafe(command.rpartition("/")[2]) and not shared.unsafe:
            self._wrong(
                (*path, "command"),
                f"{command} can run any other program: to allow it is to allow everything",
                "allow a script by its digest; or write `unsafe: true` if that is meant",
                code="unsafe-program",
            )
        options = self._options(data, path)
        arguments = self._patterns(data, path, "arguments")
        more = self._pattern(data["more"], (*path, "more")) if "more" in data else None
        end_of_options = self._flag(data, path, "end_of_options")
        for at, pattern in enumerate((*arguments, *([more] if more else []))):
            if pattern.prefix.startswith("-") and not end_of_options:
                here = (*path, "arguments", at) if at < len(arguments) else (*path, "more")
                message = "a word that begins with `-` is an option, never an argument"
                self._wrong(here, message, "move it to `options`", code="bad-pattern")
        words = len(arguments) + 2 * len(options) + 1 + (MORE_WORDS if more else 0)
        return CommandEntry(
            shared.number,
            shared.environment,
            shared.cwd,
            shared.unsafe,
            shared.note,
            command,
            options,
            arguments,
            more,
            self._most(data, path, min(words, MOST_WORDS)),
            end_of_options,
        )

    def _options(self, data: Mapping[str, Any], path: Path) -> tuple[Option, ...]:
        found = []
        for at, text in self._texts(data, path, "options"):
            here = (*path, "options", at)
            name, blank, value = text.partition(" ")
            word = self._pattern(name, here)
            rest = self._pattern(value, here) if blank else None
            if word is None or (blank and rest is None):
                continue
            if not name.startswith("-") or name in ("-", "--"):
                hint = "other words belong to `arguments`"
                self._wrong(here, "an option begins with `-` and has a name", hint, code="bad-pattern")
            elif word.kind and (blank or not _OPTION_START.match(word.prefix)):
                message = "a wildcard in an option stands right after its name"
                hint = "write `-n{int}`, `--lines={int}`, or `-n {int}` for two words"
                self._wrong(here, message, hint, code="bad-pattern")
            else:
                found.append(Option(word, rest))
        return tuple(found)

    def _variables(self, data: Mapping[str, Any], path: Path, *, unsafe: bool) -> tuple[str, ...]:
        found = []
        for at, name in self._texts(data, path, "environment"):
            here = (*path, "environment", at)
            if not _VARIABLE.match(name):
                message = "it must be the name of a variable; it may end in `*`"
                self._wrong(here, message, code="bad-name")
            elif is_unsafe_variable(name) and not unsafe:
                message = f"who sets {name} decides what programs load or run"
                hint = "leave it out; an entry that means it says `unsafe: true`"
                self._wrong(here, message, hint, code="unsafe-variable")
            else:
                found.append(name)
        return tuple(found)

    # kinds of values

    def _is_table(self, data: Any, path: Path, known: tuple[str, ...]) -> bool:
        if not isinstance(data, Mapping):
            self._wrong(path, "it must be a mapping of keys to values", code="wrong-type")
            return False
        for key in data:
            if key not in known:
                hint = f"known: {', '.join(known)}"
                self._wrong((*path, key), f"there is no key `{key}` here", hint, code="unknown-key")
        return True

    def _list(self, data: Mapping[str, Any], path: Path, key: str, most: int) -> list[Any]:
        value = data.get(key, [])
        if not isinstance(value, list):
            self._wrong((*path, key), f"`{key}` must be a list", code="wrong-type")
            return []
        if len(value) > most:
            message = f"`{key}` has {len(value)} items, {most} are allowed"
            self._wrong((*path, key), message, code="out-of-range")
            return []
        return value

    def _texts(self, data: Mapping[str, Any], path: Path, key: str) -> list[tuple[int, str]]:
        """Position and text of each item that is a text."""
        values = self._list(data, path, key, MOST_ITEMS)
        return [(at, value) for at, value in enumerate(values) if self._is_text(value, (*path, key, at))]

    def _text(self, data: Mapping[str, Any], path: Path, key: str, default: str) -> str:
        value = data.get(key, default)
        return str(value) if self._is_text(value, (*path, key)) else default

    def _is_text(self, value: Any, path: Path) -> bool:
        if not isinstance(value, str):
            self._wrong(path, "it must be a text", 'put it in quotes: "…"', code="wrong-type")
            return False
        if len(value) > LONGEST_TEXT or not value.isprintable():
            message = f"it is longer than {LONGEST_TEXT} characters, or holds control characters"
            self._wrong(path, message, code="out-of-range")
            return False
        return True

    def _patterns(self, data: Mapping[str, Any], path: Path, key: str) -> tuple[Pattern, ...]:
        found = (self._pattern(text, (*path, key, at)) for at, text in self._texts(data, path, key))
        return tuple(pattern for pattern in found if pattern is not None)

    def _pattern(self, text: Any, path: Path) -> Pattern | None:
        if not self._is_text(text, path):
            return None
        try:
            return parse(text)
        except BadPattern as problem:
            self._report(path, problem.code, problem.message, problem.hint)
            return None

    def _flag(self, data: Mapping[str, Any], path: Path, key: str) -> bool:
        value = data.get(key, False)
        if not isinstance(value, bool):
            self._wrong((*path, key), f"`{key}` must be true or false", code="wrong-type")
        return value is True

    def _most(self, data: Mapping[str, Any], path: Path, default: int) -> int:
        value = data.get("most", default)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST_WORDS:
            message = f"`most` must be a whole number from 0 to {MOST_WORDS}"
            self._wrong((*path, "most"), message, code="out-of-range")
            return 0
        return value


def _is_program(text: str) -> bool:
    """Whether this is a name, or an absolute path each part of which is one."""
    if not text.startswith("/"):
        return bool(_PROGRAM.match(text))
    return all(_PROGRAM.match(part) for part in text[1:].split("/"))
