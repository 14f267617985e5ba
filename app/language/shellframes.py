"""The levels of nesting of shell text, and the words of the command that each level is in the middle of."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum

from app.language.shellrules import (
    ASSIGNMENT,
    INTEGER_HINT,
    Placeholder,
    Refusal,
    Word,
    judge_command,
    judge_test,
)

_KEYWORDS = frozenset(
    [
        "if",
        "then",
        "elif",
        "else",
        "fi",
        "do",
        "done",
        "while",
        "until",
        "!",
        "{",
        "}",
        "time",
        "esac",
        "coproc",
    ]
)
_NAMING = frozenset({"for", "select", "function"})
_SUBSCRIPT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\[[^\]]*")
_ASSIGNED = re.compile(r"[A-Za-z0-9_]*(?:{{[^{}]*}}[A-Za-z0-9_]*)*\+?=")


class Kind(Enum):
    """What a frame is in."""

    COMMAND = "command"
    DOUBLE = "double quotes"
    PARAMETER = "${…}"
    ARITHMETIC = "arithmetic"
    HEREDOC = "here-document"


@dataclass(slots=True)
class Frame:
    """One level. `closer` ends it, `start` is where it began; the other fields belong to one kind each."""

    kind: Kind
    closer: str = ""
    start: int = 0
    depth: int = 0
    """Of arithmetic: brackets that are open."""
    contested_quotes: bool = False
    """Of a parameter expansion: to some shells single quotes are characters like others here."""
    strip_tabs: bool = False
    """Of a here-document: `<<-`."""
    into_shell: bool = False
    """Of a here-document: a shell reads it as code."""
    murky: bool = False
    """Of backquotes: an escape was seen, so that shells may read the rest differently."""
    array: bool = False
    """Of a command level: the items of `name=( … )`, where words are values and not commands."""
    words: list[Word] = field(default_factory=list)
    current: Word | None = None
    in_test: bool = False
    cases: list[str] = field(default_factory=list)
    """Of a command level: open `case` statements, each in its head, a pattern or a body."""

    def word(self) -> Word:
        """The word that is being read; begun if there is none."""
        if self.current is None:
            self.current = Word()
        return self.current

    def in_pattern(self) -> bool:
        """Whether the patterns of a `case` stand here, of which `)` ends one."""
        return bool(self.cases) and self.cases[-1] == "pattern"

    def starts_arithmetic(self) -> bool:
        """Whether `((` here is arithmetic rather than two parentheses."""
        return self.current is None and (not self.words or [word.literal for word in self.words] == ["for"])

    def end_word(self) -> list[Refusal]:
        """The word is over: note what it does to the command."""
        word, self.current = self.current, None
        if word is None:
            return []
        if self.in_test:
            if word.bare != "]]":
                self.words.append(word)
                return []
            words, self.words, self.in_test = self.words, [], False
            return list(judge_test(words))
        if not self.words and not self.array:
            if self._keyword(word.bare) or ASSIGNMENT.match(word.bare):
                return []
        elif self.cases and self.cases[-1] == "head" and word.bare == "in":
            self.cases[-1] = "pattern"
            self.words = []
            return []
        elif word.bare == "{" and self.words[:1] and self.words[0].literal == "function":
            self.words = []
            return []
        self.words.append(word)
        return []

    def _keyword(self, bare: str) -> bool:
        """Take note of a reserved word in the place of a command; whether the place remains one."""
        if bare == "case":
            self.cases.append("head")
            return False
        if bare == "esac" and self.cases:
            self.cases.pop()
        if bare == "[[":
            self.in_test = True
            return True
        return bare in _KEYWORDS

    def end_command(self, shell: str) -> list[Refusal]:
        """The simple command is over: what is wrong with its placeholders. No line ends within `[[ … ]]`."""
        if self.kind is not Kind.COMMAND:
            return []
        refusals = self.end_word()
        if self.in_test:
            return refusals
        words, self.words = self.words, []
        return refusals if self.array else [*refusals, *judge_command(words, shell)]

    def judge_subscript(self, found: Placeholder) -> list[Refusal]:
        """What is wrong if `found` stands in the current word of this level as a subscript."""
        bare = self.current.bare if self.current else ""
        if found.integer or not (
            _SUBSCRIPT.fullmatch(bare) or (self.array and re.fullmatch(r"\[[^\]]*", bare))
        ):
            return []
        hint = f"{INTEGER_HINT}; if it is no subscript, put the whole word in double quotes"
        return [Refusal(found, "bind-arithmetic", "a subscript is arithmetic, which a shell evaluates", hint)]

    def judge_place(self, found: Placeholder, before: str, after: str) -> list[Refusal]:
        """What is wrong with `found` outside quotes on this level, between these texts."""
        bare = self.current.bare if self.current else ""
        named = len(self.words) == 1 and self.words[0].literal in _NAMING
        assigned = (
            not self.words and not self.array and re.fullmatch(r"[\w\0]*", bare) and _ASSIGNED.match(after)
        )
        if named or assigned:
            message = "a value cannot be the name of a variable or function"
            return [
                Refusal(found, "bind-name", message, "write the name out; a value may be what it is given")
            ]
        if re.search(r"{[^\s{}]*\.\.$", before) or re.match(r"\.\.[^\s{}]*}", after):
            hint = "use $(seq {{ a | int }} {{ b | int }})"
            return [Refusal(found, "bind-braces", "a shell does not expand variables in {a..b}", hint)]
        return []
