"""A line of a log, as fields: the same in every process, whoever writes them out.

Nothing that a workflow computes with may stand in a log. Our own texts hold names and ids; what a library says of
an exception may hold anything, so only its type and place are kept, and the words of the system, of a broker or of
a database that does not answer.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from app.errors import Unavailable
from app.logs import scope
from app.settings import BadSetting, Settings

log = logging.getLogger(__name__)

FORMATS = ("console", "json")
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")

_CHATTY = ("celery.beat", "celery.worker.strategy", "celery.app.trace", "kombu", "amqp", "redis", "asyncio")
"""What writes a line for every message: our own lines say it with its ids."""

_APART = ("gunicorn.error",)
"""What comes with a handler of its own."""

_TELLING_MODULES = ("sqlite3", "psycopg", "redis", "kombu", "amqp")
_TELLING_NAMES = ("OperationalError", "ConnectionError", "TimeoutError", "ConnectionTimeout")


def fields_of(record: logging.LogRecord, always: Mapping[str, str]) -> dict[str, Any]:
    """The fields of a line. `always` are those of the process, such as its node."""
    return {
        "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
        "level": record.levelname.lower(),
        "logger": record.name,
        "event": _one_line(_text(record)),
        **always,
        **scope.current(),
        **getattr(record, "muster", {}),
        **({"exception": fault(record.exc_info[1])} if record.exc_info and record.exc_info[1] else {}),
    }


def _text(record: logging.LogRecord) -> str:
    # Celery fills the words of an exception into lines about a job function.
    if isinstance(record.args, Mapping) and "exc" in record.args:
        hidden = {**record.args, "exc": "see exception", "traceback": "", "args": "-", "kwargs": "-"}
        return str(record.msg) % hidden
    return record.getMessage()


def _one_line(text: str) -> str:
    """A text from outside cannot begin a line of its own, nor colour a terminal."""
    text = text.strip()
    return text if text.isprintable() else text.encode("unicode_escape").decode()


def fault(error: BaseException) -> str:
    """An exception with its causes: where, and of which type; its words only if they cannot hold a value."""
    chain: list[str] = []
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        kind = type(current)
        place = "".join(traceback.format_tb(current.__traceback__))
        chain.append(f"{place}{kind.__module__}.{kind.__qualname__}{_words(current)}")
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return "\nwhich came of this:\n".join(chain)


def _words(error: BaseException) -> str:
    kind = type(error)
    tells = isinstance(error, OSError | Unavailable) or (
        kind.__module__.split(".")[0] in _TELLING_MODULES and kind.__name__ in _TELLING_NAMES
    )
    return f": {_one_line(str(error))[:500]}" if tells else ""


def format_of(settings: Settings, *, terminal: bool) -> str:
    """`console` or `json`. Raises BadSetting for another name of a format or a level."""
    if settings.log_level not in LEVELS:
        raise BadSetting(
            f"MUSTER_LOG_LEVEL={settings.log_level!r} is not a level", hint=f"one of {', '.join(LEVELS)}"
        )
    if not settings.log_format:
        return "console" if terminal else "json"
    if settings.log_format not in FORMATS:
        raise BadSetting(
            f"MUSTER_LOG_FORMAT={settings.log_format!r} is not a format", hint=f"one of {', '.join(FORMATS)}"
        )
    return settings.log_format


def install(formatter: logging.Formatter, level: str) -> None:
    """Every logger of this process writes to standard error, as this formatter says; so do warnings, and threads that
    end by an exception."""
    # What no line of ours tells is not found out for each: the place in the code, the thread, the process.
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    for name in _APART:
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
    logging.captureWarnings(True)
    threading.excepthook = _thread_failed


def _thread_failed(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None:
        name = args.thread.name if args.thread else "?"
        log.critical("the thread %s ended by an exception", name, exc_info=args.exc_value)


class PlainFormatter(logging.Formatter):
    """Writes lines with the standard library alone: what formats them better costs a node 5 MB."""

    def __init__(self, form: str, always: Mapping[str, str]) -> None:
        super().__init__()
        self._json = form == "json"
        self._always = dict(always)

    def format(self, record: logging.LogRecord) -> str:
        fields = fields_of(record, self._always)
        if self._json:
            return json.dumps(fields, default=str)
        exception = fields.pop("exception", "")
        head = [fields.pop(name) for name in ("timestamp", "level", "logger", "event")]
        rest = [f"{name}={value}" for name, value in fields.items()]
        return " ".join([*head, *rest]) + (f"\n{exception}" if exception else "")


def configure(settings: Settings, **always: str) -> None:
    """How a node logs. Raises BadSetting."""
    form = format_of(settings, terminal=sys.stderr.isatty())
    install(PlainFormatter(form, always), settings.log_level)
