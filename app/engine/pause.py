"""Pause and resume (semantics C1): nothing new starts, what runs goes on and is settled."""

from __future__ import annotations

from app.engine import fanout, loop
from app.engine.draft import Draft
from app.engine.events import Event, PauseAsked, ResumeAsked
from app.engine.settle import consider
from app.engine.start import runnable
from app.engine.status import PAUSE, PENDING, RUN, TASK_LIVE


def holds_something(draft: Draft) -> bool:
    """Whether a pause keeps a task from starting. If it does not, the execution may end in the pause."""
    final = draft.plan.finally_[draft.execution.finally_at + 1 :]
    draft.want(final)
    if any(draft.look(name).status == PENDING for name in final):
        return True
    pending = _pending(draft)
    return not draft.halted and any(consider(draft, name) == "runnable" for name in pending)


def _pending(draft: Draft) -> list[str]:
    """The top-level tasks that edges have not decided yet. Needs every top-level task."""
    names = [task.name for task in draft.plan.tasks.values() if task.parent is None and not task.is_finally]
    draft.want(names)
    return [name for name in names if draft.look(name).status == PENDING]


def in_flight(draft: Draft) -> bool:
    """Whether a job is out on a node. A fan-out that waits for one of its nodes may have jobs on others."""
    if not draft.execution.live:
        return False
    names = [name for top in draft.live_tasks() for name in (top, *draft.planned(top).children)]
    return any(draft.is_out(name) for name in names if draft.planned(name).kind in ("job", "fanout", "loop"))


def pause_asked(draft: Draft, event: Event) -> None:
    assert isinstance(event, PauseAsked)
    if draft.execution.intent == RUN:
        draft.execution.intent = PAUSE


def resume_asked(draft: Draft, event: Event) -> None:
    """What the pause held back starts: tasks, batches and units. Queued jobs are handed over by the caller."""
    assert isinstance(event, ResumeAsked)
    if draft.execution.intent != PAUSE:
        return
    draft.execution.intent = RUN
    if not draft.held:
        go_on(draft)


def go_on(draft: Draft) -> None:
    """What was held back starts."""
    draft.work.extend(_pending(draft))
    _go_on(draft)


def let_finally_go_on(draft: Draft) -> None:
    """A cancel ends a pause: tasks of `finally` that were held in the middle go on."""
    _go_on(draft, only_finally=True)


def _go_on(draft: Draft, *, only_finally: bool = False) -> None:
    """Batches, units and children of live tasks that the pause held back."""
    for name in [name for top in draft.live_tasks() for name in (top, *draft.planned(top).children)]:
        task = draft.planned(name)
        if draft.look(name).status not in TASK_LIVE or (only_finally and not task.is_finally):
            continue
        if not draft.look(name).units:
            # Its delay is not over, or it has no units.
            continue
        if task.kind == "fanout":
            fanout.next_batch(draft, task)
        elif task.kind == "loop":
            loop.resume(draft, task)
        elif task.kind == "block":
            for child in task.children:
                if draft.look(child).status == PENDING:
                    runnable(draft, child)
