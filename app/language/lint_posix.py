"""Lint of scripts of sh, dash, bash, ksh and zsh: where a parameter's `$name` or `${name}` is no data to the shell.

The reading is that of values in shell text (`shellscan`), whose places are refused there for the same reasons.
Variables that are no parameters are left alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final, NoReturn, cast

from app.language.findings import Finding, Findings
from app.language.heredocs import Heredoc
from app.language.shellframes import Frame, Kind
from app.language.shellrules import ASSIGNMENT, Placeholder, Refusal, Word, is_shell
from app.language.shellscan import Raise, Scanner

_REFERENCE = re.compile(r"\$(?:\{([!#]?)([A-Za-z_][A-Za-z0-9_]*)(\})?|([A-Za-z_][A-Za-z0-9_]*))")
_BARE = re.compile(r"(?<![A-Za-z0-9_#$.])[A-Za-z_][A-Za-z0-9_]*")
_OFFSET = re.compile(r"\$\{[!#]?[A-Za-z0-9_@*]+(?:\[[^\]]*\])?:(?![-+=?])")
_SUBSCRIPT = re.compile(r"\$\{[!#]?[A-Za-z_][A-Za-z0-9_]*\[[^\]]*\Z")
_ASSOCIATIVE = re.compile(r"\b(?:declare|typeset|local|readonly)\s+-[A-Za-z]*A")
_COMPARISONS = frozenset({"-eq", "-ne", "-lt", "-le", "-gt", "-ge"})
_DECLARE = frozenset({"declare", "typeset", "local", "readonly", "export"})
_EXPAND_LATER = frozenset({"eval", "trap", "alias", "envsubst"})
_CODES: Final = {
    "bind-arithmetic": "lint-arithmetic",
    "bind-code": "lint-code",
    "bind-name": "lint-name",
    "bind-braces": "lint-braces",
}
_MOST_WORDS = 1000
_DEEPEST = 100
_LONGEST_WORD = 10_000


def lint(text: str, shell: str, types: dict[str, str]) -> list[Finding]:
    """Findings of a script; `types` are those of its parameters by name."""
    if not any(name in text for name in types):
        return []
    return _Lint(text, shell, types).findings()


def _nothing(_: Any) -> NoReturn:
    raise AssertionError("a saved script has no templates")


class _TooDeep(Exception):
    """The text is nested deeper than anybody writes."""


class _Lint(Scanner):
    """The scanner with other placeholders: the parameters' references. It notes and goes on instead of refusing."""

    def __init__(self, text: str, shell: str, types: dict[str, str]) -> None:
        text = text if text.endswith("\n") else text + "\n"
        super().__init__(text, shell, _nothing, _nothing, cast(Raise, self._pass_over))
        self._types = types
        self._found = Findings(text)
        self._offsets: dict[int, bool] = {}
        self._has_maps = _ASSOCIATIVE.search(text) is not None

    def findings(self) -> list[Finding]:
        try:
            self.run()
        except _TooDeep:
            self._found.add("lint-too-deep", self._at, self._text[self._at : self._at + 2])
        return self._found.sorted()

    def _pass_over(self, place: int, code: str, message: str, hint: str) -> None:
        """What the scanner refuses of templates, or of text that no shell would take either."""

    def _placeholder(self) -> None:
        self._keep(1)

    def _marks(self, start: int, end: int) -> None:
        """Braces are nobody's marks here."""

    def _raise_first(self, refusals: Iterable[Refusal]) -> None:
        for refusal in refusals:
            if refusal.code in _CODES:
                self._note(_CODES[refusal.code], refusal.placeholder.start, refusal.placeholder.source)

    def _note(self, code: str, place: int, name: str) -> None:
        kind = self._types.get(name, "string")
        if code == "lint-arithmetic" and kind in ("float", "boolean"):
            code = "lint-arithmetic-number"
        self._found.add(code, place, f"${name}")

    def _push(self, frame: Frame, count: int) -> None:
        if len(self._frames) >= _DEEPEST:
            raise _TooDeep
        super()._push(frame, count)

    # Long words and lists of words: what is beyond does not change how a command is judged.

    def _grow(self, piece: str, quoted: bool = False) -> None:
        frame = next(frame for frame in reversed(self._frames) if frame.kind is Kind.COMMAND)
        if frame.current is None or len(frame.current.literal) < _LONGEST_WORD:
            super()._grow(piece, quoted)

    def _end_word(self, frame: Frame) -> None:
        self._judge_bare(frame)
        super()._end_word(frame)
        if len(frame.words) > 2 * _MOST_WORDS:
            del frame.words[_MOST_WORDS:]

    def _end_command(self, frame: Frame) -> None:
        self._judge_bare(frame)
        super()._end_command(frame)

    # References

    def _expansion(self, frame: Frame, char: str) -> None:
        found = _REFERENCE.match(self._text, self._at) if char == "$" else None
        name = (found[2] or found[4]) if found else None
        if self._text.startswith("${", self._at):
            offset = _OFFSET.match(self._text, self._at)
            self._offsets[len(self._frames)] = offset is not None
        if found is None or name not in self._types:
            self._plain_expansion(frame, char)
            return
        if found[1] == "!":
            self._note("lint-name", self._at, name)
        self._judge(name, is_count=found[1] == "#")
        if found[2] and not found[3]:
            self._plain_expansion(frame, char)
            return
        self._out.append(found[0])
        self._at = found.end()
        self._grow("\0")

    def _plain_expansion(self, frame: Frame, char: str) -> None:
        if self._text.startswith("${{", self._at):
            self._keep(1)
        else:
            super()._expansion(frame, char)

    def _parameter(self, frame: Frame, char: str) -> None:
        if char == "'" and frame.contested_quotes:
            self._keep(1)
        else:
            super()._parameter(frame, char)

    def _judge(self, name: str, is_count: bool) -> None:
        """What is wrong with the reference at hand, for what can be said before its command is over."""
        start = self._at
        placeholder = Placeholder(name, start, is_count or self._types[name] == "integer")
        commands = [frame for frame in self._frames if frame.kind is Kind.COMMAND]
        if not placeholder.integer:
            self._judge_arithmetic(placeholder)
        if any(frame.murky for frame in self._frames):
            self._note("lint-backquotes", start, name)
        if any(frame.into_shell for frame in self._frames):
            self._note("lint-code", start, name)
        for frame in commands:
            for _ in frame.judge_subscript(placeholder):
                self._note("lint-subscript" if self._has_maps else "lint-arithmetic", start, name)
        self._judge_place(commands[-1], placeholder)
        for frame in commands:
            frame.word().placeholders.append(placeholder)

    def _judge_arithmetic(self, found: Placeholder) -> None:
        between: list[Frame] = []
        for depth in range(len(self._frames) - 1, -1, -1):
            frame = self._frames[depth]
            if frame.kind is Kind.PARAMETER and Kind.COMMAND not in {one.kind for one in between}:
                if self._offsets.get(depth):
                    self._note("lint-arithmetic", found.start, found.source)
                elif _SUBSCRIPT.match(self._text[frame.start : found.start][-200:]):
                    code = "lint-subscript" if self._has_maps else "lint-arithmetic"
                    self._note(code, found.start, found.source)
            if frame.kind is Kind.ARITHMETIC:
                is_output = any(one.kind is Kind.COMMAND for one in between)
                code = "lint-arithmetic-output" if is_output else "lint-arithmetic"
                self._note(code, found.start, found.source)
                return
            between.append(frame)

    def _judge_place(self, command: Frame, found: Placeholder) -> None:
        top = self._frames[-1]
        start = found.start
        before = self._text[max(0, start - 80) : start]
        if top.kind is Kind.COMMAND:
            end = start + len(found.source) + 1
            after = self._text[end : end + 80].removeprefix("}")
            if not (self._shell in ("ksh", "zsh") and ".." in before + after):
                self._raise_first(top.judge_place(found, before, after))
        if top.kind not in (Kind.COMMAND, Kind.DOUBLE) or found.integer:
            return
        if self._types[found.source] not in ("string", "secret"):
            return
        if top.kind is Kind.DOUBLE and self._frames[-2] is not command:
            return
        redirected = before.rstrip(' \t"').endswith(("<", ">", ">&", ">|"))
        is_first = not command.words and not (command.current and command.current.literal)
        if is_first and not (command.array or command.in_test or command.in_pattern() or redirected):
            self._note("lint-command", start, found.source)
        elif top.kind is Kind.COMMAND and self._is_split(command):
            self._note("lint-unquoted", start, found.source)

    def _is_split(self, command: Frame) -> bool:
        """Whether a value outside of quotes is split into words here."""
        bare = command.current.bare if command.current else ""
        if self._shell == "zsh" or command.in_test or command.cases[-1:] in (["head"], ["pattern"]):
            return False
        if not ASSIGNMENT.match(bare):
            return True
        return bool(command.words) and command.words[0].literal not in _DECLARE

    # Names without a dollar sign

    def _keep(self, count: int) -> None:
        if self._frames[-1].kind is Kind.ARITHMETIC:
            self._bare_names(self._at, self._at + count)
        super()._keep(count)

    def _bare_names(self, start: int, end: int) -> None:
        for found in _BARE.finditer(self._text, start, end):
            if self._types.get(found[0], "integer") != "integer":
                kind = self._types[found[0]]
                code = "lint-arithmetic-number" if kind in ("float", "boolean") else "lint-arithmetic"
                self._found.add(code, found.start(), found[0])

    def _judge_bare(self, frame: Frame) -> None:
        """Words that a shell evaluates as arithmetic: the arguments of `let`, the sides of -eq within `[[ ]]`."""
        word = frame.current
        if word is None or not frame.words:
            return
        before = frame.words[-1]
        if frame.words[0].literal == "let":
            self._bare_word(word)
        elif frame.in_test and word.bare in _COMPARISONS:
            self._bare_word(before)
        elif frame.in_test and before.bare in _COMPARISONS:
            self._bare_word(word)

    def _bare_word(self, word: Word) -> None:
        names = [name for name in _BARE.findall(word.literal) if name in self._types]
        for name in names:
            place = self._text.rfind(name, 0, self._at)
            self._bare_names(max(place, 0), max(place, 0) + len(name))

    # Where a shell puts no value

    def _single(self, start: int, ansi: bool = False) -> None:
        opening = start + (2 if ansi else 1)
        body = re.compile(r"(?:\\.|[^'\\])*" if ansi else r"[^']*", re.DOTALL).match(self._text, opening)
        command = next(frame for frame in reversed(self._frames) if frame.kind is Kind.COMMAND)
        expands_later = is_shell(command.words) or any(
            word.literal in _EXPAND_LATER for word in command.words[:2]
        )
        if body is not None and not expands_later:
            self._unread("lint-single-quotes", opening, body.end())
        super()._single(start, ansi)

    def _unread(self, code: str, start: int, end: int) -> None:
        for found in _REFERENCE.finditer(self._text, start, end):
            name = found[2] or found[4]
            if name in self._types:
                self._found.add(code, found.start(), f"${name}")

    def _open_heredocs(self) -> None:
        while self._heredocs:
            heredoc: Heredoc = self._heredocs.pop(0)
            if not heredoc.quoted:
                strip, code = heredoc.strip_tabs, heredoc.into_shell
                self._frames.append(Frame(Kind.HEREDOC, heredoc.delimiter, strip_tabs=strip, into_shell=code))
                return
            body_end, end = heredoc.find_end(self._text, self._at)
            if not heredoc.into_shell:
                self._unread("lint-heredoc", self._at, body_end)
            self._skip(end - self._at)
