"""What can happen to an execution. Every one is kept as an append-only row before its effects are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, get_args


@dataclass(frozen=True, slots=True)
class Submitted:
    kind: ClassVar[str] = "submitted"


@dataclass(frozen=True, slots=True)
class JobEnded:
    """A job's row has an outcome that no settle has folded yet.

    `went_on` says that it succeeded and its node has begun the next task of the line by itself (`PlanTask.along`).
    """

    kind: ClassVar[str] = "job.ended"
    job: str
    went_on: bool = False


@dataclass(frozen=True, slots=True)
class JobUnknown:
    """The node of a job that is not idempotent vanished, or says that it does not know it (semantics E8)."""

    kind: ClassVar[str] = "job.unknown"
    job: str


@dataclass(frozen=True, slots=True)
class JobResolved:
    """A person decided an unknown job: outcome is succeeded, failed or again."""

    kind: ClassVar[str] = "job.resolved"
    job: str
    outcome: str
    reason: str
    person: str


@dataclass(frozen=True, slots=True)
class TimerDue:
    """A wait is over. A pause holds the timers that start something: `delay` and `retry.<attempt>`."""

    kind: ClassVar[str] = "timer.due"
    task: str
    unit: int
    timer: str

    @property
    def is_a_start(self) -> bool:
        return self.timer == "delay" or self.timer.startswith("retry.")


@dataclass(frozen=True, slots=True)
class CancelAsked:
    kind: ClassVar[str] = "cancel.asked"
    forced: bool = False
    person: str = ""


@dataclass(frozen=True, slots=True)
class PauseAsked:
    """C1: nothing new starts until a person resumes; what runs goes on and is settled."""

    kind: ClassVar[str] = "pause.asked"
    person: str = ""


@dataclass(frozen=True, slots=True)
class ResumeAsked:
    kind: ClassVar[str] = "resume.asked"
    person: str = ""


@dataclass(frozen=True, slots=True)
class RetryAsked:
    """R1: an execution that is over is tried again from what failed, and from what is named.

    `mark_ok` maps tasks to the result that a person says they have. `units` are fan-outs whose failed nodes are tried
    again though the task put up with them. `reset` runs loops, fan-outs and blocks again as a whole instead of only
    what failed of them. `plan` is the digest of the plan that holds from this event on, "" where
    it stays the one that was pinned; `config` is what that one reads of its pack's configuration.
    """

    kind: ClassVar[str] = "retry.asked"
    from_: tuple[str, ...] = ()
    mark_ok: Mapping[str, Any] = field(default_factory=dict)
    reset: bool = False
    reason: str = ""
    person: str = ""
    plan: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    units: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Decided:
    """People decided: `outcome` is approved, rejected or answered."""

    kind: ClassVar[str] = "decided"
    job: str
    outcome: str
    people: tuple[str, ...] = ()
    reason: str = ""
    answer: Any = None


@dataclass(frozen=True, slots=True)
class ChildEnded:
    """The execution that a task called is over, with that status and output."""

    kind: ClassVar[str] = "child.ended"
    job: str
    child: str
    status: str
    output: Any = None
    message: str = ""


@dataclass(frozen=True, slots=True)
class NodeAway:
    """The only job of a task waits for a node that is offline."""

    kind: ClassVar[str] = "node.away"
    task: str


@dataclass(frozen=True, slots=True)
class NodeBack:
    """What the task waited for is there: its node, or the node's word that an unknown job still runs."""

    kind: ClassVar[str] = "node.back"
    task: str


Event = (
    Submitted
    | JobEnded
    | JobUnknown
    | JobResolved
    | TimerDue
    | CancelAsked
    | PauseAsked
    | ResumeAsked
    | RetryAsked
    | Decided
    | ChildEnded
    | NodeAway
    | NodeBack
)

_BY_KIND: dict[str, type[Event]] = {cls.kind: cls for cls in get_args(Event)}


def to_json(event: Event) -> dict[str, Any]:
    return {"kind": event.kind, **{name: getattr(event, name) for name in event.__slots__}}


def from_json(data: Mapping[str, Any]) -> Event:
    """The event that `to_json` gave, for replay."""
    values = dict(data)
    return _BY_KIND[values.pop("kind")](**values)
