"""What nodes say of themselves, signed and not sealed: which jobs they took, and that they are there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.transport.messages import BadMessage, fields_of, shallow


@dataclass(frozen=True, slots=True)
class Report:
    """A node says that jobs were `accepted` or are `running`: pairs of job id and status, with the time."""

    installation: str
    node: str
    epoch: str
    sent_at: float
    jobs: tuple[tuple[str, str, float], ...]

    def to_json(self) -> dict[str, Any]:
        return shallow(self)

    @classmethod
    def from_json(cls, data: Any) -> Report:
        fields = fields_of(data, cls)
        try:
            report = cls(**{**fields, "jobs": tuple(tuple(job) for job in fields["jobs"])})
        except (TypeError, KeyError) as error:
            raise BadMessage(f"a report lacks a field: {error}") from None
        for job in report.jobs:
            if len(job) != 3 or job[1] not in ("accepted", "running", "not_known"):
                raise BadMessage("a report holds triples of job id, accepted|running|not_known, and time")
        return report


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A node is alive: every job it holds, its free slots, its shells and versions. `sequence` only grows.

    `address` is the HOST:PORT that workflows may call it by, "" for none.
    """

    installation: str
    node: str
    epoch: str
    sequence: int
    sent_at: float
    held: tuple[str, ...]
    slots: int
    free: int
    shells: tuple[str, ...]
    versions: Mapping[str, str]
    started_at: float
    address: str = ""

    def to_json(self) -> dict[str, Any]:
        return shallow(self)

    @classmethod
    def from_json(cls, data: Any) -> Heartbeat:
        fields = fields_of(data, cls)
        try:
            return cls(**{**fields, "held": tuple(fields["held"]), "shells": tuple(fields["shells"])})
        except (TypeError, KeyError) as error:
            raise BadMessage(f"a heartbeat lacks a field: {error}") from None
