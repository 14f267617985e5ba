"""What a station needs of whoever owns its scripts: the runner beside it, or one that reaches a machine over SSH.

Both keep `<directory>/jobs/<job id>` as `app.node.jobdir` and `app.node.spool` describe it, so what reads a job's
record and output does not have to know where the script ran.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from app.transport.messages import Job


class Events(NamedTuple):
    """Whom to tell: started(job id, pid, Unix time), output(job id), exited(job id). They are quick, and raise nothing.

    Each may be called from any thread, and again for the same job after a broken connection.
    """

    started: Callable[[str, int, float], None]
    output: Callable[[str], None]
    exited: Callable[[str], None]


class Scripts(Protocol):
    """Owns scripts. Every method may be called from any thread."""

    def ensure(self) -> Mapping[str, Any]:
        """Gets ready to take jobs. Raises `Unavailable`."""

    def run(self, job: Job, secrets: Mapping[str, str] | None = None, workdir: str = "") -> dict[str, Any]:
        """Starts the job unless it was started before, and waits for its end; the exit record.

        `workdir` is the directory of its workspace, if it has one, as `Filing.prepare` gave it.
        Raises `Conflict` for a known id with another content, `Unavailable` where it has to be asked again, and
        `runner_client.Interrupted` after `release`.
        """

    def cancel(self, job_id: str, reason: str = "") -> str:
        """`ending`, `ended`, or `remembered` for a job that has not been started: it never will be."""

    def forget(self, job_id: str) -> None:
        """Discards all that is kept of an ended job. Raises `Conflict` while it runs."""

    def spool(self, job_id: str) -> str:
        """The directory that holds the job's record and output."""

    def is_reachable(self) -> bool:
        """Whether to let control hear of the node, and so give it work: not while nothing is known to reach it."""

    def shells(self) -> tuple[str, ...]:
        """By which shells a script can be run there; those of `app.node.shells`."""

    def facts(self) -> dict[str, str]:
        """What heartbeats say more of the machine, by name."""

    def release(self) -> None:
        """Makes every `run`, now and from now on, raise `Interrupted` at once. The scripts go on."""

    def close(self) -> None:
        """Releases, and lets go of what is held. The scripts go on."""


MakeScripts = Callable[[Events], Scripts]
"""Makes them once it is known whom to tell."""
