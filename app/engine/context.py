"""The values that templates see, and the rendering of what a task is given."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from app.compiler.plan import Plan, PlanTask
from app.engine.draft import Draft, NeedMore
from app.engine.state import ExecutionState, Need
from app.language import expressions
from app.language.expressions import TemplateError
from app.language.opaque import Handle
from app.language.secret_places import may_hold
from app.marks import CONFIG, PARAMETER, SECRET, references, shown_reference

_STORED = f"{SECRET}:"
MONTH = 30 * 86400.0


class OverLimit(TemplateError):
    """A value is larger than the settings let; `kind` is the type of the error that comes of it."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message, "")
        self.kind = kind


def size_of(value: Any) -> int:
    """The bytes of a value as JSON, as good as exactly: what the database and those who read it have to hold."""
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())


def scope(
    draft: Draft,
    refs: Sequence[str],
    var_refs: Sequence[str],
    kv: Sequence[str] = (),
    secrets: Sequence[str] = (),
    **more: Any,
) -> dict[str, Any]:
    """The scopes by name. Only results, variables and keys that the templates read are fetched (Need).

    `secrets` are the references that they name.
    """
    _fetch_vars(draft, var_refs)
    scopes = {
        "task": {name: draft.seen(name) for name in refs if name in draft.plan.tasks},
        "vars": draft.vars,
        **fixed_scopes(draft.plan, draft.execution),
        **more,
    }
    if kv or secrets:
        stored = [one for one in secrets if one.startswith(_STORED)]
        opaque = {one.removeprefix(_STORED): Handle(one) for one in stored}
        scopes["kv"] = {"get": draft.kv(kv), "get_secret": opaque}
    return scopes


def first_scopes(plan: Plan, execution: ExecutionState, kv: Mapping[str, Any]) -> dict[str, Any]:
    """The scopes of the first values of variables, but for the variables themselves.

    `kv` holds the values of `plan.vars_kv`.
    """
    return {**fixed_scopes(plan, execution), "kv": {"get": kv}}


def fixed_scopes(plan: Plan, execution: ExecutionState) -> dict[str, Any]:
    """What is there from the submission on. Secrets are handles; one that was not given is null all the same."""
    return {
        "parameters": _opaque(execution.parameters, plan.secret_parameters, PARAMETER),
        "pack": {"config": _opaque(execution.config, plan.secret_config, CONFIG)},
        "system": execution.system,
    }


def _opaque(values: Mapping[str, Any], secret: Collection[str], kind: str) -> Mapping[str, Any]:
    if not secret:
        return values
    return {
        name: Handle(f"{kind}:{name}") if name in secret and value is not None else value
        for name, value in values.items()
    }


def task_scope(
    draft: Draft, task: PlanTask, own: Mapping[str, Any] | None = None, **more: Any
) -> dict[str, Any]:
    """The scopes for a task's own templates; `own` stands for its result while it is being settled.

    `more` are `item` and `index` of a loop's unit.
    """
    refs = [name for name in task.refs if own is None or name != task.name]
    scopes = scope(draft, refs, task.var_refs, task.kv, task.secrets, **more)
    if own is not None:
        scopes["task"][task.name] = own
    return scopes


def _fetch_vars(draft: Draft, wanted: Sequence[str]) -> None:
    if not wanted or "*" in draft.given.vars_loaded:
        return
    known = set() if "*" in wanted else draft.vars.keys()
    missing = frozenset(wanted) - draft.given.vars_loaded - known
    if missing:
        raise NeedMore(Need(vars=missing))


def error(kind: str, message: str, **more: Any) -> dict[str, Any]:
    """The error of a task or job as templates and people see it."""
    return {"type": kind, "message": message[:2000], **more}


def template_error(task: str, problem: TemplateError) -> dict[str, Any]:
    return error(kind_of(problem), f"{task}: {problem.message}")


def kind_of(problem: TemplateError, otherwise: str = "template") -> str:
    """The type of the error that a value which cannot be had comes to."""
    return problem.kind if isinstance(problem, OverLimit) else otherwise


def render_input(task: PlanTask, scopes: Mapping[str, Any]) -> dict[str, Any]:
    """The input with its templates replaced, but for shell text; what that is bound to goes under `bound`.

    Secrets are marks (`app.marks`), and only where the action may hold them. That of a flow says where it runs: its
    task's own is rendered there. Raises TemplateError.
    """
    if task.flow is not None:
        return {key: value for key, value in task.flow.items() if key != "task"}
    rest = {key: value for key, value in task.input.items() if key not in task.literal}
    given: dict[str, Any]
    if task.secrets:
        given = {
            key: expressions.render(value, scopes, handles=may_hold(task.action, key))
            for key, value in rest.items()
        }
    else:
        given = expressions.render(rest, scopes)
    given.update({key: task.input[key] for key in task.literal})
    if task.bound:
        given["bound"] = expressions.render(dict(task.bound), scopes, handles=bool(task.secrets))
    _refuse_unnamed(task, given)
    return given


def _refuse_unnamed(task: PlanTask, given: Mapping[str, Any]) -> None:
    """A secret that a computed key led to: only those that the templates name may be used."""
    for reference in references(given) if task.secrets else ():
        if reference not in task.secrets:
            message = f"{shown_reference(reference)} is not named by any template of {task.name}"
            raise TemplateError(message, reference, hint="write its name in the template")


def seconds(value: Any, scopes: Mapping[str, Any], what: str) -> float | None:
    """A time span up to a month, None where none is given. Raises TemplateError."""
    return None if value is None else number(value, scopes, what, low=0.001, high=MONTH)


def retries(draft: Draft, task: PlanTask, scopes: Mapping[str, Any]) -> int:
    """How often a task with `retry` is tried again at the most. Raises TemplateError, OverLimit among them."""
    most = draft.limits.retries
    found = int(number((task.retry or {})["count"], scopes, "retry.count", low=0, high=1_000_000))
    if found > most:
        raise OverLimit(
            "too_many_attempts", f"retry.count is {found}, a task may be tried again {most} times"
        )
    return found


def number(value: Any, scopes: Mapping[str, Any], what: str, *, low: float, high: float) -> float:
    """A number that may come from a template. Raises TemplateError if it is none or out of bounds."""
    found = expressions.render(value, scopes) if isinstance(value, str) else value
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
