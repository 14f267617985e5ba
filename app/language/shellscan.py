"""Reads shell text (sh, bash, ksh, zsh) far enough to know in what context each `{{ … }}` stands.

It follows quotes, here-documents, substitutions, arithmetic, comments, `case` and `[[`. Nothing is executed
and nothing is changed but the placeholders. Where the reading could be wrong it refuses rather than guesses.
A wrong guess would spoil a value's text, never run it: what is put in is a reference to a variable.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import NoReturn

from app.language.heredocs import Heredoc, read_heredoc
from app.language.shellframes import Frame, Kind
from app.language.shellrules import QUOTED, Placeholder, Refusal, Word, arithmetic, find_block, is_shell

Emit = Callable[[Placeholder], str]
Raise = Callable[[int, str, str, str], NoReturn]
Read = Callable[[int], tuple[Placeholder, int]]


_PLAIN = {
    Kind.COMMAND: re.compile(r"[A-Za-z0-9_./,:@%^*?~+=\[\]-]+"),
    Kind.DOUBLE: re.compile(r"[^\\\"$`{]+"),
    Kind.PARAMETER: re.compile(r"[^\\\"'$`{}]+"),
    Kind.ARITHMETIC: re.compile(r"[^\\()\[\]$`{]+"),
    Kind.HEREDOC: re.compile(r"[^\\$`{\n]+"),
}
_DEFAULTING = re.compile(r"[!#]?(?:[A-Za-z_][A-Za-z0-9_]*|[0-9]+|[@*#?$!-])(?:\[[^\]]*\])?:?[-+=?]")
_QUOTE_HINT = "use double quotes; to write `{{` itself within single quotes, part it by two quotes: '{''{'"


class Scanner:
    """One pass over one text. `read` reads the placeholder at an index, `emit` gives the variable's reference
    (without quotes), `refuse` raises the error."""

    def __init__(self, text: str, shell: str, read: Read, emit: Emit, refuse: Raise) -> None:
        self._text = text
        self._shell = shell
        self._read = read
        self._emit = emit
        self._refuse = refuse
        self._at = 0
        self._out: list[str] = []
        self._frames = [Frame(Kind.COMMAND)]
        self._heredocs: list[Heredoc] = []

    def run(self) -> str:
        """The whole text with every placeholder turned into a reference."""
        steps = {
            Kind.COMMAND: self._command,
            Kind.DOUBLE: self._quoted,
            Kind.PARAMETER: self._parameter,
            Kind.ARITHMETIC: self._arithmetic,
            Kind.HEREDOC: self._quoted,
        }
        while self._at < len(self._text):
            top = self._frames[-1]
            if top.kind is Kind.HEREDOC and self._heredoc_ends(top):
                continue
            plain = _PLAIN[top.kind].match(self._text, self._at)
            if plain:
                self._keep(len(plain.group()))
            elif self._text.startswith("{{", self._at):
                self._placeholder()
            else:
                self._marks(self._at, self._at + 2)
                steps[top.kind](top, self._text[self._at])
        for frame in self._frames:
            if frame.kind is Kind.DOUBLE:
                self._refuse(frame.start, "bind-quotes", "a double quote is never closed", "close it")
        for frame in reversed(self._frames):
            self._raise_first(frame.end_command(self._shell))
        return "".join(self._out)

    # Moving on

    def _keep(self, count: int) -> None:
        """Copy `count` characters; they belong to the current word of the command."""
        self._grow(self._text[self._at : self._at + count])
        self._skip(count)

    def _skip(self, count: int) -> None:
        """Copy `count` characters that belong to no word."""
        self._out.append(self._text[self._at : self._at + count])
        self._at += count

    def _grow(self, piece: str, quoted: bool = False) -> None:
        """Add to the word of the innermost command."""
        for frame in reversed(self._frames):
            if frame.kind is Kind.COMMAND:
                word = frame.word()
                word.literal += piece
                word.bare += QUOTED if quoted or frame is not self._frames[-1] else piece
                return

    def _push(self, frame: Frame, count: int) -> None:
        frame.start = self._at
        self._skip(count)
        self._frames.append(frame)

    def _pop_command(self) -> None:
        self._raise_first(self._frames[-1].end_command(self._shell))
        self._frames.pop()
        self._skip(1)

    def _inside(self, kind: Kind) -> bool:
        return any(frame.kind is kind for frame in self._frames)

    # Placeholders

    def _placeholder(self) -> None:
        start = self._at
        top = self._frames[-1]
        found, end = self._read(start)
        if self._inside(Kind.PARAMETER):
            hint = "assign the value first: `value={{ … }}`, then use ${value}"
            self._refuse(start, "bind-parameter", "a value cannot be bound within `${…}`", hint)
        if self._inside(Kind.ARITHMETIC) and not found.integer:
            self._raise_first(arithmetic([Word(placeholders=[found])]))
        if any(frame.murky for frame in self._frames):
            message = "backquotes with escapes in them can be read in more than one way"
            self._refuse(start, "bind-backquotes", message, "write $(…) instead of `…`")
        if any(frame.into_shell for frame in self._frames):
            message = "this here-document is read by a shell as code, so that the value would be run"
            self._refuse(
                start, "bind-code", message, "quote its delimiter ('EOF') and give values by arguments"
            )
        commands = [frame for frame in self._frames if frame.kind is Kind.COMMAND]
        for frame in commands:
            self._raise_first(frame.judge_subscript(found))
        if top.kind is Kind.COMMAND:
            before, after = self._text[max(0, start - 80) : start], self._text[end : end + 80]
            self._raise_first(top.judge_place(found, before, after))
        reference = self._emit(found)
        self._out.append(f'"{reference}"' if top.kind is Kind.COMMAND else reference)
        self._at = end
        self._grow("\0")
        for frame in commands:
            frame.word().placeholders.append(found)

    def _marks(self, start: int, end: int) -> None:
        if found := find_block(self._text, start, end):
            place, message, hint = found
            self._refuse(place, "bind-block", message, hint)

    def _raise_first(self, refusals: Iterable[Refusal]) -> None:
        for refusal in refusals:
            self._refuse(refusal.placeholder.start, refusal.code, refusal.message, refusal.hint)

    # Contexts

    def _command(self, frame: Frame, char: str) -> None:
        if char in " \t\r":
            self._end_word(frame)
            self._skip(1)
        elif char == "\n":
            self._end_command(frame)
            self._skip(1)
            self._open_heredocs()
        elif char == "#" and frame.current is None:
            self._comment(frame)
        elif char == "\\":
            self._escape(2)
        elif char == "'":
            self._single(self._at)
        elif char == '"':
            self._grow("", quoted=True)
            self._push(Frame(Kind.DOUBLE), 1)
        elif char in "$`":
            self._expansion(frame, char)
        elif char in "()":
            self._bracket(frame, char)
        elif char in ";&|<>":
            self._operator(frame, char)
        else:
            self._keep(1)

    def _quoted(self, frame: Frame, char: str) -> None:
        """Double quotes, and unquoted here-documents, in which a double quote is a character like others."""
        double = frame.kind is Kind.DOUBLE
        if char == '"' and double:
            self._frames.pop()
            self._skip(1)
        elif char == "\\":
            escapable = tuple('$`"\\\n' if double else "$`\\\n")
            self._escape(2 if self._text[self._at + 1 : self._at + 2] in escapable else 1)
        elif char in "$`":
            self._expansion(frame, char)
        else:
            self._keep(1)

    def _parameter(self, frame: Frame, char: str) -> None:
        if char == "}":
            self._frames.pop()
            self._keep(1)
        elif char == "\\":
            self._escape(2)
        elif char == '"':
            self._push(Frame(Kind.DOUBLE), 1)
        elif char == "'" and frame.contested_quotes:
            message = 'shells read a single quote differently within "${…}"'
            self._refuse(
                self._at, "bind-quotes", message, "put the text with the quote into a variable first"
            )
        elif char == "'":
            self._single(self._at)
        elif char in "$`":
            self._expansion(frame, char)
        else:
            self._keep(1)

    def _arithmetic(self, frame: Frame, char: str) -> None:
        if char == "\\":
            self._escape(2)
        elif char in "$`":
            self._expansion(frame, char)
        else:
            opening, closing = ("[", "]") if frame.closer == "]" else ("(", ")")
            frame.depth += (char == opening) - (char == closing)
            self._keep(1)
            if frame.depth == 0:
                self._frames.pop()

    # Pieces of syntax

    def _comment(self, frame: Frame) -> None:
        """Nothing is bound here. Marks are parted, so that nobody takes them for a template later."""
        start = self._at
        stop = re.compile(r"[\n`]" if frame.closer == "`" else r"\n").search(self._text, start)
        self._at = stop.start() if stop else len(self._text)
        self._out.append(re.sub(r"{(?=[{%])", "{ ", self._text[start : self._at]))

    def _escape(self, count: int) -> None:
        if self._text.startswith("{{", self._at + 1):
            hint = "remove the backslash; to write `{{` itself, write \"{{ '{{' }}\""
            self._refuse(
                self._at, "bind-escaped", "a backslash before `{{` would change what it becomes", hint
            )
        for frame in self._frames:
            frame.murky = frame.murky or frame.closer == "`"
        escaped = self._text[self._at + count - 1 : self._at + count]
        if escaped != "\n":
            self._grow(escaped, quoted=True)
        self._skip(count)

    def _single(self, start: int, ansi: bool = False) -> None:
        """Skip '…' or $'…' from `start`; in $'…' a backslash takes the next character along."""
        opening = start + (2 if ansi else 1)
        body = re.compile(r"(?:\\.|[^'\\])*" if ansi else r"[^']*", re.DOTALL).match(self._text, opening)
        end = body.end() if body else opening
        inner = self._text.find("{{", opening, end)
        if inner >= 0:
            hint = "use double quotes" if ansi else _QUOTE_HINT
            self._refuse(inner, "bind-single-quotes", "within single quotes a shell expands nothing", hint)
        self._marks(opening, end)
        if end >= len(self._text):
            self._refuse(
                start, "bind-quotes", "a single quote is never closed", "close it, or write it as \\'"
            )
        if ansi and self._shell == "sh" and "\\'" in self._text[opening:end]:
            message = "shells read $'…\\'…' differently under `sh`"
            self._refuse(start, "bind-quotes", message, "use double quotes, or `shell: bash`")
        self._grow(self._text[opening:end], quoted=True)
        self._skip(end + 1 - start)

    def _expansion(self, frame: Frame, char: str) -> None:
        text, at = self._text, self._at
        if char == "`":
            self._backquote()
        elif text.startswith("{{", at + 1):
            hint = "leave the `$` out: `{{ … }}` is the value; a dollar sign itself is written \\${{ … }}"
            self._refuse(at, "bind-dollar", "`$` before `{{` would change what it becomes", hint)
        elif text.startswith("$((", at):
            self._grow("$")
            self._push(Frame(Kind.ARITHMETIC, "))", depth=2), 3)
        elif text.startswith("$(", at):
            self._grow("$")
            self._push(Frame(Kind.COMMAND, ")"), 2)
        elif text.startswith("${", at):
            quoted = any(level.kind in (Kind.DOUBLE, Kind.HEREDOC) for level in self._frames)
            contested = quoted and _DEFAULTING.match(text, at + 2) is not None
            self._grow("$")
            self._push(Frame(Kind.PARAMETER, "}", contested_quotes=contested), 2)
        elif text.startswith("$[", at):
            self._grow("$")
            self._push(Frame(Kind.ARITHMETIC, "]", depth=1), 2)
        elif text.startswith("$'", at) and frame.kind is Kind.COMMAND:
            self._single(at, ansi=True)
        else:
            self._keep(1)

    def _backquote(self) -> None:
        if not any(frame.closer == "`" for frame in self._frames):
            self._grow("`")
            self._push(Frame(Kind.COMMAND, "`"), 1)
            return
        while self._frames[-1].closer != "`":
            self._raise_first(self._frames.pop().end_command(self._shell))
        self._pop_command()

    def _bracket(self, frame: Frame, char: str) -> None:
        if frame.in_test:
            self._end_word(frame)
            self._skip(1)
        elif char == ")":
            self._closing_bracket(frame)
        elif frame.in_pattern() and frame.current is None:
            self._skip(1)
        elif self._text.startswith("((", self._at) and frame.starts_arithmetic():
            self._push(Frame(Kind.ARITHMETIC, "))", depth=2), 2)
        elif function := re.compile(r"\(\s*\)").match(self._text, self._at):
            frame.current, frame.words = None, []
            self._skip(len(function.group()))
        else:
            array = frame.current is not None and frame.current.bare.endswith("=")
            self._push(Frame(Kind.COMMAND, ")", array=array), 1)

    def _closing_bracket(self, frame: Frame) -> None:
        self._end_command(frame)
        if frame.in_pattern():
            frame.cases[-1] = "body"
            self._skip(1)
        elif frame.closer == ")":
            self._pop_command()
        else:
            self._skip(1)

    def _end_word(self, frame: Frame) -> None:
        self._raise_first(frame.end_word())

    def _end_command(self, frame: Frame) -> None:
        self._raise_first(frame.end_command(self._shell))

    def _operator(self, frame: Frame, char: str) -> None:
        text, at = self._text, self._at
        before, after = text[at - 1 : at], text[at + 1 : at + 2]
        if char == "<" and after == "<" and not text.startswith("<<<", at):
            self._heredoc_operator(frame)
            return
        redirects = (
            char in "<>"
            or (char == "&" and (before in tuple("<>") or after == ">"))
            or (char == "|" and before == ">")
        )
        if frame.in_test or redirects:
            self._end_word(frame)
            self._skip(3 if text.startswith("<<<", at) else 1)
            return
        self._end_command(frame)
        if char == ";" and after in (";", "&") and frame.cases:
            frame.cases[-1] = "pattern"
            self._skip(2)
        else:
            self._skip(1)

    # Here-documents

    def _heredoc_operator(self, frame: Frame) -> None:
        self._end_word(frame)
        heredoc, length = read_heredoc(self._text, self._at, is_shell(frame.words))
        if heredoc and "{{" in heredoc.delimiter:
            message = "a value cannot be the delimiter of a here-document"
            self._refuse(self._at, "bind-heredoc", message, "write a word such as EOF")
        if heredoc:
            self._heredocs.append(heredoc)
        self._skip(length)

    def _open_heredocs(self) -> None:
        """At the end of a line: pass the quoted here-documents that follow, enter the first unquoted one."""
        while self._heredocs:
            heredoc = self._heredocs.pop(0)
            if not heredoc.quoted:
                strip, code = heredoc.strip_tabs, heredoc.into_shell
                self._frames.append(Frame(Kind.HEREDOC, heredoc.delimiter, strip_tabs=strip, into_shell=code))
                return
            body_end, end = heredoc.find_end(self._text, self._at)
            inner = self._text.find("{{", self._at, body_end)
            if inner >= 0:
                message = "in a here-document with a quoted delimiter a shell expands nothing"
                self._refuse(inner, "bind-heredoc", message, "leave the quotes of the delimiter out: <<EOF")
            self._marks(self._at, body_end)
            self._skip(end - self._at)

    def _heredoc_ends(self, frame: Frame) -> bool:
        at = self._at
        if at and self._text[at - 1] != "\n":
            return False
        end = self._text.find("\n", at)
        line = self._text[at : end if end >= 0 else len(self._text)]
        if (line.lstrip("\t") if frame.strip_tabs else line) != frame.closer:
            return False
        self._frames.pop()
        # What stood in the document is no word of the command that reads it.
        self._frames[-1].current = None
        self._skip(len(line) + (end >= 0))
        self._open_heredocs()
        return True
