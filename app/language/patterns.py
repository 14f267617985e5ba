"""Patterns of parameters' values: regular expressions that are matched in a time that nobody can stretch.

A part of Python's syntax: characters, `.`, `[a-z]` and `[^…]`, `\\d \\w \\s` (ASCII) and their opposites, groups `( )`
and `(?: )`, `|`, and `* + ? {m,n}`. There are no references back, no looking around and no lazy repetition. The whole
value is matched; `^` at the start and `$` at the end may stand there and change nothing.

A pattern becomes an automaton (Glushkov's) of MOST_PLACES places at the most, and a value is walked through once.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, NoReturn

from app.errors import InvalidInput

LONGEST: Final = 500
"""Characters of a pattern."""
MOST_PLACES: Final = 500
"""Characters that a pattern spells with its repetitions written out."""
LONGEST_VALUE: Final = 4096
"""Characters of a value that is held against a pattern."""

_DEEPEST = 20
_MOST_STEPS = 4 * MOST_PLACES
_ESCAPED = {"t": "\t", "n": "\n", "r": "\r", "f": "\f", "v": "\v"}
_CLASSES: dict[str, tuple[tuple[str, str], ...]] = {
    "d": (("0", "9"),),
    "w": (("0", "9"), ("A", "Z"), ("_", "_"), ("a", "z")),
    "s": (("\t", "\r"), (" ", " ")),
}
_COUNT = re.compile(r"\{([0-9]{1,4})(?:(,)([0-9]{1,4})?)?\}", re.ASCII)
_LAST = chr(0x10FFFF)


class BadPattern(InvalidInput):
    """A pattern that is none of ours; `column` counts characters from 1."""

    code = "bad-pattern"

    def __init__(self, message: str, column: int, hint: str = "") -> None:
        super().__init__(f"{message}, at character {column} of the pattern", hint=hint)
        self.column = column


@dataclass(frozen=True, slots=True)
class Pattern:
    """A pattern that was read. Each place takes the characters of a set; `follow` are bit masks of places."""

    text: str
    starts: tuple[str, ...]
    """Characters in order: all from one to before the next are taken by the same places."""
    taking: tuple[int, ...]
    """The places that take the characters from each of the `starts` on."""
    first: int
    last: int
    follow: tuple[int, ...]
    is_nullable: bool

    def matches(self, value: str) -> bool:
        """Whether the whole value is what the pattern spells. One that is longer than LONGEST_VALUE is not."""
        if len(value) > LONGEST_VALUE:
            return False
        if not value:
            return self.is_nullable
        steps: dict[tuple[int, int], int] = {}
        reached, entering = 0, self.first
        for character in value:
            taking = self._places_of(character)
            known = steps.get((reached, taking))
            if known is None:
                for place in _bits(reached):
                    entering |= self.follow[place]
                known = steps[reached, taking] = entering & taking
            reached, entering = known, 0
            if not reached:
                return False
        return bool(reached & self.last)

    def characters_of(self, wanted: str) -> str:
        """Those of the wanted characters that a value which matches may hold."""
        return "".join(character for character in wanted if self._places_of(character))

    def _places_of(self, character: str) -> int:
        place = bisect_right(self.starts, character) - 1
        return self.taking[place] if place >= 0 else 0


@lru_cache(maxsize=256)
def parse(text: str) -> Pattern:
    """Read a pattern. Raises BadPattern with what is wrong, where, and the way out."""
    if len(text) > LONGEST:
        raise BadPattern(f"the pattern is longer than {LONGEST} characters", LONGEST + 1, "make it simpler")
    tree = _Reader(text).read()
    made = _Automaton(text)
    nullable, first, last = made.add(tree)
    starts, taking = _taken(made.sets)
    return Pattern(text, starts, taking, first, last, tuple(made.follow), nullable)


def _taken(sets: Mapping[tuple[tuple[str, str], ...], int]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Where in the order of all characters others begin to be taken, and by which places."""
    edges = {chr(0)}
    for ranges in sets:
        edges.update(low for low, _ in ranges)
        edges.update(chr(ord(high) + 1) for _, high in ranges if high != _LAST)
    starts = tuple(sorted(edges))
    found = [0] * len(starts)
    for ranges, places in sets.items():
        for low, high in ranges:
            for number in range(bisect_left(starts, low), bisect_right(starts, high)):
                found[number] |= places
    return starts, tuple(found)


def _bits(mask: int) -> Iterator[int]:
    while mask:
        lowest = mask & -mask
        yield lowest.bit_length() - 1
        mask ^= lowest


# reading

_Tree = tuple[Any, ...]
"""("set", ranges), ("all", trees), ("any", trees) or ("times", tree, least, most or None)."""


@dataclass(slots=True)
class _Reader:
    text: str
    at: int = 0
    depth: int = 0

    def read(self) -> _Tree:
        if self.text.startswith("^"):
            self.at = 1
        tree = self._choice()
        if self.at < len(self.text):
            self._wrong("a `)` closes nothing", "write `\\)` for the character itself")
        return tree

    def _wrong(self, message: str, hint: str = "") -> NoReturn:
        raise BadPattern(message, self.at + 1, hint)

    def _next(self) -> str:
        return self.text[self.at : self.at + 1]

    def _choice(self) -> _Tree:
        found = [self._row()]
        while self._next() == "|":
            self.at += 1
            found.append(self._row())
        return found[0] if len(found) == 1 else ("any", found)

    def _row(self) -> _Tree:
        found: list[_Tree] = []
        while self.at < len(self.text) and self._next() not in "|)":
            if self._next() == "$" and self.at == len(self.text) - 1:
                self.at += 1
                break
            found.append(self._repeated(self._one()))
        return ("all", found)

    def _repeated(self, tree: _Tree) -> _Tree:
        counts = {"*": (0, None), "+": (1, None), "?": (0, 1)}
        if self._next() in counts and self._next():
            least, most = counts[self._next()]
            self.at += 1
        elif self._next() == "{":
            found = _COUNT.match(self.text, self.at)
            if found is None:
                self._wrong(
                    "`{` begins no count such as {2} or {1,64}", "write `\\{` for the character itself"
                )
            least = int(found[1])
            most = int(found[3]) if found[3] else (None if found[2] else least)
            if most is not None and most < least:
                self._wrong(f"{found[0]} has a most that is less than its least")
            self.at = found.end()
        else:
            return tree
        if self._next() and self._next() in "*+?{":
            self._wrong("a repetition cannot be repeated, nor be lazy", "leave it out, or use a group")
        return ("times", tree, least, most)

    def _one(self) -> _Tree:
        character = self._next()
        if character == "(":
            return self._group()
        if character == "[":
            return ("set", self._set())
        if character == "\\":
            return ("set", self._escape())
        if character == ".":
            self.at += 1
            return ("set", _others((("\n", "\n"),)))
        if character in "*+?{":
            self._wrong(f"`{character}` repeats nothing", f"write `\\{character}` for the character itself")
        if character in "^$":
            hint = f"the whole value is matched anyway; write `\\{character}` for the character itself"
            self._wrong(f"`{character}` stands within the pattern", hint)
        self.at += 1
        return ("set", ((character, character),))

    def _group(self) -> _Tree:
        start = self.at
        self.at += 1
        if self.text.startswith("?:", self.at):
            self.at += 2
        elif self._next() == "?":
            self._wrong("a group here is `( )` or `(?: )`", "there is no looking around, and no name")
        self.depth += 1
        if self.depth > _DEEPEST:
            self._wrong(f"groups are nested deeper than {_DEEPEST} levels", "make it simpler")
        tree = self._choice()
        if self._next() != ")":
            self.at = start
            self._wrong("the group is never closed", "write `\\(` for the character itself")
        self.depth -= 1
        self.at += 1
        return tree

    def _escape(self) -> tuple[tuple[str, str], ...]:
        """The characters that a backslash and what follows it mean."""
        character = self.text[self.at + 1 : self.at + 2]
        if character in _ESCAPED and character:
            self.at += 2
            return ((_ESCAPED[character],) * 2,)
        if character.lower() in _CLASSES and character:
            self.at += 2
            ranges = _CLASSES[character.lower()]
            return ranges if character.islower() else _others(ranges)
        if not character or not character.isascii() or character.isalnum():
            hint = "known: \\d \\w \\s \\D \\W \\S \\t \\n \\r \\f \\v, and a backslash before a sign"
            self._wrong(f"`\\{character}` means nothing here", hint)
        self.at += 2
        return ((character, character),)

    def _set(self) -> tuple[tuple[str, str], ...]:
        start = self.at
        self.at += 1
        negated = self._next() == "^"
        self.at += negated
        found: list[tuple[str, str]] = []
        while self._next() != "]":
            if not self._next():
                self.at = start
                self._wrong("the set is never closed", "write `\\[` for the character itself")
            found += self._member()
        if not found:
            self._wrong("a set must not be empty", "write `\\]` for the character itself")
        self.at += 1
        return _others(tuple(found)) if negated else tuple(found)

    def _member(self) -> tuple[tuple[str, str], ...]:
        low = self._character()
        if not (self._next() == "-" and self.text[self.at + 1 : self.at + 2] not in ("]", "")):
            return low
        self.at += 1
        high = self._character()
        if len(low) > 1 or len(high) > 1 or low[0][0] != low[0][1] or high[0][0] != high[0][1]:
            self._wrong("a range is between two characters", "write the `-` first or last in the set")
        if low[0][0] > high[0][0]:
            self._wrong("a range is written from low to high")
        return ((low[0][0], high[0][0]),)

    def _character(self) -> tuple[tuple[str, str], ...]:
        character = self._next()
        if character == "\\":
            return self._escape()
        if character == "[":
            self._wrong("`[` in a set", "write `\\[` for the character itself")
        self.at += 1
        return ((character, character),)


def _others(ranges: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    """Every character that is in none of the ranges."""
    found: list[tuple[str, str]] = []
    start = 0
    for low, high in sorted(ranges):
        if start < ord(low):
            found.append((chr(start), chr(ord(low) - 1)))
        start = max(start, ord(high) + 1)
    return (*found, (chr(start), _LAST)) if start <= ord(_LAST) else tuple(found)


# the automaton

_Ends = tuple[bool, int, int]
"""Whether nothing at all matches, the places that it begins with, and those that it ends with."""


@dataclass(slots=True)
class _Automaton:
    text: str
    sets: dict[tuple[tuple[str, str], ...], int] = field(default_factory=dict)
    follow: list[int] = field(default_factory=list)
    steps: int = 0

    def add(self, tree: _Tree) -> _Ends:
        self.steps += 1
        if self.steps > _MOST_STEPS or len(self.follow) >= MOST_PLACES:
            message = f"written out, the pattern has more than {MOST_PLACES} characters"
            raise BadPattern(message, 1, "repeat less, or use `max` for the length")
        kinds: dict[str, Callable[..., _Ends]] = {
            "set": self._set,
            "all": self._all,
            "any": self._any,
            "times": self._times,
        }
        return kinds[tree[0]](*tree[1:])

    def _set(self, ranges: tuple[tuple[str, str], ...]) -> _Ends:
        place = 1 << len(self.follow)
        self.follow.append(0)
        self.sets[ranges] = self.sets.get(ranges, 0) | place
        return False, place, place

    def _all(self, trees: list[_Tree]) -> _Ends:
        found: _Ends = (True, 0, 0)
        for tree in trees:
            found = self._after(found, self.add(tree))
        return found

    def _after(self, left: _Ends, right: _Ends) -> _Ends:
        self._link(left[2], right[1])
        first = left[1] | right[1] if left[0] else left[1]
        last = left[2] | right[2] if right[0] else right[2]
        return left[0] and right[0], first, last

    def _any(self, trees: list[_Tree]) -> _Ends:
        nullable, first, last = False, 0, 0
        for tree in trees:
            ends = self.add(tree)
            nullable, first, last = nullable or ends[0], first | ends[1], last | ends[2]
        return nullable, first, last

    def _times(self, tree: _Tree, least: int, most: int | None) -> _Ends:
        found: _Ends = (True, 0, 0)
        for _ in range(least - 1 if most is None and least else least):
            found = self._after(found, self.add(tree))
        if most is None:
            nullable, first, last = self.add(tree)
            self._link(last, first)
            return self._after(found, (nullable or not least, first, last))
        for _ in range(most - least):
            _, first, last = self.add(tree)
            found = self._after(found, (True, first, last))
        return found

    def _link(self, last: int, first: int) -> None:
        for place in _bits(last):
            self.follow[place] |= first
