"""What a node may be told of the tasks that follow the one it is ordered to run, before that has ended.

Only what the compiler found nobody can tell from the other way (`PlanTask.along`): inputs that are known from the
submission on, and nothing to be decided between the two. What would fail here fails when its turn comes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from app.compiler.canvas import going_along, job_id
from app.compiler.plan import PlanTask
from app.engine.context import fixed_scopes, render_input, retries, seconds
from app.engine.draft import Draft
from app.engine.place import find_place
from app.engine.state import JobState, Slice
from app.engine.status import PENDING
from app.language import expressions
from app.language.expressions import TemplateError


@dataclass(frozen=True, slots=True)
class Follower:
    """A job as it will be born, with its rendered input and its timeout in seconds."""

    job: JobState
    input: Mapping[str, Any]
    timeout: float | None


def followers(run: Slice, job: JobState, now: float) -> Iterator[Follower]:
    """The jobs that will follow `job` on its node if each before it succeeds, one after another.

    The slice must hold their tasks. It ends before the first of which anything is open.
    """
    draft = Draft(run, now)
    for name in going_along(run.plan, job.task):
        state, task = run.tasks[name], run.plan.tasks[name]
        if state.status != PENDING or state.first_attempt != 1:
            return
        try:
            found = _follower(draft, task, job)
        except TemplateError:
            return
        if found is None:
            return
        yield found


def _follower(draft: Draft, task: PlanTask, first: JobState) -> Follower | None:
    """As `start.begin` will have it. Raises TemplateError."""
    scopes = {"task": {}, "vars": {}, **fixed_scopes(draft.plan, draft.execution)}
    given = render_input(task, scopes)
    timeout = seconds(task.timeout, scopes, "timeout")
    wait = seconds(task.queue_timeout, scopes, "queue_timeout") or draft.limits.queue_timeout
    if task.retry is not None:
        retries(draft, task, scopes)
    node, problem = find_place(draft, task, expressions.render(task.delegate_to, scopes), given)
    if problem is not None or node is None or node.name != first.node:
        return None
    id_ = job_id(draft.execution.id, task.name, 0, 1)
    return Follower(JobState(id_, task.name, 0, 1, node.name, queue_timeout=wait), given, timeout)
