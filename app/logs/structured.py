"""How the processes of the control side log: the lines of every library, ours included, written by structlog."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping

import structlog

from app.logs.lines import fields_of, format_of, install
from app.settings import Settings


class StructuredFormatter(logging.Formatter):
    """Hands a line's fields to a renderer of structlog."""

    def __init__(self, form: str, always: Mapping[str, str], *, colours: bool) -> None:
        super().__init__()
        self._always = dict(always)
        self._render = (
            structlog.processors.JSONRenderer()
            if form == "json"
            # structlog's own tracebacks would show local variables; ours come as text.
            else structlog.dev.ConsoleRenderer(
                colors=colours, sort_keys=False, exception_formatter=structlog.dev.plain_traceback
            )
        )

    def format(self, record: logging.LogRecord) -> str:
        return str(self._render(None, "", fields_of(record, self._always)))


def configure(settings: Settings, **always: str) -> None:
    """`always` are fields of every line, such as the process. Raises BadSetting."""
    terminal = sys.stderr.isatty()
    form = format_of(settings, terminal=terminal)
    install(StructuredFormatter(form, always, colours=terminal), settings.log_level)
