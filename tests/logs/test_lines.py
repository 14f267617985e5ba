"""A line has its fields, whoever writes it, and no value of a workflow gets into it."""

from __future__ import annotations

import io
import json
import logging
import sqlite3
import threading
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from app.errors import InvalidInput, Unavailable
from app.logs import scope
from app.logs.lines import PlainFormatter, format_of
from app.logs.structured import StructuredFormatter
from app.settings import BadSetting, Settings

CANARY = "canary-5ecret"
ALWAYS = {"process": "node", "node": "web-1"}
FORMATTERS: dict[str, Callable[[str], logging.Formatter]] = {
    "plain": lambda form: PlainFormatter(form, ALWAYS),
    "structured": lambda form: StructuredFormatter(form, ALWAYS, colours=False),
}


def written(formatter: logging.Formatter, write: Callable[[logging.Logger], None]) -> str:
    """What a logger with this formatter writes."""
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(formatter)
    logger = logging.Logger("app.test")
    logger.addHandler(handler)
    write(logger)
    return out.getvalue()


def fail(make: Callable[[], object]) -> Callable[[logging.Logger], None]:
    def write(logger: logging.Logger) -> None:
        given = CANARY
        try:
            make()
        except Exception:
            logger.exception("it failed")
        assert given

    return write


@pytest.fixture(autouse=True)
def _no_ids() -> None:
    scope.begin()


@pytest.mark.parametrize("name", FORMATTERS)
def test_every_field_is_there(name: str) -> None:
    scope.begin(execution="E", task="a", job="E.a.0.1", trace_id="t" * 32, request_id=None)

    def write(logger: logging.Logger) -> None:
        logger.info("job %s", "over", extra=scope.facts(status="failed", exit_code=3, seconds=0.5))

    line = json.loads(written(FORMATTERS[name]("json"), write))
    assert line.pop("timestamp").endswith("+00:00")
    assert line == {
        "level": "info",
        "logger": "app.test",
        "event": "job over",
        **ALWAYS,
        "execution": "E",
        "task": "a",
        "job": "E.a.0.1",
        "trace_id": "t" * 32,
        "status": "failed",
        "exit_code": 3,
        "seconds": 0.5,
    }
    on_terminal = written(FORMATTERS[name]("console"), write)
    assert on_terminal.count("\n") == 1
    for part in ("job over", "job=E.a.0.1", "node=web-1", "exit_code=3"):
        assert part in on_terminal


def _statement() -> None:
    engine = create_engine("sqlite://")
    try:
        with engine.connect() as connection:
            connection.execute(text("SELECT * FROM nowhere WHERE name = :name"), {"name": CANARY})
    finally:
        engine.dispose()


def _chained() -> None:
    try:
        raise KeyError(CANARY)
    except KeyError as error:
        raise InvalidInput(f"{CANARY} is no number") from error


TELLING: dict[str, Callable[[], object]] = {
    "a conversion": lambda: int(CANARY),
    "a key": lambda: {}[CANARY],
    "a date": lambda: datetime.fromisoformat(CANARY),
    "a statement's parameters": _statement,
    "a chain": _chained,
}


@pytest.mark.parametrize("form", ["json", "console"])
@pytest.mark.parametrize("name", FORMATTERS)
@pytest.mark.parametrize("case", TELLING)
def test_an_exception_tells_place_and_type_and_no_value(case: str, name: str, form: str) -> None:
    made: list[BaseException] = []

    def make() -> object:
        try:
            return TELLING[case]()
        except Exception as error:
            made.append(error)
            raise

    line = written(FORMATTERS[name](form), fail(make))
    assert CANARY in str(made[0])
    assert CANARY not in line
    assert type(made[0]).__name__ in line
    assert "test_lines.py" in line


@pytest.mark.parametrize(
    "error",
    [
        ConnectionRefusedError(111, "Connection refused"),
        sqlite3.OperationalError("database is locked"),
        Unavailable("the runner does not answer"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_does_not_answer_may_say_so(error: Exception) -> None:
    def raises() -> None:
        raise error

    assert str(error) in json.loads(written(FORMATTERS["plain"]("json"), fail(raises)))["exception"]


def test_celerys_lines_about_a_job_function_hold_no_words_of_its_exception() -> None:
    context = {"name": "control.settle", "id": "x", "exc": f"ValueError('{CANARY}')", "args": CANARY}

    def write(logger: logging.Logger) -> None:
        logger.error("Task %(name)s[%(id)s] raised: %(exc)s", context, extra={"data": context})

    for make in FORMATTERS.values():
        line = json.loads(written(make("json"), write))
        assert line["event"] == "Task control.settle[x] raised: see exception"
        assert CANARY not in json.dumps(line)


@pytest.mark.parametrize("name", FORMATTERS)
def test_a_text_from_outside_begins_no_line_and_colours_nothing(name: str) -> None:
    forged = "x\n2026-01-01 error all is lost\x1b[31m"
    scope.begin(job=forged, trace_id="t" * 5000)
    line = written(FORMATTERS[name]("console"), lambda logger: logger.info("asked for %s", forged))
    assert line.count("\n") == 1
    assert "\x1b" not in line
    assert len(line) < 1000


def test_a_door_leaves_nothing_of_the_one_before_and_threads_know_nothing_of_each_other() -> None:
    scope.begin(execution="E", job="j")
    scope.note(node="web-1", task=None)
    assert dict(scope.current()) == {"execution": "E", "job": "j", "node": "web-1"}
    seen: list[Any] = []
    thread = threading.Thread(target=lambda: seen.append(dict(scope.current())))
    thread.start()
    thread.join()
    assert seen == [{}]
    scope.begin(execution="F")
    assert dict(scope.current()) == {"execution": "F"}


@pytest.mark.parametrize(
    ("given", "terminal", "form"),
    [("", True, "console"), ("", False, "json"), ("json", True, "json"), ("console", False, "console")],
)
def test_the_format(given: str, terminal: bool, form: str) -> None:
    assert format_of(Settings(log_format=given), terminal=terminal) == form


@pytest.mark.parametrize("wrong", [{"log_format": "xml"}, {"log_level": "LOUD"}], ids=str)
def test_a_setting_that_is_no_format_or_level(wrong: dict[str, str]) -> None:
    with pytest.raises(BadSetting, match="MUSTER_LOG_"):
        format_of(Settings(**wrong), terminal=False)
