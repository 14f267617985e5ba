"""Files around a script: brought before it, taken back after it, whatever happens to either.

A node keeps its workspaces in one of two ways (`app.node.workplace` here, another one over SSH); this module is what
they have in common, and what an outcome says of them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Final, NamedTuple, Protocol

from app.errors import MusterError
from app.node.asking import Stopped
from app.node.runner_client import Interrupted
from app.transport.messages import Job, Outcome

log = logging.getLogger(__name__)

ERROR: Final = "workspace"
"""The type of a job's error where its files could not be had or taken back."""

_ENDED_BY_ITSELF: Final = frozenset({"succeeded", "failed", "timed_out"})


class Filed(NamedTuple):
    """What was left with control, each by the sha256 of a document, or "": what the job changed, what is to be kept."""

    changes: str = ""
    artifacts: str = ""


class Filing(Protocol):
    """Keeps the directories of jobs with a workspace. Every method may be called from any thread.

    `prepare` and `collect` raise a MusterError that says why not, `asking.Stopped` after `stop` for their job and
    `runner_client.Interrupted` after `release`.
    """

    def prepare(self, job: Job, files: Mapping[str, str]) -> str:
        """The directory in which the job is to run, with its files. One that is prepared already is not touched."""

    def collect(self, job: Job, files: Mapping[str, str], succeeded: bool) -> Filed:
        """Gives control what the job has changed in its directory. May be done again, whoever was killed in it."""

    def discard(self, job_id: str) -> None:
        """Removes what is left of the job. Where there is nothing, nothing happens."""

    def stop(self, job_id: str) -> None:
        """Ends what is under way for the job, and what would begin, until it is discarded."""

    def release(self) -> None:
        """Ends everything, for the next process to take up."""

    def sweep(self, known: Collection[str]) -> None:
        """Removes what is left of all other jobs than these."""


def with_files(
    filing: Filing,
    job: Job,
    files: Mapping[str, str] | None,
    run: Callable[[str], Outcome],
    *,
    begun: bool,
    not_run: Callable[[str, str], Outcome],
) -> Outcome:
    """How the job ended that `run` does in the directory that it is given, with what was filed of it.

    `begun`: its script was started before, so that its directory must not be made anew. `not_run` makes the outcome of
    a job that was not started, by type and message. Raises Interrupted.
    """
    try:
        directory = "" if begun else filing.prepare(job, files or {})
    except Interrupted:
        raise
    except Stopped:
        # Who stopped it has cancelled it: whoever owns the scripts knows, starts nothing and says so.
        directory = ""
    except MusterError as error:
        log.error("the files of job %s cannot be had: %s", job.id, error.message)
        return not_run(ERROR, _told(error))
    outcome = run(directory)
    # Of others nobody knows how they ended, or wants to.
    if outcome.status not in _ENDED_BY_ITSELF:
        return outcome
    try:
        filed = filing.collect(job, files or {}, outcome.status == "succeeded")
    except Interrupted:
        raise
    except Stopped:
        message = "cancelled while its files were taken back; its script had ended before"
        return _without_files(outcome, "cancelled", {"type": "cancelled", "message": message})
    except MusterError as error:
        log.error("the files of job %s cannot be taken back: %s", job.id, error.message)
        return _without_files(outcome, "failed", {"type": ERROR, "message": _told(error)})
    return replace(outcome, files=filed._asdict())


def _without_files(outcome: Outcome, status: str, error: Mapping[str, str]) -> Outcome:
    """The outcome of a script whose files are not there. A script that failed has failed by itself, first of all."""
    if outcome.status == "succeeded":
        return replace(outcome, status=status, error=error)
    return replace(outcome, error={**(outcome.error or error), ERROR: error["message"]})


def _told(error: MusterError) -> str:
    return f"{error.message} ({error.hint})" if error.hint else error.message
