"""What a node is to be told of a job: built from its rows, judged by the allowlist, with the secrets that it names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import Connection

from app import marks
from app.compiler.canvas import going_along
from app.compiler.plan import Plan
from app.engine import along
from app.engine.state import JobState, Slice
from app.engine.status import QUEUED
from app.errors import InvalidInput, NotAllowed, TooLarge
from app.jobs.build import JOB_BYTES, build_job
from app.language import shell_values
from app.services import approved, guard, scope, vault
from app.services.approved import NotApproved
from app.services.control import Control
from app.services.lost import fail
from app.services.run import Run
from app.services.vault import Asked, Opened, SecretRefused
from app.store import executions as rows
from app.transport.messages import Job

ORDER_BYTES = 256_000
"""What all jobs that go along in one order may be as JSON: their node keeps it until the last is over."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a node is to be told of a job, its digest, and the values of the marks in it.

    `along` is what it is told in the same order of the jobs that follow, `beside` of those that run at the same time;
    none of them has marks.
    """

    message: Job
    digest: str
    opened: Opened = field(repr=False)
    along: tuple[Told, ...] = ()
    beside: tuple[Told, ...] = ()

    @property
    def messages(self) -> tuple[Job, ...]:
        """All that its order is about."""
        return (self.message, *(one.message for one in (*self.along, *self.beside)))

    @property
    def placed(self) -> Job:
        """The message as its process will have it, to be judged: a variable may be what decides which program runs."""
        if not self.opened.values:
            return self.message
        return replace(self.message, env=marks.put(self.message.env, self.opened.values))


@dataclass(frozen=True, slots=True)
class About:
    """Whose job it is: what the execution's row says. `gate` is where its approval is, "" where it needs none."""

    execution: str
    requester: str
    guard: str
    trace_id: str
    gate: str = ""


def of_run(run: Run) -> About:
    head = run.head
    return About(run.execution, head.requester, head.guard, head.trace_id, head.state.gate)


def tell(run: Run, job: JobState) -> Told | None:
    """What the node is to be told. A job that cannot be told fails here and now, before anything is sent."""
    about = of_run(run)
    try:
        return judged(run.control, run.connection, about, run.plan, job, run.given_to(job))
    except SecretRefused as problem:
        vault.refuse(run.control, run.connection, _asked(about, run.plan, job), problem)
        fail(run, job.id, QUEUED, {"type": "secret", "message": problem.message})
    except InvalidInput as problem:
        fail(run, job.id, QUEUED, {"type": "input", "message": problem.message})
    except TooLarge as problem:
        fail(run, job.id, QUEUED, {"type": "too_large", "message": problem.message})
    except NotApproved as problem:
        guard.refuse(run.control, run.connection, run.head.requester, job.id, problem)
        fail(run, job.id, QUEUED, {"type": "not_approved", "message": problem.message})
    except NotAllowed as problem:
        guard.refuse(run.control, run.connection, run.head.requester, job.id, problem)
        fail(run, job.id, QUEUED, {"type": "not_allowed", "message": problem.message})
    return None


def tell_along(
    control: Control, connection: Connection, about: About, slice_: Slice, job: JobState, now: float
) -> tuple[Told, ...]:
    """What the node may be told of the jobs that follow this one, in the same order.

    A job that the allowlist is asked about, or that an approval stands for, is judged when its own turn has come.
    """
    names = going_along(slice_.plan, job.task) if job.attempt == 1 else []
    if not names or about.guard or about.gate or slice_.plan.gate:
        return ()
    missing = set(names) - slice_.tasks.keys()
    slice_.tasks.update(rows.load_tasks(connection, about.execution, missing) if missing else {})
    if not slice_.fleet:
        slice_.fleet = control.roster.nodes(connection)
    found, size = list[Told](), 0
    for one in along.followers(slice_, job, now):
        given = one.input, one.timeout
        try:
            told = judged(control, connection, about, slice_.plan, one.job, given)
        except (InvalidInput, NotAllowed, TooLarge):
            break
        size += told.message.size
        if size > ORDER_BYTES:
            break
        found.append(told)
    return tuple(found)


def judged(
    control: Control,
    connection: Connection,
    about: About,
    plan: Plan,
    job: JobState,
    given: tuple[Mapping[str, Any], float | None],
) -> Told:
    """What a node is to be told for the first time. `given` is the rendered input, and the timeout in seconds.

    Raises NotAllowed for what may not run, or not there; TooLarge for what no order could carry; SecretRefused,
    InvalidInput.
    """
    scope.check_job(control, connection, about.requester, plan.ref, job.node)
    told = again(control, connection, about, plan, job, given)
    shell_values.check(told.message.shell, told.placed.env)
    guard.check(control, about.guard, told.placed)
    size = told.message.size + told.opened.size
    if size > JOB_BYTES:
        raise TooLarge(f"input and script are {size} bytes, a job may have {JOB_BYTES}")
    guard.note(control, connection, about.guard, about.requester, told.placed)
    return told


def again(
    control: Control,
    connection: Connection,
    about: About,
    plan: Plan,
    job: JobState,
    given: tuple[Mapping[str, Any], float | None],
) -> Told:
    """The same for a job that was judged before. Raises SecretRefused, InvalidInput, and NotApproved."""
    more: dict[str, Any] = {"plan": plan, "guard": about.guard, "trace_id": about.trace_id}
    task = plan.tasks[job.task]
    message = build_job(about.execution, task, *given, job, control.settings, **more)
    if about.gate or plan.gate:
        approved.check(connection, about.execution, message, job.node)
    opened = Opened()
    if task.secrets:
        opened = vault.for_order(control, connection, _asked(about, plan, job), message)
    return Told(message, message.digest, opened)


def _asked(about: About, plan: Plan, job: JobState) -> Asked:
    task = plan.tasks[job.task]
    return Asked(about.execution, task.name, job.id, about.requester, task.secrets)
