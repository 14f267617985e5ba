"""Ending what is live: queued jobs and calls at once, those on a node by order."""

from __future__ import annotations

from app.compiler.plan import ENGINE_ACTIONS, IO
from app.engine import fanout, loop
from app.engine.context import error
from app.engine.draft import Draft
from app.engine.settle import settle
from app.engine.status import (
    CANCELLED,
    FAILED,
    JOB_OVER,
    NOT_REACHED,
    PENDING,
    QUEUED,
    TASK_OVER,
    UNKNOWN,
)


def stop_task(draft: Draft, name: str) -> None:
    """End a task as soon as its jobs let it. Needs all its jobs; a task that is over stays as it is."""
    state, task = draft.task(name), draft.planned(name)
    if state.status in TASK_OVER:
        return
    if state.status == PENDING:
        settle(draft, name, NOT_REACHED)
        return
    state.stopping = state.stopping or "cancel"
    if task.kind in ("fanout", "loop") and not state.units:
        # Its delay is not over: nothing of it has begun.
        settle(draft, name, CANCELLED)
        return
    if task.kind == "block":
        state.units = state.started = len(task.children)
        for child in task.children:
            stop_task(draft, child)
        return
    loaded = draft.jobs_of(name) if task.kind != "engine" else []
    mine = [draft.job(job.id) for job in loaded if not job.settled]
    if task.kind in ("fanout", "loop"):
        # Units between two attempts have no open job: their last failure is their end.
        born = state.units if task.kind == "loop" else state.started
        for _ in range(born - state.over - len(mine)):
            fanout.count(state, FAILED)
        # What ended before the stop came counts as what it came to.
        draft.ended.extend(job.id for job in mine if job.status in JOB_OVER)
    for job in mine:
        if job.status in JOB_OVER:
            continue
        if job.node == IO and job.status != QUEUED:
            # Nobody can take a call back: what comes of it is dropped.
            job.error = error("cancelled", "the call was given up; it may have had its effect")
        if job.status in (QUEUED, UNKNOWN) or job.node in ("", IO):
            job.status, job.ended_at, job.settled = CANCELLED, draft.now, True
            fanout.count(state, CANCELLED)
            if not job.node and task.action not in ENGINE_ACTIONS:
                draft.changes.closed.append(job.id)
        else:
            draft.stop(job)
    draft.disarm(name)
    if any(job.status not in JOB_OVER for job in mine):
        return
    if task.kind in ("fanout", "loop") and any(not job.settled for job in mine):
        return
    if task.kind == "fanout":
        fanout.finish(draft, task)
    elif task.kind == "loop":
        loop.finish(draft, task)
    else:
        settle(draft, name, CANCELLED)
