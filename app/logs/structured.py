"""How the processes of the control side log: the lines of every library, ours included, written by structlog."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from typing import Any

import structlog

from app.logs.lines import fields_of, format_of, install
from app.settings import Settings

_encode = json.JSONEncoder(default=repr).encode


def _to_json(fields: Mapping[str, Any], **_: Any) -> str:
    # An encoder that is made once: structlog has `json.dumps` make one for each line.
    return _encode(fields)


class StructuredFormatter(logging.Formatter):
    """Hands a line's fields to a renderer of structlog."""

    def __init__(self, form: str, always: Mapping[str, str], *, colours: bool) -> None:
        super().__init__()
        self._always = dict(always)
        self._render = (
            structlog.processors.JSONRenderer(_to_json)
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
