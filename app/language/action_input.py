"""The input of an action of a pack, held to its parameters as far as it is known when a text is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from app.language import grammar, parameters
from app.language.fields import TEMPLATE_SCHEMA, Anything, Key, Kind, Schema, Table, is_template, looks_whole
from app.language.model import Action, Parameter
from app.language.problems import shown
from app.language.reading import BAD, Reading, label
from app.language.source import Node


@dataclass(frozen=True)
class Argument(Kind):
    """A value for one parameter: a template, whose value is looked at when the task starts, or a literal."""

    parameter: Parameter

    def read(self, r: Reading, node: Node) -> Any:
        kind = self.parameter.type
        texts = kind in ("string", "secret")
        if is_template(node):
            if not texts and kind != "any" and not looks_whole(node.text):
                wanted = parameters.wanted(kind)
                message = f"{label(node)} must be {wanted} or exactly one `{{{{ … }}}}`"
                return r.error(node, "wrong-type", message)
            r.template(node)
            return node.text
        value = Anything(texts=texts and node.kind == "scalar").read(r, node)
        if value is BAD:
            return BAD
        if value is None:
            return self._null(r, node)
        value = parameters.spelled(kind, value)
        if not parameters.accepts(kind, value):
            return r.wrong(node, parameters.wanted(kind), self.parameter.description)
        allowed = self.parameter.enum
        if allowed is not None and not any(parameters.same(value, one) for one in allowed):
            listed = ", ".join(shown(one) for one in allowed[:20])
            hint = r.collector.did_you_mean(
                node.text, [one for one in allowed if isinstance(one, str)], f"one of {listed}"
            )
            return r.error(node, "bad-choice", f"{label(node)} cannot be {shown(node.text)}", hint)
        return value

    def _null(self, r: Reading, node: Node) -> Any:
        if self.parameter.required and not self.parameter.has_default:
            return r.wrong(node, parameters.wanted(self.parameter.type), self.parameter.description)
        return None

    def schema(self) -> Schema:
        return TEMPLATE_SCHEMA


def table_of(action: Action) -> Table:
    """The table of an action's input. Keys of a task that people write there by mistake are pointed out."""
    keys = [_key(parameter) for parameter in action.parameters]
    known = {key.name for key in keys}
    elsewhere = {
        name: f"`{name}` belongs to the task, beside `input`"
        for name in grammar.TASK.by_name
        if name not in known
    }
    return Table(f"the input of {action.ref}", keys, elsewhere)


def _key(parameter: Parameter) -> Key:
    required = parameter.required and not parameter.has_default
    return Key(parameter.name, Argument(parameter), parameter.description, required=required)
