"""What the settings let a workflow and an execution have, in the forms that the loader and the engine take it."""

from __future__ import annotations

from app.engine.state import Limits
from app.language.limits import TextLimits
from app.settings import Settings


def of_texts(settings: Settings) -> TextLimits:
    """Those of a workflow as written."""
    return TextLimits(settings.task_limit, settings.item_limit, settings.retry_limit, settings.template_limit)


def of_executions(settings: Settings) -> Limits:
    """Those of an execution as it runs."""
    return Limits(
        queue_timeout=settings.queue_timeout,
        fanout_queue_timeout=settings.fanout_queue_timeout,
        retries=settings.retry_limit,
        items=settings.item_limit,
        result=settings.result_limit,
        variable=settings.variable_limit,
        variables=settings.variables_limit,
        output=settings.output_map_limit,
    )
