"""Flows: what one is, what becomes of it, and the protocol of whoever runs them.

A flow is one child of a parallel block: the whole workflow goes to a host with the state so far, and a tool there runs
the part from `entry_point` up to `exit_point`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

WORKFLOW = "workflow.yaml"
ACTIONS = "actions.json"
INPUT = "in.json"
OUTPUT = "out.json"

GRACE = 10


@dataclass(frozen=True, slots=True)
class Flow:
    """`number` counts from 0 in its block, `name` is that of its directory: `<execution>-<task>-<attempt>`.

    `exit_point` is "" where the flow goes on to the end. `state` is `{parameters, vars, task}`.
    """

    number: int
    name: str
    entry_point: str
    exit_point: str
    host: str
    state: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Terms:
    """What all flows of a block share. `workflow` is its whole text, `timeout` in seconds, None for no limit. `actions`
    are those of packs that the workflow names, as JSON; None where it names none. `grace` are the seconds between the
    TERM and the KILL of a flow that is ended."""

    workflow: str
    basefile: Path
    workdir: str
    cleanup: bool = True
    timeout: float | None = None
    actions: bytes | None = None
    grace: int = GRACE

    def files(self) -> list[tuple[str, bytes, int]]:
        """What goes to every host, beside the input of each flow: name, content and mode."""
        found = [
            (WORKFLOW, self.workflow.encode("utf-8", "surrogatepass"), 0o600),
            (self.basefile.name, self.basefile.read_bytes(), 0o700),
        ]
        return found if self.actions is None else [*found, (ACTIONS, self.actions, 0o600)]


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a flow: `state` as the tool left it, or the `error` that says why there is none.

    `passing`: what went wrong on the way to the host may be over soon, and nothing of the flow was started.
    """

    state: Mapping[str, Any] | None = None
    error: Mapping[str, Any] | None = None
    passing: bool = False


def failed(kind: str, message: str, *, passing: bool = False, **more: Any) -> Result:
    """A flow that has no state to show. `kind` is the type of its error."""
    return Result(error={"type": kind, "message": message[:2000], **more}, passing=passing)


@dataclass(slots=True)
class Watch:
    """What whoever asked for flows sees of them while they run.

    `tell` is called once for each flow as soon as it is over, from any thread; `given_up` holds the numbers of those
    that are not wanted any more, which are then ended on their hosts.
    """

    tell: Callable[[Flow, Result], None] = lambda flow, result: None
    given_up: set[int] = field(default_factory=set)


class Executor(Protocol):
    """Runs flows: over SSH (`over_ssh.OverSsh`), by GNU Parallel (`gnu_parallel.GnuParallel`), or by whichever of them
    the site has (`remote.RemoteExecutor`)."""

    def execute(self, flows: Sequence[Flow], terms: Terms, watch: Watch) -> list[Result]:
        """The results in the order of the flows, however they ended; one that fails leaves the others as they are."""
