"""What OpenTelemetry is told: a span for each execution, task and job, when it is over.

A span's id follows from what it is about, so that every process of the fleet names the same parents without a word
between them, and a span that is told twice is the same span. Ids, names and statuses; never a value.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from app.engine.state import Changes, JobState, Slice
from app.engine.status import EXECUTION_OVER, FAILED, TIMED_OUT
from app.ids import span_of
from app.settings import BadSetting, Settings
from app.store.head import Head

Attribute = str | int | bool


@dataclass(frozen=True, slots=True)
class Span:
    """Ids as W3C has them; `parent` is "" for the first of a trace. Times are Unix seconds."""

    name: str
    trace: str
    id: str
    parent: str
    started: float
    ended: float
    failed: bool
    attributes: Mapping[str, Attribute] = field(default_factory=dict)


Tell = Callable[[Sequence[Span]], None]


def nobody(spans: Sequence[Span]) -> None:
    """Where no endpoint is set."""


def exporter(settings: Settings, process: str) -> Tell:
    """Where spans go: to MUSTER_OTEL_ENDPOINT, if there is one. Raises BadSetting without the extra `otel`."""
    if not settings.otel_endpoint:
        return nobody
    try:
        otel = importlib.import_module("app.services.otel")
    except ImportError:
        hint = "install muster[otel], or leave the setting out"
        raise BadSetting(
            "MUSTER_OTEL_ENDPOINT needs OpenTelemetry, which is not installed", hint=hint
        ) from None
    tell: Tell = otel.over_http(settings.otel_endpoint, process)
    return tell


def of_step(head: Head, known: Slice, changes: Changes, now: float) -> list[Span]:
    """The spans of what ended in `changes`, which `known` holds already."""
    found = [*_jobs(head, known, changes, now), *_tasks(head, known, changes, now)]
    status = changes.execution.get("status")
    if status in EXECUTION_OVER:
        run = known.execution
        about: dict[str, Attribute] = {"muster.degraded": run.degraded}
        if run.ended_badly:
            about["error.type"] = run.ended_badly
        about |= {"muster.workflow": head.workflow, "muster.status": str(status), "muster.execution": run.id}
        began = float(run.system["timestamp"])
        found.append(
            Span(
                head.workflow,
                head.trace_id,
                span_of(run.id),
                head.parent_span,
                began,
                now,
                status == FAILED,
                about,
            )
        )
    return found


def _tasks(head: Head, known: Slice, changes: Changes, now: float) -> Iterator[Span]:
    execution = known.execution.id
    for name, columns in changes.tasks.items():
        state = known.tasks[name]
        if columns.get("ended_at") is None or state.started_at is None:
            continue
        task = known.plan.tasks[name]
        above = span_of(execution)
        if task.parent is not None and task.parent in known.tasks:
            above = _task_span(execution, task.parent, known.tasks[task.parent].first_attempt)
        about: dict[str, Attribute] = {
            "muster.execution": execution,
            "muster.task": name,
            "muster.action": task.action or task.kind,
            "muster.status": state.status,
        }
        if state.error:
            about["error.type"] = str(state.error.get("type", ""))
        span = _task_span(execution, name, state.first_attempt)
        failed = state.status in (FAILED, TIMED_OUT)
        yield Span(name, head.trace_id, span, above, state.started_at, state.ended_at or now, failed, about)


def _jobs(head: Head, known: Slice, changes: Changes, now: float) -> Iterator[Span]:
    ended = [known.jobs[id_] for id_, columns in changes.jobs.items() if columns.get("settled")]
    ended += [known.jobs[job.id] for job in changes.new_jobs if known.jobs[job.id].settled and job.settled]
    for job in {job.id: job for job in ended}.values():
        yield _job(head, known, job, now)


def _job(head: Head, known: Slice, job: JobState, now: float) -> Span:
    execution = known.execution.id
    state = known.tasks.get(job.task)
    first = state.first_attempt if state is not None else 1
    about: dict[str, Attribute] = {
        "muster.execution": execution,
        "muster.task": job.task,
        "muster.job": job.id,
        "muster.unit": job.unit,
        "muster.attempt": job.attempt,
        "muster.status": job.status,
    }
    if job.node:
        about["muster.node"] = job.node
    if job.error:
        about["error.type"] = str(job.error.get("type", ""))
    ended = job.ended_at or now
    failed = job.status in (FAILED, TIMED_OUT)
    began = min(job.started_at or ended, ended)
    above = _task_span(execution, job.task, first)
    return Span(f"{job.task}.{job.unit}", head.trace_id, span_of(job.id), above, began, ended, failed, about)


def _task_span(execution: str, task: str, first_attempt: int) -> str:
    """One for each run of the task: a retry of the execution begins another."""
    return span_of(f"{execution}.{task}#{first_attempt}")
