"""From the text of a workflow to what runs of it here: the plan, the part, and the values that it begins with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from app.compiler.build import build
from app.compiler.plan import Plan
from app.language import parse, source
from app.language.known import Known
from app.language.model import Parameter
from app.language.parameters import bind
from app.language.part import Ends, Part, take
from app.language.problems import InvalidWorkflow
from app.local.state import State


@dataclass(frozen=True, slots=True)
class Loaded:
    """`given` has a value for every parameter."""

    plan: Plan
    part: Part
    given: State


def load(text: bytes, file: str, known: Known, ends: Ends, given: State) -> Loaded:
    """Read a workflow, and make the part of it between two ends ready.

    Raises InvalidWorkflow with every problem and its place, also where something in the part needs the server; and
    InvalidInput for parameters that do not fit.
    """
    workflow = parse.load_or_raise(text, file, known=known)
    root, collector = source.read(text, file)
    part = None if root is None else take(collector, root, workflow, ends, given.vars)
    if part is None:
        raise InvalidWorkflow(collector.sorted())
    bound = _bound(workflow.parameters, given.parameters)
    return Loaded(build(workflow, flows=False), part, replace(given, parameters=bound))


def _bound(declared: tuple[Parameter, ...], given: Mapping[str, Any]) -> dict[str, Any]:
    """Secrets stay on the server: what is to run reads none, and none is asked for or kept."""
    secret = {one.name for one in declared if one.type == "secret"}
    rest = tuple(one for one in declared if one.name not in secret)
    values = bind(rest, {name: value for name, value in given.items() if name not in secret})
    return {one.name: values.get(one.name) for one in declared}
