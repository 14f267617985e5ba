"""What a workflow's `output` says against its `output_map`: what can never fit is told when it is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from app.language import expressions
from app.language.fitting import Misfit, misfits
from app.language.problems import shown
from app.language.reading import Reading
from app.language.source import Node


def result_misfits(schema: Any, output: Mapping[str, Any]) -> Iterator[Misfit]:
    """Every way in which the result of an execution does not fit.

    A name that came to null counts as not given: `output_map` gives null for what is undefined, so that the result of
    an execution whose failure was handled may lack what nobody made.
    """
    given = {name: value for name, value in output.items() if value is not None or _takes_null(schema, name)}
    return misfits(schema, given)


def _takes_null(schema: Any, name: str) -> bool:
    properties = schema.get("properties", {})
    return name in properties and next(misfits(properties[name], None), None) is None


def check(r: Reading, root: Node, schema: Mapping[str, Any] | None, made: Mapping[str, Any] | None) -> None:
    """Note what of `output` no execution can ever meet."""
    if schema is None:
        return
    node = root.value["output"]
    if made is None:
        message = "`output` has no effect: there is no `output_map` that makes a result"
        r.error(node, "no-effect", message, "add `output_map`", mark=node.key, level="warning")
        return
    found = next(misfits({key: schema[key] for key in ("type",) if key in schema}, {}), None)
    if found is not None:
        r.error(
            node.value["type"], "never-fits", "the result is an object, so nothing can fit", "type: object"
        )
        return
    for name in schema.get("required", ()):
        if name not in made:
            message = f"{shown(name)} is required, and `output_map` does not make it"
            r.error(node.value["required"], "never-fits", message, f"add {shown(name)} to `output_map`")
    _written_out(r, root.value["output_map"], schema, made)


def _written_out(r: Reading, node: Node, schema: Mapping[str, Any], made: Mapping[str, Any]) -> None:
    """Names that are not allowed, and values without a template that do not fit."""
    properties = schema.get("properties", {})
    for name, value in made.items():
        place = node.value[name]
        if name not in properties:
            if schema.get("additionalProperties") is False:
                message = f"{shown(name)} is not among the properties of `output`, which allows no others"
                r.error(place, "never-fits", message, "add it there, or leave it out", mark=place.key)
        elif value is not None and not _holds_template(value):
            found = next(misfits(properties[name], value), None)
            if found is not None:
                message = f"{shown(name + found.pointer)} {found.message}, says `output`"
                r.error(place, "never-fits", message, "change one of the two")


def _holds_template(value: Any) -> bool:
    if isinstance(value, str):
        return expressions.has_template(value)
    if isinstance(value, Mapping):
        return any(_holds_template(one) for one in value.values())
    return isinstance(value, list | tuple) and any(_holds_template(one) for one in value)
