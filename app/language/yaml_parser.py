"""The parser of YAML: libyaml's where PyYAML was built with it, else the one in Python, which sees the same events."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from yaml.error import Mark
from yaml.events import ScalarEvent
from yaml.parser import Parser
from yaml.reader import Reader
from yaml.scanner import Scanner, ScannerError
from yaml.tokens import ScalarToken

NextEvent = Callable[[], Any]
"""The next event of a text, None after the last. Raises yaml.YAMLError."""


_BLANKS: Final = " \t"
_BREAKS: Final = "\r\n\x85\u2028\u2029"
_ENDS: Final = f"\0{_BLANKS}{_BREAKS}"
_PLAIN: Final = "while scanning a plain scalar"


class PureParser(Reader, Scanner, Parser):
    """PyYAML's own parser, without what builds values; where the two differ, it reads as libyaml does."""

    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)

    def fetch_stream_end(self) -> None:
        """The end of a text stands on a line of its own."""
        if self.column:
            self.line, self.column = self.line + 1, 0
        super().fetch_stream_end()

    def scan_to_next_token(self) -> None:
        """Tabs separate, but for those where the indentation of a line is."""
        super().scan_to_next_token()
        while (self.flow_level or not self.allow_simple_key) and self.peek() == "\t":
            self.forward()
            super().scan_to_next_token()

    def scan_plain(self) -> ScalarToken:
        """A text without quotes: tabs may be in it, and in brackets `?` too, but no `:` before a bracket or comma."""
        began = ended = self.get_mark()
        indent, parts = self.indent + 1, [""]
        between, is_folded = "", False
        while self.peek() != "#" and not self._is_marker():
            if length := self._plain_length(began):
                parts += [between, self.prefix(length)]
                self.forward(length)
                ended, between, is_folded = self.get_mark(), "", False
            if self.peek() not in _BLANKS + _BREAKS:
                break
            between, is_folded = self._between(indent, began)
            if not self.flow_level and self.column < indent:
                break
        self.allow_simple_key = is_folded or self.allow_simple_key
        return ScalarToken("".join(parts), True, began, ended)

    def _is_marker(self) -> bool:
        """Whether a document begins or ends here."""
        return self.column == 0 and self.prefix(3) in ("---", "...") and self.peek(3) in _ENDS

    def _plain_length(self, began: Mark) -> int:
        """Characters up to the next blank, or what ends such a text."""
        length = 0
        while (char := self.peek(length)) not in _ENDS:
            following = self.peek(length + 1)
            if char == ":" and self.flow_level and following in ",?[]{}":
                self.forward(length)
                raise ScannerError(_PLAIN, began, "found unexpected ':'", self.get_mark())
            if (char == ":" and following in _ENDS) or (self.flow_level and char in ",[]{}"):
                break
            length += 1
        return length

    def _between(self, indent: int, began: Mark) -> tuple[str, bool]:
        """What blanks and line ends here come to, and whether there were line ends."""
        blanks = ""
        breaks: list[str] = []
        while True:
            if (char := self.peek()) in _BLANKS:
                if breaks and self.column < indent and char == "\t":
                    problem = "found a tab character that violates indentation"
                    raise ScannerError(_PLAIN, began, problem, self.get_mark())
                blanks += char
                self.forward()
            elif line_end := self.scan_line_break():  # type: ignore[no-untyped-call]
                breaks.append(line_end)
            else:
                break
        if not breaks:
            return blanks, False
        return ("".join(breaks[1:]) or " ") if breaks[0] == "\n" else "".join(breaks), True

    def parse_flow_mapping_value(self) -> Any:
        """In braces, a value that is not there stands where the next thing does; one with an anchor or a tag, there."""
        event = super().parse_flow_mapping_value()  # type: ignore[no-untyped-call]
        is_bare = type(event) is ScalarEvent and event.style is None and event.tag is None
        if is_bare and not event.value and event.anchor is None:
            event.start_mark = self.peek_token().start_mark  # type: ignore[no-untyped-call]
        return event


def pure(text: str) -> NextEvent:
    """By the parser in Python."""
    found: NextEvent = PureParser(text).get_event
    return found


def fast(text: str) -> NextEvent:
    """By libyaml where there is one: it is twenty times as fast."""
    if CParser is None:
        return pure(text)
    found: NextEvent = CParser(text).get_event
    return found


CParser: Any
try:
    from yaml._yaml import CParser
except ImportError:
    CParser = None
