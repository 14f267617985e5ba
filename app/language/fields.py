"""Kinds of values and tables of keys: how one is read from a node, and its JSON Schema, side by side.

`parse` and `schema` both work from these, so what an editor accepts and what the loader accepts cannot part.
A kind's `read` notes every problem in the `Reading` and gives `BAD` when there is no value to go on with.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from app.language import expressions, scalars
from app.language.problems import Severity, shown
from app.language.reading import BAD, Reading, label
from app.language.source import Node

Schema = dict[str, Any]


class Kind(ABC):
    """One kind of value."""

    @abstractmethod
    def read(self, r: Reading, node: Node) -> Any:
        """The value at `node`, or BAD."""

    @abstractmethod
    def schema(self) -> Schema:
        """What JSON Schema can say of it."""


TEMPLATE_SCHEMA: Final[Schema] = {"type": "string", "pattern": r"\{\{[\s\S]*\}\}|\{%"}
LITERAL_SCHEMA: Final[Schema] = {"type": ["string", "number", "boolean"]}


def is_template(node: Node) -> bool:
    return node.kind == "scalar" and isinstance(node.value, str) and expressions.has_template(node.value)


def looks_whole(text: str) -> bool:
    """True if the text is, as far as its ends tell, one `{{ expr }}` and nothing else."""
    return text.startswith("{{") and text.endswith("}}")


def _template_here(r: Reading, node: Node, wanted: str) -> Any:
    if not looks_whole(node.text):
        return r.error(node, "wrong-type", f"{label(node)} must be {wanted} or exactly one `{{{{ … }}}}`")
    r.template(node)
    return node.text


def no_template(r: Reading, node: Node) -> bool:
    """True if the text holds no template; otherwise that is noted."""
    if not is_template(node):
        return True
    r.error(node, "template-not-allowed", f"{label(node)} must not hold a template", "write the value itself")
    return False


@dataclass(frozen=True)
class Text(Kind):
    """A text. Plain numbers and booleans keep the text they were written with: `1.10` stays "1.10"."""

    pattern: str = ""
    rule: str = ""
    code: str = "bad-value"
    most: int = 65_536
    least: int = 0
    templates: bool = False
    prose: bool = False
    null: bool = False

    def read(self, r: Reading, node: Node) -> Any:
        if node.kind != "scalar" or (node.value is None and not self.null):
            return r.wrong(node, "a text")
        if node.value is None:
            return ""
        if not self.prose and is_template(node):
            if self.templates:
                r.template(node)
                return node.text
            if not no_template(r, node):
                return BAD
        return self._checked(r, node)

    def _checked(self, r: Reading, node: Node) -> Any:
        text = node.text
        if not self.least <= len(text) <= self.most:
            limit = "must not be empty" if not text else f"must have {self.least} to {self.most} characters"
            return r.error(node, "out-of-range", f"{label(node)} {limit}")
        if self.pattern and not re.match(self.pattern, text):
            return r.error(node, self.code, f"{label(node)} cannot be {shown(text)}", self.rule)
        return text

    def schema(self) -> Schema:
        if self.pattern and not self.templates:
            return {"type": "string", "pattern": self.pattern}
        if self.pattern:
            return {"anyOf": [{"type": "string", "pattern": self.pattern}, TEMPLATE_SCHEMA]}
        return dict(LITERAL_SCHEMA) if not self.null else {"type": ["string", "number", "boolean", "null"]}


@dataclass(frozen=True)
class Flag(Kind):
    """true or false."""

    def read(self, r: Reading, node: Node) -> Any:
        if node.kind == "scalar" and isinstance(node.value, bool):
            return node.value
        word = node.text.lower() if node.kind == "scalar" else ""
        meant = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}
        hint = f"write {meant.get(word, word)}" if word in {*meant, "true", "false"} else ""
        return r.wrong(node, "true or false", hint)

    def schema(self) -> Schema:
        return {"type": "boolean"}


_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(s|sec|m|min|h|d)\Z")
_SECONDS = {"s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True)
class Number(Kind):
    """A number within limits; `above` makes the lower limit exclusive."""

    low: float
    high: float
    whole: bool = False
    above: bool = False
    templates: bool = True
    seconds: bool = False

    def read(self, r: Reading, node: Node) -> Any:
        wanted = "a whole number" if self.whole else "a number of seconds" if self.seconds else "a number"
        if is_template(node):
            if self.templates:
                return _template_here(r, node, wanted)
            if not no_template(r, node):
                return BAD
        if node.kind == "scalar" and node.trap and node.trap != scalars.TRAILING_ZERO:
            message, hint = scalars.trap_message(node.trap, shown(node.text))
            return r.error(node, node.trap, f"{label(node)}: {message}", hint)
        value = node.value
        if node.kind != "scalar" or isinstance(value, bool) or not isinstance(value, (int, float)):
            return r.wrong(node, wanted, self._hint(node))
        if self.whole and not isinstance(value, int):
            return r.wrong(node, wanted)
        if not self.low <= value <= self.high or (self.above and value == self.low):
            joint = "more than {} and at most {}" if self.above else "from {} to {}"
            limits = joint.format(_plain(self.low), _plain(self.high))
            return r.error(node, "out-of-range", f"{label(node)} must be {limits}, not {shown(node.text)}")
        return value

    def _hint(self, node: Node) -> str:
        if node.kind != "scalar" or not isinstance(node.value, str):
            return ""
        if self.seconds and (duration := _DURATION.match(node.text)):
            return f"in seconds: {_plain(float(duration[1]) * _SECONDS[duration[2]])}"
        return "remove the quotes" if node.style and re.match(r"[0-9]+(\.[0-9]+)?\Z", node.text) else ""

    def schema(self) -> Schema:
        low = "exclusiveMinimum" if self.above else "minimum"
        kind = "integer" if self.whole else "number"
        number = {"type": kind, low: self.low, "maximum": self.high}
        return {"anyOf": [number, TEMPLATE_SCHEMA]} if self.templates else number


def _plain(number: float) -> str:
    return str(int(number)) if float(number).is_integer() else str(number)


@dataclass(frozen=True)
class Choice(Kind):
    """One of some words."""

    words: tuple[str, ...]

    def read(self, r: Reading, node: Node) -> Any:
        wanted = (
            " or ".join([", ".join(self.words[:-1]), self.words[-1]]) if self.words[1:] else self.words[0]
        )
        if node.kind != "scalar" or node.value is None:
            return r.wrong(node, wanted)
        if node.text not in self.words:
            if no_template(r, node):
                hint = r.collector.did_you_mean(node.text, self.words)
                r.error(node, "bad-choice", f"{label(node)} must be {wanted}, not {shown(node.text)}", hint)
            return BAD
        return node.text

    def schema(self) -> Schema:
        return {"enum": list(self.words)}


@dataclass(frozen=True)
class Anything(Kind):
    """Any JSON value; templates anywhere in it unless `templates` is off."""

    templates: bool = True
    texts: bool = False

    def read(self, r: Reading, node: Node) -> Any:
        if node.kind == "broken":
            return BAD
        if node.kind == "map":
            return {key: self.read(r, value) for key, value in node.value.items()}
        if node.kind == "list":
            return [self.read(r, value) for value in node.value]
        if node.trap and not self.texts:
            message, hint = scalars.trap_message(node.trap, shown(node.text))
            level: Severity = "warning" if node.trap == scalars.TRAILING_ZERO else "error"
            r.error(node, node.trap, message, hint, level=level)
            if level == "error":
                return BAD
        if is_template(node):
            if self.templates:
                r.template(node)
            elif not no_template(r, node):
                return BAD
        return node.text if self.texts and node.value is not None else node.value

    def schema(self) -> Schema:
        return {}


@dataclass(frozen=True)
class MapOf(Kind):
    """A mapping from names to values of one kind."""

    value: Kind
    pattern: str = ""
    rule: str = ""
    templates: bool = False

    def read(self, r: Reading, node: Node) -> Any:
        if self.templates and is_template(node):
            return _template_here(r, node, "a mapping")
        if node.kind != "map":
            return r.wrong(node, "a mapping")
        out = {}
        for key, child in node.value.items():
            if self.pattern and not re.match(self.pattern, key):
                r.error(child, "bad-name", f"{shown(key)} cannot be a name here", self.rule, mark=child.key)
            elif (value := self.value.read(r, child)) is not BAD:
                out[key] = value
        return out

    def schema(self) -> Schema:
        out: Schema = {"type": "object", "additionalProperties": self.value.schema()}
        if self.pattern:
            out["propertyNames"] = {"pattern": self.pattern}
        return {"anyOf": [out, TEMPLATE_SCHEMA]} if self.templates else out


@dataclass(frozen=True)
class ListOf(Kind):
    """A list of one kind as a tuple; with `single` one value may stand for a list of one."""

    item: Kind
    least: int = 0
    most: int = 10_000
    single: bool = False
    templates: bool = False

    def read(self, r: Reading, node: Node) -> Any:
        if self.templates and is_template(node):
            return _template_here(r, node, "a list")
        if node.kind != "list":
            if self.single and node.kind == "scalar" and node.value is not None:
                value = self.item.read(r, node)
                return BAD if value is BAD else (value,)
            if self.single:
                return r.wrong(node, "one value or a list")
            short = node.text if len(node.text) <= 40 and node.kind == "scalar" else ""
            return r.wrong(node, "a list", f"write [{short}]" if short else "")
        if not self.least <= len(node.value) <= self.most:
            if not node.value:
                return r.error(node, "out-of-range", f"{label(node)} must not be empty")
            return r.error(
                node, "out-of-range", f"{label(node)} has {len(node.value)} entries, {self.most} are allowed"
            )
        return tuple(value for child in node.value if (value := self.item.read(r, child)) is not BAD)

    def schema(self) -> Schema:
        out: Schema = {
            "type": "array",
            "items": self.item.schema(),
            "minItems": self.least,
            "maxItems": self.most,
        }
        options = [out] + [self.item.schema()] * self.single + [TEMPLATE_SCHEMA] * self.templates
        return {"anyOf": options} if options[1:] else out


@dataclass(frozen=True)
class Condition(Kind):
    """A template that is true or false, or a bare true or false; kept as text."""

    def read(self, r: Reading, node: Node) -> Any:
        if node.kind == "scalar" and isinstance(node.value, bool):
            return "true" if node.value else "false"
        if not is_template(node):
            hint = 'write "{{ … }}" around it' if node.kind == "scalar" and node.value is not None else ""
            return r.wrong(node, "a template or true or false", hint)
        r.template(node)
        return node.text

    def schema(self) -> Schema:
        return {"anyOf": [{"type": "boolean"}, TEMPLATE_SCHEMA]}


@dataclass(frozen=True)
class Key:
    """One key of a table. `after` and `item` are as in `Use`; `item` None leaves it as it is around."""

    name: str
    kind: Kind
    doc: str
    required: bool = False
    after: bool | None = None
    item: bool | None = None


@dataclass(frozen=True)
class Table(Kind):
    """A mapping with known keys.

    `elsewhere` tells where a key belongs that people write here by mistake; exactly one of the keys in `one_of` must
    stand there.
    """

    what: str
    keys: Sequence[Key]
    elsewhere: Mapping[str, str] = field(default_factory=dict)
    one_of: tuple[str, ...] = ()
    by_name: dict[str, Key] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_name", {key.name: key for key in self.keys})

    def read(self, r: Reading, node: Node) -> Any:
        """The values that could be read, by key; BAD only if the node is no mapping at all."""
        if node.kind != "map":
            return r.wrong(node, "a mapping of keys to values", self._known())
        out: dict[str, Any] = {}
        after, item = r.after, r.item
        for name, child in node.value.items():
            key = self.by_name.get(name)
            if key is None:
                self._unknown(r, child, name)
                continue
            r.after = after if key.after is None else key.after
            r.item = item if key.item is None else key.item
            value = key.kind.read(r, child)
            if value is not BAD:
                out[name] = value
        r.after, r.item = after, item
        for key in self.keys:
            if key.required and key.name not in node.value:
                r.error(node, "missing-key", f"{self.what} needs `{key.name}`", key.doc)
        given = [name for name in self.one_of if name in node.value]
        if self.one_of and len(given) != 1:
            one = " or ".join(f"`{name}`" for name in self.one_of)
            many = f"{self.what} has {' and '.join(f'`{name}`' for name in given)}"
            message = f"{many}, only one can be" if given else f"{self.what} needs {one}"
            r.error(node, "one-of", message, f"write exactly one of {one}")
        return out

    def _known(self) -> str:
        listed = ", ".join(list(self.by_name)[:12]) + (", …" if len(self.by_name) > 12 else "")
        return f"known here: {listed}" if listed else "it takes no keys"

    def _unknown(self, r: Reading, child: Node, name: str) -> None:
        hint = self.elsewhere.get(name) or r.collector.did_you_mean(name, self.by_name, self._known())
        r.error(child, "unknown-key", f"{self.what} has no key {shown(name)}", hint, mark=child.key)

    def schema(self) -> Schema:
        out: Schema = {
            "type": "object",
            "additionalProperties": False,
            "properties": {key.name: {**key.kind.schema(), "description": key.doc} for key in self.keys},
        }
        required = [key.name for key in self.keys if key.required]
        if required:
            out["required"] = required
        if self.one_of:
            out["oneOf"] = [{"required": [name]} for name in self.one_of]
        return out
