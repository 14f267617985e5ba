"""What is told to whoever had jobs started: whole answers in their order, as far as they are taken."""

from __future__ import annotations

import os
import selectors
from collections import deque

PIECE_TOLD = 65_536
MOST_UNHEARD = 4 << 20
"""Bytes of answers that wait to be taken. What is more is not told: it can be asked for."""


class Telling:
    """Says answers on standard output, which does not block. Each begins with the number of what it answers."""

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self.selector = selector
        self.waiting: deque[tuple[int, bytes, bool]] = deque()
        self.size = 0
        self.said = bytearray()
        self.is_waited_for = False
        self.is_heard = True

    def say(self, number: int, lines: list[bytes], *, is_last: bool = False) -> None:
        """Lines of an answer, each with its mark before it. With the last ones nothing more will be said of it."""
        told = b"".join(b"%d%s\n" % (number, line) for line in lines)
        self.put(number, told, is_last)
        if self.size > MOST_UNHEARD:
            # Whoever hears this asks for what the job's directory says.
            ends = [one for one, _, was_last in self.waiting if was_last]
            self.waiting.clear()
            self.size = 0
            for one in ends:
                self.put(one, b"%d=3\n" % one, True)

    def put(self, number: int, told: bytes, is_last: bool) -> None:
        if self.is_heard:
            self.waiting.append((number, told, is_last))
            self.size += len(told)

    def flush(self) -> None:
        """Says what is taken now; the selector wakes for the rest."""
        try:
            while self.waiting or self.said:
                while self.waiting and len(self.said) < PIECE_TOLD:
                    told = self.waiting.popleft()[1]
                    self.size -= len(told)
                    self.said += told
                del self.said[: os.write(1, self.said)]
        except BlockingIOError:
            pass
        except OSError:
            self.is_heard = False
            self.said.clear()
            self.waiting.clear()
        if bool(self.said) == self.is_waited_for:
            return
        self.is_waited_for = bool(self.said)
        if self.said:
            self.selector.register(1, selectors.EVENT_WRITE, lambda: None)
        else:
            self.selector.unregister(1)


def lines_of(data: bytes, mark: bytes, mark_of_end: bytes) -> list[bytes]:
    """Data as lines of an answer: whole ones with one mark, an end that is none with the other."""
    *lines, rest = data.split(b"\n")
    return [*(mark + line for line in lines), *([mark_of_end + rest] if rest else [])]
