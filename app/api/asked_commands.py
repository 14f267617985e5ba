"""What may come in about commands: one on a node, or one on many."""

from __future__ import annotations

import re
from typing import Any, ClassVar

from marshmallow import Schema, ValidationError, fields, validate, validates_schema

from app.language import names
from app.services.naming import LABEL_VALUE, MOST_LABELS

DEFAULT_TIMEOUT = 300.0
SHORTEST_TIMEOUT, LONGEST_TIMEOUT = 0.001, 86_400.0
"""Seconds."""
MOST_WORDS = 1000
LONGEST_WORD = 131_071
"""Bytes: what Linux takes as one argument."""
LONGEST_TEXT = 500_000
"""Bytes of a script, of what goes to its standard input, and of all words together."""
LONGEST_PATH = 4096
MOST_BATCHES = 100

TEXTS = {"type": "array", "items": {"type": "string"}}
STEP = {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": names.PERCENT}]}


class Seconds(fields.Field):
    """A number of seconds; texts and booleans are none."""

    def __init__(self, most: float, **options: Any) -> None:
        super().__init__(**options)
        self.most = most

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValidationError("Give a number of seconds.")
        if not SHORTEST_TIMEOUT <= value <= self.most:
            raise ValidationError(f"Must be at least {SHORTEST_TIMEOUT:g} and at most {self.most:g} seconds.")
        return float(value)


class BoundedText(fields.String):
    """A text of so many bytes of UTF-8 at the most, and not blank unless that is allowed."""

    def __init__(self, most: int, *, blank: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.most = most
        self.blank = blank

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> str:
        text: str = super()._deserialize(value, attr, data, **kwargs)
        if len(text.encode()) > self.most:
            raise ValidationError(f"Must be at most {self.most} bytes.")
        if not self.blank and not text.strip():
            raise ValidationError("Must not be empty.")
        return text


class CommandField(fields.Field):
    """An argv as a list of texts, or text for a shell."""

    _text = BoundedText(LONGEST_TEXT)

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> str | list[str]:
        if isinstance(value, list):
            return _argv(value)
        if isinstance(value, str):
            return str(self._text.deserialize(value))
        raise ValidationError("Give a list of words, or a text for a shell.")


def _argv(words: list[Any]) -> list[str]:
    if not 1 <= len(words) <= MOST_WORDS:
        raise ValidationError(f"Give 1 to {MOST_WORDS} words.")
    wrong: dict[int, list[str]] = {}
    for position, word in enumerate(words):
        if not isinstance(word, str):
            wrong[position] = ["Not a valid string."]
        elif len(word.encode()) > LONGEST_WORD:
            wrong[position] = [f"Must be at most {LONGEST_WORD} bytes."]
    if not wrong and not words[0].strip():
        wrong[0] = ["The first word names the program and must not be empty."]
    if wrong:
        raise ValidationError(wrong)
    if sum(len(word.encode()) for word in words) > LONGEST_TEXT:
        raise ValidationError(f"All words together must be at most {LONGEST_TEXT} bytes.")
    return words


class CommandSchema(Schema):
    """What is to be run, by whichever route."""

    command = CommandField(
        metadata={
            "description": "An argv, or text for the shell that `language` names",
            "anyOf": [TEXTS, {"type": "string"}],
        }
    )
    script = BoundedText(LONGEST_TEXT)
    language = fields.String(
        load_default=names.DEFAULT_SHELL,
        validate=validate.Regexp(
            r"^[a-z][a-z0-9_-]{0,31}\Z",
            error="Give the name of a shell that the node has, as `sh`, `bash` or `python`.",
        ),
    )
    timeout = Seconds(
        LONGEST_TIMEOUT,
        load_default=DEFAULT_TIMEOUT,
        metadata={"type": "number", "minimum": SHORTEST_TIMEOUT, "maximum": LONGEST_TIMEOUT},
    )
    cwd = fields.String(
        load_default=None,
        allow_none=True,
        validate=[
            validate.Length(max=LONGEST_PATH),
            validate.Regexp(r"^/[^\x00-\x1f\x7f]*\Z", error="Give an absolute path."),
        ],
    )
    stdin = BoundedText(LONGEST_TEXT, blank=True, load_default=None, allow_none=True)

    @validates_schema
    def _one_of_both(self, data: dict[str, Any], **_: Any) -> None:
        if "command" in data and "script" in data:
            raise ValidationError("Give either `command` or `script`, not both.", "script")
        if "command" not in data and "script" not in data:
            raise ValidationError("Give `command` or `script`.", "command")


class NodeCommandSchema(CommandSchema):
    stream_output = fields.Boolean(load_default=False, truthy={True}, falsy={False})


class Batch(fields.Field):
    """How many nodes at once: a number, a share as `10%`, or a list of both of which the last repeats."""

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> Any:
        steps = value if isinstance(value, list) else [value]
        if not 1 <= len(steps) <= MOST_BATCHES or not all(_is_step(step) for step in steps):
            raise ValidationError(
                f"Give a number of nodes, a share as `10%`, or a list of up to {MOST_BATCHES} of them."
            )
        return steps


def _is_step(step: Any) -> bool:
    if isinstance(step, str):
        return re.match(names.PERCENT, step) is not None
    return type(step) is int and 1 <= step <= names.MOST_NODES


class NodesField(fields.Field):
    """Names of nodes, each once."""

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> list[str]:
        if not isinstance(value, list) or not 1 <= len(value) <= names.MOST_NODES:
            raise ValidationError(f"Give a list of 1 to {names.MOST_NODES} names.")
        wrong: dict[int, list[str]] = {}
        seen: set[Any] = set()
        for position, name in enumerate(value):
            if not isinstance(name, str) or not re.match(names.NODE, name):
                wrong[position] = [f"Not the name of a node: {names.NODE_RULE}."]
            elif name in seen:
                wrong[position] = [f"The node {name} stands here twice."]
            else:
                seen.add(name)
            if len(wrong) >= 20:
                break
        if wrong:
            raise ValidationError(wrong)
        return value


class LabelsField(fields.Field):
    """Labels that a node must carry, all of them."""

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> dict[str, str]:
        if not isinstance(value, dict) or not 1 <= len(value) <= MOST_LABELS:
            raise ValidationError(f"Give an object of 1 to {MOST_LABELS} labels.")
        wrong: dict[str, list[str]] = {}
        for name, text in value.items():
            if not re.match(names.LABEL, name):
                wrong[name] = [f"Not the name of a label: {names.LABEL_RULE}."]
            elif not isinstance(text, str) or not LABEL_VALUE.fullmatch(text):
                wrong[name] = ["Must be a text of letters, digits and `_./:@+-`."]
        if wrong:
            raise ValidationError(wrong)
        return value


class SpreadSchema(Schema):
    """On which nodes: those that `named` lists, or those with the labels; in which batches, how many may fail."""

    named: ClassVar[str]

    labels = LabelsField(metadata={"type": "object", "additionalProperties": {"type": "string"}})
    batch = Batch(
        load_default=None,
        allow_none=True,
        metadata={"anyOf": [*STEP["anyOf"], {"type": "array", "items": STEP}, {"type": "null"}]},
    )
    max_failures = fields.Integer(
        load_default=0, strict=True, validate=validate.Range(min=0, max=names.MOST_NODES)
    )
    allow_unknown = fields.Boolean(
        load_default=False,
        truthy={True},
        falsy={False},
        metadata={"description": "Nodes that do not exist are rows of the result instead of a refusal"},
    )

    @validates_schema
    def _one_choice(self, data: dict[str, Any], **_: Any) -> None:
        if self.named in data and "labels" in data:
            raise ValidationError(f"Give either `{self.named}` or `labels`, not both.", "labels")
        if self.named not in data and "labels" not in data:
            raise ValidationError(f"Give `{self.named}` or `labels`.", self.named)


class FleetCommandSchema(CommandSchema, SpreadSchema):
    named = "nodes"

    nodes = NodesField(metadata=TEXTS)


class CommandWaitQuery(Schema):
    wait = fields.Float(
        load_default=None,
        validate=validate.Range(min=0, max=60),
        metadata={
            "description": "Seconds to wait for the end before answering with 202; wins over `Prefer: wait=N`"
        },
    )
