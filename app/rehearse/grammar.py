"""The tables of a test file: every key of a suite, a test, an outcome, an answer and an expectation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from app.engine.status import (
    CANCELLED,
    COMPLETED,
    EXECUTION_STATUSES,
    FAILED,
    SUCCEEDED,
    TASK_STATUSES,
    TIMED_OUT,
)
from app.language import names
from app.language.fields import (
    Anything,
    Choice,
    Flag,
    Key,
    Kind,
    ListOf,
    MapOf,
    Number,
    Schema,
    Table,
    Text,
)
from app.language.problems import shown
from app.language.reading import BAD, Reading
from app.language.source import Node

LOST: Final = "lost"
OUTCOMES: Final = (SUCCEEDED, FAILED, TIMED_OUT, CANCELLED, LOST)
DECISIONS: Final = ("approve", "reject", "answer", "expire")
DEEDS: Final = ("pause", "resume", "cancel", "force_cancel")
MOST_TESTS: Final = 500
MOST_ATTEMPTS: Final = 1000

_PROSE: Final = Text(prose=True, null=True)
_NAME: Final = Text(prose=True, least=1, most=200)
_DATA: Final = Anything()
_SECONDS: Final = Number(0, names.DAYS_30, seconds=True, templates=False)
_TASKS: Final = ListOf(Text(prose=True), most=20_000)


@dataclass(frozen=True)
class Sort:
    """The short form of something: the word that stands for a table with that word under `key`."""

    key: str
    words: tuple[str, ...]


@dataclass(frozen=True)
class Short(Kind):
    """A table, or one word for a table with nothing but that word."""

    table: Table
    sort: Sort

    def read(self, r: Reading, node: Node) -> Any:
        if node.kind == "map":
            return self.table.read(r, node)
        word = Choice(self.sort.words).read(r, node)
        return BAD if word is BAD else {self.sort.key: word}

    def schema(self) -> Schema:
        return {"anyOf": [self.table.schema(), Choice(self.sort.words).schema()]}


@dataclass(frozen=True)
class PerAttempt(Kind):
    """One value for every attempt, or a list with one for each; gives a tuple."""

    one: Kind

    def read(self, r: Reading, node: Node) -> Any:
        if node.kind == "list":
            return ListOf(self.one, least=1, most=MOST_ATTEMPTS).read(r, node)
        value = self.one.read(r, node)
        return BAD if value is BAD else (value,)

    def schema(self) -> Schema:
        return {"anyOf": [self.one.schema(), ListOf(self.one, least=1).schema()]}


@dataclass(frozen=True)
class PerUnit(Kind):
    """What all units come to, or a map with `units` and `others`; gives {"others", "units"}."""

    table: Table
    attempts: Kind

    def read(self, r: Reading, node: Node) -> Any:
        if node.kind == "map" and "units" in node.value:
            return self.table.read(r, node)
        value = self.attempts.read(r, node)
        return BAD if value is BAD else {"others": value}

    def schema(self) -> Schema:
        return {"anyOf": [self.attempts.schema(), self.table.schema()]}


@dataclass(frozen=True)
class Moment(Kind):
    """Seconds from the start, `TASK STATUS`, or a status of the execution; gives the fields of Intervention."""

    def read(self, r: Reading, node: Node) -> Any:
        if node.kind == "scalar" and not isinstance(node.value, str):
            value = _SECONDS.read(r, node)
            return BAD if value is BAD else {"seconds": float(value)}
        if node.kind != "scalar":
            return r.wrong(node, "seconds, or a task and its status", "write `build running`, `paused` or 30")
        task, _, status = node.text.rpartition(" ")
        known = TASK_STATUSES if task else EXECUTION_STATUSES
        if status not in known:
            whose = "a task" if task else "an execution"
            hint = r.collector.did_you_mean(status, known, f"known: {', '.join(known)}")
            return r.error(node, "bad-choice", f"{shown(status)} is no status of {whose}", hint)
        return {"task": task.strip(), "status": status}

    def schema(self) -> Schema:
        return {"type": ["string", "number"]}


@dataclass(frozen=True)
class Inline(Kind):
    """The path of a workflow file, or the workflow itself: read by `load`, which can open files."""

    def read(self, r: Reading, node: Node) -> Any:
        return node

    def schema(self) -> Schema:
        return {"type": ["string", "object"]}


ERROR: Final = Table(
    "an error",
    [
        Key("type", Text(prose=True, least=1, most=100), "The kind of error.", required=True),
        Key("message", _PROSE, "What went wrong."),
    ],
)
OUTCOME: Final = Table(
    "an outcome",
    [
        Key("status", Choice(OUTCOMES), "How it ends; without it the exit code decides."),
        Key("exit_code", Number(0, 255, whole=True, templates=False), "Of the script."),
        Key("stdout", _PROSE, "What the script wrote."),
        Key("stderr", _PROSE, "What the script wrote to stderr."),
        Key("result", MapOf(_DATA), "What the script wrote to MUSTER_OUTPUT."),
        Key("error", ERROR, "The error, where it fails."),
        Key("takes", _SECONDS, "Seconds until it ends."),
    ],
    {"units": "`units` and `others` stand alone, with outcomes under them"},
)
_ATTEMPTS: Final = PerAttempt(Short(OUTCOME, Sort("status", OUTCOMES)))
UNITS: Final = Table(
    "an outcome by unit",
    [
        Key(
            "units",
            MapOf(_ATTEMPTS, r"^([0-9]{1,6}|[a-z0-9][a-z0-9-]{0,62})$(?!\n)", "a number, or a node's name"),
            "Outcomes by the number of the unit, or the name of its node.",
        ),
        Key("others", _ATTEMPTS, "The outcome of all other units."),
    ],
)
ANSWER: Final = Table(
    "an answer",
    [
        Key("decision", Choice(DECISIONS), "What people say.", required=True),
        Key("by", ListOf(_NAME, least=1, most=100, single=True), "Who says it."),
        Key("answer", _DATA, "The answer to an inquiry."),
        Key("reason", _PROSE, "Why."),
        Key("after", _SECONDS, "Seconds after the question was asked."),
    ],
)
CHILD: Final = Table(
    "the end of a child",
    [
        Key("status", Choice((COMPLETED, FAILED, CANCELLED)), "How it ends."),
        Key("output", _DATA, "Its output."),
        Key("message", _PROSE, "What went wrong."),
        Key("after", _SECONDS, "Seconds until it ends."),
    ],
)
NODE: Final = Table(
    "a node",
    [
        Key("shells", ListOf(_NAME, most=20), "The shells that it has; bash, sh and python."),
        Key("labels", MapOf(_NAME, names.LABEL, names.LABEL_RULE), "Its labels."),
        Key("address", Text(names.ADDRESS, names.ADDRESS_RULE), "Its address."),
        Key("state", Choice(("active", "draining", "removed")), "Whether it takes work."),
    ],
)
INTERVENTION: Final = Table(
    "an entry of `at`",
    [
        Key("when", Moment(), "Seconds, `TASK STATUS`, or a status of the execution.", required=True),
        Key("do", Choice(DEEDS), "What a person then does.", required=True),
    ],
)
_ENDS: Final = (*(one for one in EXECUTION_STATUSES if one not in ("requested", "scheduling")),)
EXPECT: Final = Table(
    "`expect`",
    [
        Key("status", Choice(_ENDS), "The status in the end."),
        Key("degraded", Flag(), "Whether a failure was handled."),
        Key("tasks", MapOf(Choice(TASK_STATUSES)), "Statuses of tasks; others may have any."),
        Key("order", _TASKS, "All tasks that ran, in the order in which they started."),
        Key("not_run", _TASKS, "Tasks that never started."),
        Key("vars", MapOf(_DATA), "Values of variables; others may have any."),
        Key("output", _DATA, "The whole output."),
        Key("errors", MapOf(Text(prose=True, null=True)), "Types of errors; empty for none."),
        Key("waits", ListOf(_SECONDS, most=20_000), "Seconds before each retry, in order."),
        Key("took", Number(0, 1e10, templates=False), "Seconds from start to end."),
    ],
    {"ran": "did you mean `order`?", "error": "did you mean `errors`?"},
)
_KV: Final = MapOf(_DATA, names.KEY, names.KEY_RULE)
_SECRETS: Final = ListOf(Text(names.KEY, names.KEY_RULE), most=1000)
_FLEET: Final = MapOf(NODE, names.NODE, names.NODE_RULE)
TEST: Final = Table(
    "a test",
    [
        Key("name", _NAME, "What the test is about.", required=True),
        Key("parameters", MapOf(_DATA), "The parameters of the execution."),
        Key("kv", _KV, "What is kept under keys, beside the suite's."),
        Key("secrets", _SECRETS, "The names of secrets that there are, beside the suite's."),
        Key("config", MapOf(_DATA), "Values of the pack's configuration, beside those of the file."),
        Key("fleet", _FLEET, "The nodes that there are, beside `local`."),
        Key("outcomes", MapOf(PerUnit(UNITS, _ATTEMPTS)), "What jobs come to."),
        Key("answers", MapOf(PerAttempt(Short(ANSWER, Sort("decision", DECISIONS)))), "What people say."),
        Key(
            "children",
            MapOf(PerAttempt(Short(CHILD, Sort("status", (COMPLETED, FAILED, CANCELLED))))),
            "How children end: workflows that tasks start.",
        ),
        Key("at", ListOf(INTERVENTION, most=100), "What people do meanwhile."),
        Key("strict", Flag(), "Every job needs an outcome, and every outcome a job."),
        Key("expect", EXPECT, "What must come of it.", required=True),
    ],
    {"mocks": "did you mean `outcomes`?", "fates": "did you mean `outcomes`?"},
)
SUITE: Final = Table(
    "a test file",
    [
        Key("workflow", Inline(), "The path of a workflow file from here, or a workflow.", required=True),
        Key("kv", _KV, "What is kept under keys, for every test."),
        Key("secrets", _SECRETS, "The names of secrets that there are, for every test; they have no values."),
        Key("config", MapOf(_DATA), "Values of the pack's configuration, for all tests."),
        Key("fleet", _FLEET, "The nodes of tests that name none."),
        Key("strict", Flag(), "As in a test, for all of them."),
        Key("tests", ListOf(TEST, least=1, most=MOST_TESTS), "The tests.", required=True),
    ],
)
