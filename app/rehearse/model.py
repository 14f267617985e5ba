"""What a file of workflow tests says, read and checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from app.compiler.plan import Plan
from app.engine.state import Node


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one attempt of a job comes to, `takes` seconds after it started.

    `status` is a word of OUTCOMES, or "" where the exit code decides.
    """

    status: str = ""
    exit_code: int | None = None
    stdout: str = ""
    stderr: str = ""
    result: Mapping[str, Any] = field(default_factory=dict)
    error: Mapping[str, Any] | None = None
    takes: float = 0.0


Attempts = tuple[Outcome, ...]
"""One for each attempt; the last one holds for all that follow."""


@dataclass(frozen=True, slots=True)
class Mock:
    """What the jobs of one task come to: by unit (a number, or a node's name), else as `others` says."""

    others: Attempts | None = None
    units: Mapping[str, Attempts] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """What people say to a question `after` so many seconds. `by` may be empty: as many as are needed."""

    decision: str
    by: tuple[str, ...] = ()
    answer: Any = None
    reason: str = ""
    after: float = 0.0


@dataclass(frozen=True, slots=True)
class ChildEnd:
    """How a workflow that a task calls ends, `after` so many seconds."""

    status: str = "completed"
    output: Any = field(default_factory=dict)
    message: str = ""
    after: float = 0.0


@dataclass(frozen=True, slots=True)
class Intervention:
    """What a person does: at a time, or as soon as a task (or, where that is "", the execution) has a status."""

    do: str
    seconds: float | None = None
    task: str = ""
    status: str = ""

    @property
    def when(self) -> str:
        """As the file writes it."""
        return f"{self.seconds:g}" if self.seconds is not None else f"{self.task} {self.status}".strip()


@dataclass(frozen=True, slots=True)
class Case:
    """One test. `expect` holds what was written, by key; `secrets` are the names of those that there are."""

    name: str
    line: int
    parameters: Mapping[str, Any]
    kv: Mapping[str, Any]
    secrets: frozenset[str]
    config: Mapping[str, Any]
    fleet: Mapping[str, Node]
    outcomes: Mapping[str, Mock]
    answers: Mapping[str, tuple[Answer, ...]]
    children: Mapping[str, tuple[ChildEnd, ...]]
    at: tuple[Intervention, ...]
    strict: bool
    expect: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Suite:
    """The tests of one file and the plan of the workflow that they are about."""

    plan: Plan
    cases: tuple[Case, ...]
