"""The values that templates see, and the rendering of what a task is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from app.compiler.plan import PlanTask
from app.engine.draft import Draft, NeedMore
from app.engine.state import Need
from app.language import expressions
from app.language.expressions import TemplateError

MONTH = 30 * 86400.0


def scope(draft: Draft, refs: Sequence[str], var_refs: Sequence[str], **more: Any) -> dict[str, Any]:
    """The scopes by name. Only results and variables that the templates read are fetched (Need)."""
    _fetch_vars(draft, var_refs)
    return {
        "task": {name: draft.seen(name) for name in refs if name in draft.plan.tasks},
        "vars": draft.vars,
        "parameters": draft.execution.parameters,
        "system": draft.execution.system,
        **more,
    }


def task_scope(
    draft: Draft, task: PlanTask, own: Mapping[str, Any] | None = None, **more: Any
) -> dict[str, Any]:
    """The scopes for a task's own templates; `own` stands for its result while it is being settled.

    `more` are `item` and `index` of a loop's unit.
    """
    refs = [name for name in task.refs if own is None or name != task.name]
    scopes = scope(draft, refs, task.var_refs, **more)
    if own is not None:
        scopes["task"][task.name] = own
    return scopes


def _fetch_vars(draft: Draft, wanted: Sequence[str]) -> None:
    missing = (
        frozenset(wanted) - draft.given.vars_loaded - (draft.vars.keys() if "*" not in wanted else set())
    )
    if missing and "*" not in draft.given.vars_loaded:
        raise NeedMore(Need(vars=missing))


def error(kind: str, message: str, **more: Any) -> dict[str, Any]:
    """The error of a task or job as templates and people see it."""
    return {"type": kind, "message": message[:2000], **more}


def template_error(task: str, problem: TemplateError) -> dict[str, Any]:
    return error("template", f"{task}: {problem.message}")


def render_input(task: PlanTask, scopes: Mapping[str, Any]) -> dict[str, Any]:
    """The input with its templates replaced, but for shell text; what that is bound to goes under `bound`."""
    rest = {key: value for key, value in task.input.items() if key not in task.literal}
    given: dict[str, Any] = expressions.render(rest, scopes)
    given.update({key: task.input[key] for key in task.literal})
    if task.bound:
        given["bound"] = expressions.render(dict(task.bound), scopes)
    return given


def seconds(value: Any, scopes: Mapping[str, Any], what: str) -> float | None:
    """A time span up to a month, None where none is given. Raises TemplateError."""
    return None if value is None else number(value, scopes, what, low=0.001, high=MONTH)


def number(value: Any, scopes: Mapping[str, Any], what: str, *, low: float, high: float) -> float:
    """A number that may come from a template. Raises TemplateError if it is none or out of bounds."""
    found = expressions.render(value, scopes)
    if isinstance(found, str):
        try:
            found = float(found)
        except ValueError:
            raise TemplateError(f"{what} must be a number, got {found[:80]!r}", str(value)) from None
    if isinstance(found, bool) or not isinstance(found, int | float) or not low <= found <= high:
        raise TemplateError(
            f"{what} must be a number from {low:g} to {high:g}, got {str(found)[:80]}", str(value)
        )
    return float(found)
