"""What a word of a command line may be: a small language that cannot run away, and never a regular expression.

A pattern is text with at most one wildcard in it:

    *               anything but a slash, one character or more, not beginning with `-`
    {text}          anything printable, not beginning with `-`
    {name}          ASCII letters, digits and `_.@:-`, beginning with a letter or digit, 128 at the most
    {int}           digits; {int:1-1000} within limits
    {path:/var/log} that directory, or an absolute path below it, written without `.`, `..` and `//`
    {a|b|c}         one of these words

A backslash takes the meaning of `*`, `{`, `}` and `\\` away. Everything is compared as it is written, character by
character, in time that grows with the length of the word.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from app.errors import InvalidInput

LONGEST_WORD = 4096
LONGEST_NAME = 128
MOST_DIGITS = 18

Resolve = Callable[[str], str]
"""A path without symbolic links: only a node can tell."""

_PIECES = re.compile(r"\\([\\*{}])|(\*)|\{([^{}]*)\}|([^\\*{}]+)")
_NAME = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.@:-")
_LIMITS = re.compile(r"int:([0-9]{1,18})-([0-9]{1,18})\Z")


class BadPattern(InvalidInput):
    code = "bad-pattern"


@dataclass(frozen=True, slots=True)
class Pattern:
    """One pattern. `kind` is "" for plain text, which is then all in `prefix`."""

    text: str
    prefix: str
    kind: str = ""
    suffix: str = ""
    root: str = ""
    choices: tuple[str, ...] = ()
    low: int = 0
    high: int = 10**MOST_DIGITS - 1

    def matches(self, word: str, resolve: Resolve | None = None) -> bool:
        """Whether the word is what this pattern means. With `resolve`, paths must be so behind their links too."""
        if not self.kind:
            return word == self.prefix
        if len(word) > LONGEST_WORD or len(word) <= len(self.prefix) + len(self.suffix):
            return False
        if not (word.startswith(self.prefix) and word.endswith(self.suffix)):
            return False
        inner = word[len(self.prefix) : len(word) - len(self.suffix)]
        if self.kind == "choice":
            return inner in self.choices
        if self.kind == "name":
            return len(inner) <= LONGEST_NAME and inner[0].isalnum() and _NAME.issuperset(inner)
        if self.kind == "int":
            return self._in_limits(inner)
        if not inner.isprintable() or (not self.prefix and inner.startswith("-")):
            return False
        if self.kind == "path":
            return self._below(inner, resolve)
        if self.kind == "text":
            return True
        return "/" not in inner and ("/" not in self.prefix + self.suffix or is_normal(word))

    def _in_limits(self, inner: str) -> bool:
        plain = inner.isascii() and inner.isdigit() and len(inner) <= MOST_DIGITS
        return plain and self.low <= int(inner) <= self.high

    def _below(self, inner: str, resolve: Resolve | None) -> bool:
        if not inner.startswith("/") or not is_normal(inner):
            return False
        if not _is_below(inner.rstrip("/") or "/", self.root):
            return False
        return resolve is None or _is_below(resolve(inner), resolve(self.root))


def _is_below(path: str, root: str) -> bool:
    return path == root or path.startswith(root if root == "/" else root + "/")


def is_normal(path: str) -> bool:
    """Whether no part of it is empty, `.` or `..`, but for the slash that it begins or ends with."""
    parts = path.removeprefix("/").removesuffix("/").split("/")
    return path == "/" or not {"", ".", ".."} & set(parts)


def parse(text: str) -> Pattern:
    """Read a pattern. Raises BadPattern, which says what is wrong with it."""
    pieces = _split(text)
    wild = [at for at, (is_wild, _) in enumerate(pieces) if is_wild]
    if len(wild) > 1:
        raise BadPattern("a pattern has one wildcard at the most", hint="write an entry for each form")
    prefix = "".join(piece for _, piece in (pieces[: wild[0]] if wild else pieces))
    if not wild:
        if not prefix:
            raise BadPattern("a pattern must not be empty")
        return Pattern(text, prefix)
    suffix = "".join(piece for _, piece in pieces[wild[0] + 1 :])
    return _wildcard(text, prefix, pieces[wild[0]][1], suffix)


def _split(text: str) -> list[tuple[bool, str]]:
    """(is it a wildcard, its text) for each piece."""
    pieces: list[tuple[bool, str]] = []
    at = 0
    while at < len(text):
        found = _PIECES.match(text, at)
        if found is None:
            raise BadPattern(
                f"{text[at]!r} at character {at + 1} means something here and is not complete",
                hint="write a backslash before it if it stands for itself",
            )
        escaped, star, braces, plain = found.groups()
        if star or braces is not None:
            pieces.append((True, star or braces))
        else:
            pieces.append((False, escaped or plain))
        at = found.end()
    return pieces


def _wildcard(text: str, prefix: str, what: str, suffix: str) -> Pattern:
    if what == "*":
        return Pattern(text, prefix, "any", suffix)
    if what == "text":
        if "/" in prefix:
            raise BadPattern(
                "{text} after a slash would leave the directory", hint="write {path:/the/directory}"
            )
        return Pattern(text, prefix, "text", suffix)
    if what in ("name", "int"):
        return Pattern(text, prefix, what, suffix)
    if found := _LIMITS.match(what):
        low, high = int(found[1]), int(found[2])
        if low > high:
            raise BadPattern(f"{{{what}}}: no number is in these limits")
        return Pattern(text, prefix, "int", suffix, low=low, high=high)
    if what.startswith("path:"):
        return _path(text, prefix, what.removeprefix("path:"), suffix)
    if "|" in what:
        words = tuple(what.split("|"))
        if not all(words):
            raise BadPattern(f"{{{what}}}: a choice must not be empty")
        return Pattern(text, prefix, "choice", suffix, choices=words)
    raise BadPattern(
        f"{{{what}}} is no wildcard", hint="known: *, {text}, {name}, {int}, {int:1-9}, {path:/dir}, {a|b}"
    )


def _path(text: str, prefix: str, root: str, suffix: str) -> Pattern:
    if not root.startswith("/") or not is_normal(root) or (root != "/" and root.endswith("/")):
        raise BadPattern(
            f"{{path:{root}}}: it must be an absolute path without `.`, `..`, `//` and a last slash",
            hint="for example {path:/var/log}",
        )
    if prefix and not prefix.endswith("="):
        raise BadPattern(f"{{path:{root}}} must begin the word, or follow a `=`")
    return Pattern(text, prefix, "path", suffix, root=root)
