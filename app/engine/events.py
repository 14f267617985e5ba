"""What can happen to an execution. Every one is kept as an append-only row before its effects are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True)
class Submitted:
    kind: ClassVar[str] = "submitted"


@dataclass(frozen=True, slots=True)
class JobEnded:
    """A job's row has an outcome that no settle has folded yet."""

    kind: ClassVar[str] = "job.ended"
    job: str


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
    kind: ClassVar[str] = "timer.due"
    task: str
    unit: int
    timer: str


@dataclass(frozen=True, slots=True)
class CancelAsked:
    kind: ClassVar[str] = "cancel.asked"
    forced: bool = False
    person: str = ""


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


Event = Submitted | JobEnded | JobUnknown | JobResolved | TimerDue | CancelAsked | NodeAway | NodeBack

_BY_KIND: dict[str, type[Event]] = {
    cls.kind: cls
    for cls in (Submitted, JobEnded, JobUnknown, JobResolved, TimerDue, CancelAsked, NodeAway, NodeBack)
}


def to_json(event: Event) -> dict[str, Any]:
    return {"kind": event.kind, **{name: getattr(event, name) for name in event.__slots__}}


def from_json(data: dict[str, Any]) -> Event:
    """The event that `to_json` gave, for replay."""
    values = dict(data)
    return _BY_KIND[values.pop("kind")](**values)
