"""YAML text to a tree of nodes with places, refusing what is dangerous or ambiguous before anything is built.

The C parser of libyaml is driven event by event, with our own depth and node counters: its recursive composer
would crash the process on deep input, and its constructor would turn `on`, `012` and `1_000` into surprises.
JSON is read as the YAML subset that it is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

import yaml

from app.language import scalars, syntax, yaml_parser
from app.language.model import Mark
from app.language.problems import Collector, TooManyProblems, shown

MOST_BYTES = 128 * 1024
MOST_DEPTH = 64
MOST_NODES = 20_000

WRITE_OUT = "write the value out"

Kind = Literal["map", "list", "scalar", "broken"]

# NEL, LS and PS end lines for YAML 1.1 but not for editors or JSON: invisible, so refused as well.
_CONTROL = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff\ufdd0\ufdd1]"
)
_NEVER = re.compile("[\x00\ud800-\udfff\ufdd0\ufdd1]")
_ESCAPES = re.compile(r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|.)", re.DOTALL)


@dataclass(slots=True, eq=False)
class Node:
    """One value of the text and where it stands; line and column count from 1.

    `value` is a dict of nodes (map), a list of nodes (list) or the resolved scalar. `text` is a scalar's text
    as written (quotes and escapes undone) whatever it resolved to; `style` is "", "'", '"', "|" or ">".
    `trap` names what is ambiguous about a plain scalar (see `scalars`). `key` is the place of the key that
    leads here. A `broken` node was reported already: readers pass over it in silence.
    """

    kind: Kind
    line: int
    column: int
    value: Any = None
    text: str = ""
    style: str = ""
    trap: str = ""
    flow: bool = False
    key_node: Node | None = None
    parent: Node | None = None
    step: str | int = ""

    @property
    def mark(self) -> Mark:
        return Mark(self.line, self.column)

    @property
    def key(self) -> Mark | None:
        return None if self.key_node is None else self.key_node.mark

    @property
    def pointer(self) -> str:
        """The JSON pointer from the root to here."""
        steps: list[str] = []
        node = self
        while node.parent is not None:
            steps.append(str(node.step).replace("~", "~0").replace("/", "~1"))
            node = node.parent
        return "".join(f"/{step}" for step in reversed(steps))

    def data(self) -> Any:
        """The plain value: dicts, lists, texts, numbers, booleans, None."""
        if self.kind == "map":
            return {key: node.data() for key, node in self.value.items()}
        if self.kind == "list":
            return [node.data() for node in self.value]
        return self.value

    def place(self, line: int, column: int, lines: list[str]) -> Mark:
        """Where line and column of this scalar's text (from 1) stand in the source; `lines` are the source's.

        Exact for block literals and for quoted or plain scalars on one line without escapes; else the start.
        """
        if self.style == "|":
            body = [text for text in lines[self.line :] if text.strip()]
            indent = len(body[0]) - len(body[0].lstrip(" ")) if body else 0
            found = Mark(self.line + line, column + indent)
        elif self.style != ">" and line == 1:
            found = Mark(self.line, self.column + column - 1 + (1 if self.style else 0))
        else:
            return self.mark
        # A quoted text that is folded over lines ends up beside them: then its start has to do.
        inside = found.line <= len(lines) and found.column <= len(lines[found.line - 1]) + 1
        return found if inside else self.mark


class Stop(Exception):
    """The text cannot be read any further; what is wrong was noted."""


def read(text: str | bytes, file: str) -> tuple[Node | None, Collector]:
    """Read one document.

    Gives the root (None if there is no tree to look at) and the collector with every problem so far, which
    whoever reads the tree goes on filling. Never raises for any input.
    """
    decoded, problem = _decode(text)
    collector = Collector(file, decoded)
    if problem is not None:
        collector.add(*problem[:2], problem[2], hint=problem[3])
        return None, collector
    try:
        return _Builder(collector).build(_join_surrogates(decoded)), collector
    except (Stop, TooManyProblems):
        return None, collector


_Refusal = tuple[str, str, Mark, str]


def _decode(text: str | bytes) -> tuple[str, _Refusal | None]:
    size = len(text) if isinstance(text, bytes) else len(text.encode("utf-8", "surrogatepass"))
    if size > MOST_BYTES:
        return "", (
            "too-large",
            f"the text has {size} bytes, {MOST_BYTES} are allowed",
            Mark(1, 1),
            "keep long scripts beside the workflow or split it",
        )
    if isinstance(text, bytes):
        raw = text
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            before = raw[: error.start].decode("utf-8")
            place = Mark(before.count("\n") + 1, len(before) - before.rfind("\n"))
            utf16 = raw[:2] in (b"\xff\xfe", b"\xfe\xff")
            hint = "save it as UTF-8" + (" (this looks like UTF-16)" if utf16 else "")
            return raw.decode("utf-8", "replace"), ("not-utf8", "the text is not UTF-8", place, hint)
    text = text.removeprefix("\ufeff")
    bad = _CONTROL.search(text)
    if bad:
        before_bad = text[: bad.start()]
        place = Mark(before_bad.count("\n") + 1, bad.start() - before_bad.rfind("\n"))
        message = f"the character U+{ord(bad.group()):04X} is not allowed here"
        hint = 'remove it, or write it as an escape inside double quotes ("\\x1b")'
        return text, ("control-character", message, place, hint)
    return text, None


def _join_surrogates(text: str) -> str:
    """JSON spells characters beyond U+FFFF as two escapes, which libyaml refuses: join them first."""
    if not text.lstrip().startswith(("{", "[")) or "\\ud" not in text.lower():
        return text

    def joined(match: re.Match[str]) -> str:
        found = match.group()
        if len(found) != 12:
            return found
        high, low = int(found[2:6], 16), int(found[8:12], 16)
        return chr(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00))

    return _ESCAPES.sub(joined, text)


@dataclass(slots=True)
class _Open:
    node: Node
    key: Node | None = None


class _Builder:
    """Builds the tree from events, with the open collections on a stack of its own."""

    def __init__(self, collector: Collector) -> None:
        self.collector = collector
        self.open: list[_Open] = []
        self.nodes = 0
        self.root: Node | None = None

    def build(self, text: str) -> Node:
        try:
            next_event = yaml_parser.fast(text)
            while (event := next_event()) is not None:
                self._take(event)
        except yaml.YAMLError as error:
            place, message, hint = syntax.explain(error, self.collector.lines)
            # After `{{ … }}` without quotes the parser trips over the rest of the line: said once.
            if not any(
                (p.code, p.line) == ("unquoted-template", place.line) for p in self.collector.problems
            ):
                self.collector.add("yaml-syntax", message, place, hint=hint)
            raise Stop from None
        if self.root is None:
            hint = "start with `tasks:`"
            self.collector.add("empty-document", "there is nothing in here", Mark(1, 1), hint=hint)
            raise Stop
        return self.root

    def _take(self, event: Any) -> None:
        kind = type(event)
        if kind is yaml.ScalarEvent:
            self._finished(self._scalar(event))
        elif kind is yaml.MappingStartEvent:
            self._start(event, "map", {})
        elif kind is yaml.SequenceStartEvent:
            self._start(event, "list", [])
        elif kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
            node = self.open.pop().node
            node.kind = "broken" if node.trap else node.kind
            self._finished(node)
        elif kind is yaml.AliasEvent:
            name = shown(f"*{event.anchor}")
            self._report(event, "alias", f"the alias {name} is not allowed", WRITE_OUT)
            self._finished(self._node(event, "broken"))
        elif kind is yaml.DocumentStartEvent:
            self._document(event)

    def _document(self, event: Any) -> None:
        if self.root is not None:
            self._report(
                event, "multi-document", "a second document starts here", "keep one workflow to a file"
            )
            raise Stop
        if event.tags:
            self._report(event, "tag", "a %TAG directive is not allowed", "remove it")

    def _report(self, event: Any, code: str, message: str, hint: str) -> None:
        mark = event.start_mark
        self.collector.add(code, message, Mark(mark.line + 1, mark.column + 1), hint=hint)

    def _node(self, event: Any, kind: Kind, value: Any = None) -> Node:
        self.nodes += 1
        if self.nodes > MOST_NODES:
            self._report(event, "too-many-nodes", f"more than {MOST_NODES} values", "split the workflow")
            raise Stop
        mark = event.start_mark
        return Node(kind, mark.line + 1, mark.column + 1, value)

    def _tagged(self, event: Any) -> bool:
        """True if the value has a tag; that and an anchor are noted."""
        if event.anchor is not None:
            name = shown(f"&{event.anchor}")
            self._report(event, "anchor", f"the anchor {name} is not allowed", WRITE_OUT)
        if event.tag is not None:
            quote = event.tag in ("!", "tag:yaml.org,2002:str")
            name = event.tag.replace("tag:yaml.org,2002:", "!!")
            hint = "put the value in quotes instead" if quote else "remove the tag"
            self._report(event, "tag", f"the tag {shown(name)} is not allowed", hint)
            return True
        return False

    def _start(self, event: Any, kind: Kind, value: Any) -> None:
        node = self._node(event, kind, value)
        node.trap = "tag" if self._tagged(event) else ""
        node.flow = bool(event.flow_style)
        if len(self.open) >= MOST_DEPTH:
            self._report(event, "too-deep", f"more than {MOST_DEPTH} levels of nesting", "flatten it")
            raise Stop
        self.open.append(_Open(node))

    def _scalar(self, event: Any) -> Node:
        node = self._node(event, "broken" if self._tagged(event) else "scalar")
        node.text = node.value = event.value
        node.style = event.style or ""
        if not node.style:
            node.value, node.trap = scalars.resolve(event.value)
        elif node.style == '"' and _NEVER.search(event.value):
            message = "a text must not hold U+0000, U+FDD0, U+FDD1 or surrogates"
            self._report(event, "control-character", message, "remove the escape")
        return node

    def _finished(self, node: Node) -> None:
        if not self.open:
            self.root = node
            return
        top = self.open[-1]
        node.parent = top.node
        if top.node.kind == "list":
            node.step = len(top.node.value)
            top.node.value.append(node)
        elif top.key is None:
            top.key = node
        else:
            self._pair(top.node, top.key, node)
            top.key = None

    def _pair(self, owner: Node, key: Node, value: Node) -> None:
        known = owner.value
        if key.kind != "scalar":
            self._odd_key(owner, key)
        elif not key.style and key.text == "<<":
            self.collector.add(
                "merge-key", "merge keys (`<<`) are not allowed", key.mark, hint="write the keys out"
            )
        elif not isinstance(key.value, str) or key.trap:
            what = "empty" if key.text == "" else f"not a text: {shown(key.text)}"
            hint = f'quote it: "{key.text}"' if 0 < len(key.text) <= 40 else "give the key a name"
            self.collector.add("key-type", f"this key is {what}", key.mark, path=owner.pointer, hint=hint)
        elif key.text in known:
            first = known[key.text].key_node
            self.collector.add(
                "duplicate-key",
                f"{shown(key.text)} stands here again; first at line {first.line}, column {first.column}",
                key.mark,
                path=owner.pointer,
                hint="keep one of the two",
            )
        else:
            value.step, value.key_node = key.text, key
            known[key.text] = value

    def _odd_key(self, owner: Node, key: Node) -> None:
        if (
            key.kind == "map"
            and key.flow
            and owner.flow
            and (key.line, key.column) == (owner.line, owner.column + 1)
        ):
            owner.kind = "broken"
            self.collector.add(
                "unquoted-template",
                "`{{` without quotes is a mapping to YAML, not a template",
                owner.mark,
                hint='quote your template: "{{ … }}"',
            )
        elif key.kind != "broken":
            self.collector.add(
                "key-type", "a list or a mapping cannot be a key", key.mark, hint="keys are texts"
            )
