"""Jobs that travel in the order of the job before them: what is told of them, and what their node did with them.

A line of tasks on one node, of which nothing has to be decided in between, is one order. The node begins each job as
soon as the one before it has succeeded, and says so in that one's outcome (`Outcome.then`); the rows of the jobs are
born here as they would be without that, when the outcome of the job before is recorded, and nothing is sent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.transport.canvas import rest_digest

NO_CANVAS = rest_digest((), None, None)
"""What a job comes back with behind which another goes along: its outcome goes on with nothing."""


@dataclass(frozen=True, slots=True)
class Along:
    """Who goes along behind a job: ids and digests in order, and the digest of the canvas that the last comes with."""

    jobs: tuple[tuple[str, str], ...]
    canvas: str

    @property
    def first(self) -> str:
        return self.jobs[0][0]

    def columns(self) -> dict[str, Any]:
        """What the row says of the first of them, once its node has gone on with it."""
        (_, digest), *rest = self.jobs
        return {"digest": digest, **columns(rest, self.canvas)}

    @classmethod
    def read(cls, kept: Mapping[str, Any] | None) -> Along | None:
        """From a job's row."""
        if kept is None:
            return None
        return cls(tuple((job, digest) for job, digest in kept["jobs"]), kept["canvas"])


def columns(behind: Sequence[tuple[str, str]], canvas: str) -> dict[str, Any]:
    """The columns of a job with these behind it in its order, of which the last comes back with this canvas."""
    if not behind:
        return {"canvas_digest": canvas, "along": None}
    return {"canvas_digest": NO_CANVAS, "along": {"jobs": list(map(list, behind)), "canvas": canvas}}
