"""Whether what a script of a pack wrote fits what its action promises."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.engine.context import error
from app.language.fitting import misfits


def misfit(action: Mapping[str, Any], written: Any) -> dict[str, Any] | None:
    """The error of a script that wrote something else than its action's `output` says; None where it fits.

    `action` is one of a plan's; `written` what the script wrote to MUSTER_OUTPUT, None for nothing.
    """
    schema = action["output"]
    found = None if schema is None else next(misfits(schema, written or {}), None)
    if found is None:
        return None
    where = found.pointer or "/"
    message = f"the result of {action['ref']} at {where} {found.message} (`{found.rule}` of its `output`)"
    return error("output", message, pointer=found.pointer)
