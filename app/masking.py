"""Masking: the values of secrets taken out of what is written, whatever pieces it comes in.

What is looked for, of each value of at least `LEAST` bytes: the value, each of its lines, and both as base64 and
base64url wherever they stand in what was encoded, in hexadecimal digits of either case, percent-encoded, and as JSON
writes them. Long ones are looked for piece by piece, so no more than `PIECE` bytes are ever held back. Standard library
only: runners mask.
"""

from __future__ import annotations

import binascii
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

LEAST: Final = 4
"""Bytes: what is shorter stands everywhere, and is not masked."""
PIECE: Final = 1024
"""Bytes that are looked for as one. Of a longer value every piece of this size is."""
MASK: Final = b"***"

_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_WRAPPED = (76, 64)
"""Characters of a line as `base64` and `openssl` break them."""
_HEX_WRAPPED = 60
"""The same of `xxd -p`, which writes small letters."""


def _escaped(left: bytes, form: bytes, space: bytes = b"") -> tuple[bytes, ...]:
    """How each byte is percent-encoded where those of `left` stay as they are."""
    table = [bytes((byte,)) if byte in _PLAIN or byte in left else form % byte for byte in range(256)]
    table[32] = space or table[32]
    return tuple(table)


_ESCAPED = tuple(
    table
    for form in (b"%%%02X", b"%%%02x")
    for table in (
        _escaped(b"", form),
        _escaped(b"/", form),
        # As `encodeURIComponent` does it.
        _escaped(b"!'()*", form),
        _escaped(b"", form, b"+"),
    )
)


class Masker:
    """What is to be masked in the outputs of one job. `stream` gives what masks one of them."""

    def __init__(self, values: Iterable[str]) -> None:
        found = {pattern for value in values for pattern in _patterns(value)}
        self.patterns = tuple(sorted(found, key=lambda pattern: (-len(pattern), pattern)))
        self.longest = max(map(len, self.patterns), default=0)

    def stream(self) -> Stream:
        return Stream(self)

    def text(self, text: str, *, cut: bool = False) -> str:
        """A text that is whole; one that was `cut` loses an end that may be the beginning of a value."""
        raw = text.encode("utf-8", "surrogateescape")
        stream = self.stream()
        masked = stream.feed(raw) + (b"" if cut else stream.end())
        return text if masked == raw else masked.decode("utf-8", "backslashreplace")

    def value(self, value: Any) -> Any:
        """A JSON value: its texts and keys, and numbers that spell a secret."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.text(str(key)): self.value(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(item) for item in value]
        if isinstance(value, int | float) and not isinstance(value, bool):
            text = json.dumps(value)
            return value if self.text(text) == text else MASK.decode()
        return value

    def spans(self, data: bytes) -> list[tuple[int, int]]:
        """Where patterns stand in `data`: from, to; in order, those that overlap made one."""
        found: list[tuple[int, int]] = []
        for pattern in self.patterns:
            at = data.find(pattern)
            while at >= 0:
                found.append((at, at + len(pattern)))
                at = data.find(pattern, at + 1)
        found.sort()
        joined: list[tuple[int, int]] = []
        for start, end in found:
            if joined and start < joined[-1][1]:
                joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
            else:
                joined.append((start, end))
        return joined

    def open_from(self, data: bytes) -> int:
        """The first place from which the rest of `data` may be the beginning of a pattern; its length if none."""
        size = len(data)
        first = size
        for pattern in self.patterns:
            at = max(0, size - len(pattern) + 1)
            while (at := data.find(pattern[:1], at, first)) >= 0:
                if pattern.startswith(data[at:]):
                    first = at
                    break
                at += 1
        return first


class Stream:
    """Masks one stream: everything that cannot be the beginning of a secret comes out at once."""

    __slots__ = ("_covered", "_held", "_masker")

    def __init__(self, masker: Masker) -> None:
        self._masker = masker
        self._held = b""
        # So many bytes of what is held are masked already: a `***` was given for them.
        self._covered = 0

    def feed(self, data: bytes | memoryview) -> bytes:
        """The next bytes as they may be seen; what is held back comes with a later call."""
        whole = self._held + bytes(data)
        return self._give(whole, self._masker.open_from(whole))

    def end(self) -> bytes:
        """What was held back: it is no secret, or only the beginning of one."""
        return self._give(self._held, len(self._held))

    def _give(self, data: bytes, until: int) -> bytes:
        parts: list[bytes] = []
        at, covered = 0, self._covered
        for start, end in self._masker.spans(data):
            if start >= until:
                break
            if start >= covered:
                parts.append(data[max(at, covered) : start])
                parts.append(MASK)
            covered = max(covered, end)
            at = covered
        parts.append(data[max(at, covered) : until])
        self._held = data[until:]
        self._covered = max(0, covered - until)
        return b"".join(parts)


def _patterns(value: str) -> Iterator[bytes]:
    raw = value.encode("utf-8", "surrogateescape")
    for line in dict.fromkeys((raw, raw.rstrip(b"\r\n"), *(line.strip(b"\r") for line in raw.split(b"\n")))):
        if len(line) < LEAST:
            continue
        for form in dict.fromkeys((line, *_base64(line), *_hex(line), *_percent(line), *_json(line))):
            yield from _pieces(form)


def _pieces(form: bytes) -> Iterator[bytes]:
    if len(form) <= PIECE:
        yield form
        return
    for at in range(0, len(form) - PIECE, PIECE):
        yield form[at : at + PIECE]
    yield form[-PIECE:]


def _base64(raw: bytes) -> Iterator[bytes]:
    """The characters that are the same whatever stands before and behind, for each of the three ways in which bytes
    fall into groups of three; and what is encoded alone, with its padding and as programs break it into lines."""
    for before in range(3):
        encoded = binascii.b2a_base64(b"\0" * before + raw, newline=False)
        bits = 8 * (before + len(raw))
        sure = encoded[-(-8 * before // 6) : bits // 6]
        if len(sure) >= LEAST:
            yield from _alphabets(sure)
    for alone in (raw, raw + b"\n"):
        encoded = binascii.b2a_base64(alone, newline=False)
        yield from _alphabets(encoded)
        for width in _WRAPPED:
            lines = (
                [encoded[at : at + width] for at in range(0, len(encoded), width)]
                if len(encoded) > width
                else []
            )
            for line in lines:
                if len(line) >= LEAST:
                    yield line


def _alphabets(encoded: bytes) -> Iterator[bytes]:
    yield encoded
    yield encoded.translate(bytes.maketrans(b"+/", b"-_"))


def _hex(raw: bytes) -> Iterator[bytes]:
    digits = binascii.hexlify(raw)
    yield digits
    yield digits.upper()
    if len(digits) > _HEX_WRAPPED:
        for at in range(0, len(digits), _HEX_WRAPPED):
            if len(line := digits[at : at + _HEX_WRAPPED]) >= 2 * LEAST:
                yield line


def _percent(raw: bytes) -> Iterator[bytes]:
    for table in _ESCAPED:
        yield b"".join([table[byte] for byte in raw])


def _json(raw: bytes) -> Iterator[bytes]:
    text = raw.decode("utf-8", "surrogateescape")
    for ascii_ in (True, False):
        form = json.dumps(text, ensure_ascii=ascii_)[1:-1]
        for one in (form, form.replace("/", "\\/")):
            yield one.encode("utf-8", "surrogateescape")
