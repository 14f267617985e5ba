"""Parameters as a workflow, an action of a pack or the configuration of one declares them."""

from __future__ import annotations

from typing import Any

from app.language import grammar, names, parameters
from app.language.fields import Anything, MapOf, Table
from app.language.model import Parameter
from app.language.reading import BAD, Reading
from app.language.source import Node


def read(r: Reading, node: Node | None, table: Table = grammar.PARAMETER) -> tuple[Parameter, ...]:
    """Declared parameters by name, each read by `table`; those with a problem are there as far as they go."""
    if node is None:
        return ()
    found = MapOf(grammar.Later(""), names.VARIABLE, names.VARIABLE_RULE).read(r, node)
    return () if found is BAD else tuple(_parameter(r, name, child, table) for name, child in found.items())


def _parameter(r: Reading, name: str, node: Node, table: Table) -> Parameter:
    values = table.read(r, node)
    if values is BAD:
        return Parameter(name, mark=node.key or node.mark)
    kind = values.get("type", "string")
    enum, default = values.get("enum"), values.get("default")
    allowed = None
    if enum is not None:
        if enum.kind != "list" or not enum.value:
            r.wrong(enum, "a list of at least one value", "write [a, b, c]")
        else:
            allowed = tuple(value for child in enum.value if (value := _typed(r, child, kind)) is not BAD)
    value = None if default is None or default.value is None else _typed(r, default, kind)
    if default is not None and value is not None:
        if allowed is not None and value is not BAD and value not in allowed:
            hint = r.collector.did_you_mean(default.text, [str(one) for one in allowed])
            r.error(default, "bad-default", f"the default of `{name}` is not one of its `enum`", hint)
        if kind == "secret":
            hint = "keep it elsewhere and let the caller give it"
            r.error(
                default,
                "secret-default",
                f"a secret stands here for all to read: `{name}`",
                hint,
                level="warning",
            )
        if values.get("required"):
            message = f"`{name}` is required and has a default: the default is used"
            r.error(default, "required-default", message, "remove one of the two", level="warning")
    return Parameter(
        name,
        kind,
        required=values.get("required", False),
        has_default=default is not None,
        default=None if value is BAD else value,
        enum=allowed,
        description=values.get("description", ""),
        mark=node.key or node.mark,
    )


def _typed(r: Reading, node: Node, kind: str) -> Any:
    texts = kind in ("string", "secret")
    value = Anything(templates=False, texts=texts and node.kind == "scalar").read(r, node)
    if value is BAD or parameters.accepts(kind, value):
        return value
    return r.wrong(node, parameters.wanted(kind))
