"""The result of an execution: rendered at its end, and held to the schema that the workflow gives (`output`).

That is after `finally`: what those tasks published counts, and none of them sees whether it fits.
"""

from __future__ import annotations

from typing import Any

from app.engine.context import scope, size_of
from app.engine.draft import Draft
from app.engine.settle import end_badly
from app.engine.status import COMPLETED, FAILED
from app.language import expressions
from app.language.expressions import TemplateError
from app.language.output import result_misfits


def finish(draft: Draft) -> None:
    """Give the execution its output. One that completed has failed where its output is too large or does not fit."""
    run = draft.execution
    run.output = _rendered(draft)
    if run.output is None:
        return
    size, most = size_of(run.output), draft.limits.output
    if size > most:
        run.output = None
        _fail(draft, "output_too_large", f"the output has {size} bytes, {most} are allowed")
    elif draft.plan.output is not None and run.status == COMPLETED:
        found = next(result_misfits(draft.plan.output, run.output), None)
        if found is not None:
            draft.log("output", pointer=found.pointer, rule=found.rule, misfit=found.message)
            where = found.pointer or "/"
            _fail(draft, "output", f"the output at {where} {found.message} (`{found.rule}` of `output`)")


def _fail(draft: Draft, why: str, message: str) -> None:
    if draft.execution.status == COMPLETED:
        draft.execution.status, draft.execution.degraded = FAILED, False
        end_badly(draft, why, message)


def _rendered(draft: Draft) -> dict[str, Any] | None:
    """P4: what does not render in output_map becomes null, with a line in the log."""
    output_map = draft.plan.output_map
    if output_map is None:
        return None
    scopes = scope(draft, draft.plan.output_refs, ("*",), draft.plan.output_kv)
    found = {}
    for name, value in output_map.items():
        try:
            found[name] = expressions.render(value, scopes)
        except TemplateError as problem:
            found[name] = None
            draft.log("output_map", name=name, undefined=problem.message)
    return found
