"""Which attempt comes next, and when (semantics E3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.compiler.plan import PlanTask
from app.engine.context import MONTH, number, retries, task_scope
from app.engine.draft import Draft
from app.engine.state import JobState
from app.engine.status import FAILED, TIMED_OUT
from app.language import expressions
from app.language.expressions import TemplateError

LASTING = ("ssh_auth", "host_key", "no_basefile", "preflight", "not_json", "bad_result", "not_allowed")
"""The errors of flows that another try would only meet again: a person has to see to them. No set, for what is looked
up in it comes from a host, and need not be a text."""


def backoff(kind: str, delay: float, attempt: int, ceiling: float | None) -> float:
    """Seconds before retry `attempt` (from 1): constant d, linear d*n, exponential d*2^(n-1), at most `ceiling`."""
    if kind == "linear":
        wait = delay * attempt
    elif kind == "exponential":
        wait = delay * 2.0 ** min(attempt - 1, 64)
    else:
        wait = delay
    return wait if ceiling is None else min(wait, ceiling)


def item_of(job: JobState) -> dict[str, Any]:
    """`item` and `index` for templates, where the job is a loop's unit."""
    return {} if job.given is None else {"item": job.given["item"], "index": job.given["index"]}


def wait_before_retry(draft: Draft, task: PlanTask, job: JobState) -> float | None:
    """Seconds until the next attempt of this job's unit, or None where there is none."""
    spec = task.retry
    if spec is None or job.status not in (FAILED, TIMED_OUT):
        return None
    if task.flow is not None and (job.error or {}).get("type") in LASTING:
        return None
    own = {"status": job.status, "result": job.result, "error": job.error}
    try:
        scopes = task_scope(draft, task, own, **item_of(job))
        count = retries(draft, task, scopes)
        used = job.attempt - draft.task(task.name).first_attempt
        if used >= count or not _wanted(spec, scopes):
            return None
        delay = number(spec["delay"], scopes, "retry.delay", low=0, high=MONTH)
        ceiling = spec.get("max_delay")
        if ceiling is not None:
            ceiling = number(ceiling, scopes, "retry.max_delay", low=0, high=MONTH)
    except TemplateError as problem:
        draft.log("retry", task=task.name, refused=problem.message)
        return None
    return backoff(spec["backoff"], delay, used + 1, ceiling)


def _wanted(spec: Mapping[str, Any], scopes: Mapping[str, Any]) -> bool:
    condition = spec.get("on_error")
    return condition is None or expressions.truth(condition, scopes)
