"""Tasks that a node begins by itself, behind the one that it was ordered to run (`PlanTask.along`)."""

from __future__ import annotations

from app.compiler.plan import PlanTask
from app.engine.draft import Draft
from app.engine.events import JobEnded
from app.engine.start import begin
from app.engine.state import JobState
from app.engine.status import PENDING, SUCCEEDED


def note(draft: Draft, job: JobState, event: JobEnded) -> None:
    """Whether the node of this job has begun the task behind it, as its order told it."""
    # A newer version of the workflow may no longer have its task.
    task = draft.plan.tasks.get(job.task) if event.went_on else None
    if task is None or task.then is None or draft.planned(task.then).along != job.task:
        return
    if draft.task(task.then).first_attempt == 1:
        draft.gone[task.then] = job.node


def begin_held_back(draft: Draft, job: JobState) -> None:
    """What a node had begun before it could hear of a pause or a halt counts as begun before that; after a halt it is
    stopped."""
    for name in draft.gone if draft.held or draft.halted else ():
        if draft.task(job.task).status == SUCCEEDED and draft.task(name).status == PENDING:
            begin(draft, name)
            if draft.halted:
                draft.to_stop.append(name)


def count_on(draft: Draft, task: PlanTask, job: JobState) -> None:
    """A node may have begun what follows behind an attempt that was given up here: behind this one it is another."""
    if task.then is None or not draft.planned(task.then).along:
        return
    follower = draft.task(task.then)
    if follower.status == PENDING and follower.first_attempt < job.attempt:
        follower.first_attempt = follower.base_attempt = job.attempt
