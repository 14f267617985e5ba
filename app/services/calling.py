"""Making calls: taken by compare-and-set with a lease, made outside of any transaction, recorded by compare-and-set.

A foreign Celery task is sent and let go: no thread waits for it. The tick has it asked about, now and then, until its
app has written what became of it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import Connection as Database
from sqlalchemy import select, update

from app import marks
from app.compiler.plan import IO
from app.engine.status import DISPATCHED, FAILED, RUNNING, SUCCEEDED, TIMED_OUT, UNKNOWN
from app.errors import InvalidInput, Unavailable
from app.flows.breakers import Breakers
from app.ids import traceparent, ulid
from app.logs import scope
from app.services import call_input, calls, flows, vault
from app.services.answers import Answer, record
from app.services.control import Control
from app.services.flows import Block
from app.services.run import Run
from app.services.vault import Asked, Opened, SecretRefused
from app.store import executions as rows
from app.store.tables import Execution, Job, Task, table
from app.transport.addresses import Policy
from app.transport.fetch import Request, fetch
from app.transport.foreign import Connection, Doubtful, Foreign
from app.transport.messages import canonical
from app.transport.wires import Failed

log = logging.getLogger(__name__)
jobs, tasks, executions = table(Job), table(Task), table(Execution)

LEASE_MARGIN = 10.0
"""Seconds that a lease goes on after the call must be over: for what is written then."""

SENDING = 30.0
"""Seconds in which a foreign task must have been sent."""

TRACE_HEADER = "traceparent"

_FIRST_ASKED, _LONGEST_PAUSE = 0.5, 10.0


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes calls: `claim` is of this life of the worker, so that what an earlier one left is known as that."""

    control: Control
    foreign: Foreign
    policy: Policy
    claim: str
    breakers: Breakers = field(default_factory=Breakers)

    @classmethod
    def start(cls, control: Control, name: str, policy: Policy) -> Caller:
        """A new life of the worker of that name."""
        settings = control.settings
        foreign = Foreign(settings.celery_connections)
        breakers = Breakers(settings.ssh_breaker_failures, settings.ssh_breaker_cooldown)
        return cls(control, foreign, policy, f"{name[:36]}:{ulid()}", breakers)


@dataclass(frozen=True, slots=True)
class Call:
    """A job that was taken. `left` are the seconds that the task's own timeout leaves it, None without one.

    `opened` are the secrets in what is `given`; `refused` says why there is one that it cannot have.
    """

    id: str
    execution: str
    action: str
    given: Mapping[str, Any]
    started_at: float
    left: float | None
    trace_id: str = ""
    opened: Opened = field(default_factory=Opened, repr=False)
    refused: str = ""


def look(caller: Caller, job: str) -> None:
    """Take a job that is handed over and make its call, or ask about one that was sent. The argument is an id only:
    late, doubled or forged it does what the row allows."""
    call = _take(caller, job)
    if call is None:
        _ask(caller, job)
    elif isinstance(call, Block):
        flows.carry(caller.control, caller.breakers, call)
    elif call.action == "core.http":
        record(caller.control, call.execution, call.id, _http(caller, call))
    else:
        _send(caller, call)


def inherit(caller: Caller) -> int:
    """Give up what an earlier life of this worker had taken and not ended. Returns how many."""
    prefix = caller.claim.rpartition(":")[0]
    query = select(jobs.c.id, jobs.c.execution).where(
        jobs.c.node == IO,
        jobs.c.status == RUNNING,
        jobs.c.order_expires_at.is_not(None),
        jobs.c.epoch.startswith(f"{prefix}:", autoescape=True),
        jobs.c.epoch != caller.claim,
    )
    with caller.control.store.read() as connection:
        found = list(connection.execute(query))
    for row in found:
        _lose(caller, row.id, row.execution)
    return len(found)


def _lose(caller: Caller, job: str, execution: str) -> None:
    with caller.control.store.write() as connection:
        calls.give_up(Run.lock(caller.control, connection, execution), job)
    caller.control.nudge([execution])


def _loaded(job: str, *statuses: str) -> Any:
    columns = (
        *(
            jobs.c[name]
            for name in ("id", "execution", "task", "given", "status", "backstop_at", "started_at")
        ),
        *(tasks.c.input, executions.c.plan_digest, executions.c.requester, executions.c.trace_id),
    )
    return (
        select(*columns)
        .join(tasks, (tasks.c.execution == jobs.c.execution) & (tasks.c.name == jobs.c.task))
        .join(executions, executions.c.id == jobs.c.execution)
        .where(jobs.c.id == job, jobs.c.node == IO, jobs.c.status.in_(statuses))
    )


def _take(caller: Caller, job: str) -> Call | Block | None:
    """Make a job that is handed over ours, with the lease committed before anything is done. None where it is not."""
    control = caller.control
    now = control.clock()
    with control.store.write() as connection:
        row = connection.execute(_loaded(job, DISPATCHED)).first()
        if row is None:
            return None
        task = rows.plan(connection, row.plan_digest).tasks[row.task]
        if task.flow is not None:
            return flows.take(control, connection, job, caller.claim)
        action = task.action
        given = row.input if row.given is None else row.given["input"]
        left = None if row.backstop_at is None else row.backstop_at - now
        lease = SENDING if action != "core.http" else _longest(control, given or {}, left)
        columns = {
            "status": RUNNING,
            "epoch": caller.claim,
            "accepted_at": now,
            "started_at": now,
            "send_after": None,
            "give_up_at": None,
            "order_expires_at": now + lease + LEASE_MARGIN,
        }
        mine = update(jobs).where(jobs.c.id == job, jobs.c.status == DISPATCHED)
        if not connection.execute(mine.values(columns)).rowcount:
            return None
        opened, refused = _opened(control, connection, row, given)
    scope.note(execution=row.execution, task=row.task, job=job, trace_id=row.trace_id)
    return Call(job, row.execution, action, given or {}, now, left, row.trace_id, opened, refused)


def _opened(control: Control, connection: Database, row: Any, given: Any) -> tuple[Opened, str]:
    """The secrets of a call, and why there is one that it cannot have."""
    task = rows.plan(connection, row.plan_digest).tasks[row.task]
    asked = Asked(row.execution, task.name, row.id, row.requester, task.secrets)
    try:
        return vault.open_each(control, connection, asked, marks.references(given)), ""
    except SecretRefused as problem:
        vault.refuse(control, connection, asked, problem)
        return Opened(), problem.message


def _longest(control: Control, given: Mapping[str, Any], left: float | None) -> float:
    """Seconds that a request may take, for its lease: one that names nonsense fails at once."""
    otherwise = control.settings.http_timeout
    try:
        seconds = call_input.seconds_of(given.get("timeout"), otherwise, call_input.LONGEST)
    except InvalidInput:
        return 0.0
    return seconds if left is None else max(0.0, min(seconds, left))


def _http(caller: Caller, call: Call) -> Answer:
    """What came of a request, its secrets masked wherever they come back."""
    if call.refused:
        return Answer(FAILED, error={"type": "secret", "message": call.refused})
    answer = _asked_for(caller, call)
    masker = call.opened.masker()
    if masker is None:
        return answer
    result = masker.value(answer.result)
    if result is not None and result["truncated"]:
        result["body"] = masker.text(answer.result["body"], cut=True)
    return Answer(answer.status, result, masker.value(answer.error))


def _asked_for(caller: Caller, call: Call) -> Answer:
    settings = caller.control.settings
    limit = settings.call_limit
    try:
        given = marks.put(call.given, call.opened.values)
        asked = call_input.read(given, seconds=settings.http_timeout, limit=limit)
        seconds = asked.seconds if call.left is None else min(asked.seconds, call.left)
        request = replace(_traced(asked.request, call), confidential=bool(call.opened.values))
        response = fetch(request, policy=caller.policy, seconds=seconds, limit=limit)
    except InvalidInput as problem:
        return Answer(FAILED, error={"type": "input", "message": problem.message})
    except Failed as failed:
        is_tasks = failed.kind == "timeout" and call.left is not None and call.left <= asked.seconds
        problem_ = {"type": failed.kind, "message": failed.message}
        return Answer(TIMED_OUT if is_tasks else FAILED, error=problem_)
    result = call_input.result_of(response)
    if response.status in asked.expected:
        return Answer(SUCCEEDED, result)
    message = f"{response.status} is not the status that was expected"
    return Answer(FAILED, result, {"type": "http_status", "message": message, "status": response.status})


def _traced(request: Request, call: Call) -> Request:
    """With the header that hands on the trace, unless the task gives one."""
    if any(name.lower() == TRACE_HEADER for name in request.headers):
        return request
    return replace(request, headers={**request.headers, TRACE_HEADER: traceparent(call.trace_id, call.id)})


def _send(caller: Caller, call: Call) -> None:
    """Send a foreign task, once: the lease was committed before, so another life of ours does not send it again."""
    try:
        to, args, kwargs, queue = _celery_input(caller, call.given)
        if not to.backend and not call.given.get("ignore_result"):
            raise InvalidInput(f"connection {to.name} has no `backend`: no result can come back")
        caller.foreign.send(
            to,
            call.id,
            str(call.given.get("task") or ""),
            args,
            kwargs,
            queue,
            traceparent=traceparent(call.trace_id, call.id),
        )
    except InvalidInput as problem:
        record(
            caller.control,
            call.execution,
            call.id,
            Answer(FAILED, error={"type": "input", "message": problem.message}),
        )
    except Unavailable as problem:
        record(
            caller.control,
            call.execution,
            call.id,
            Answer(FAILED, error={"type": "connect", "message": problem.message}),
        )
    except Doubtful as doubt:
        log.warning("nobody knows whether a foreign task was sent: %s", doubt)
        _lose(caller, call.id, call.execution)
    else:
        if call.given.get("ignore_result"):
            record(caller.control, call.execution, call.id, Answer(SUCCEEDED, {"id": call.id}))
        else:
            _let_go(caller, call)


def _celery_input(
    caller: Caller, given: Mapping[str, Any]
) -> tuple[Connection, list[Any], Mapping[str, Any], str]:
    """Raises InvalidInput."""
    args, kwargs = given.get("args") or [], given.get("kwargs") or {}
    if not isinstance(args, list | tuple) or not isinstance(kwargs, Mapping):
        raise InvalidInput("args must be a list and kwargs a map")
    call_input.seconds_of(given.get("timeout"), 1.0, call_input.MONTH)
    limit = caller.control.settings.call_limit
    size = len(canonical([list(args), dict(kwargs)]))
    if size > limit:
        raise InvalidInput(f"args and kwargs have {size} bytes; {limit} are the most")
    to = caller.foreign.connection(str(given.get("connection") or "default"))
    return to, list(args), kwargs, str(given.get("queue") or "")


def _let_go(caller: Caller, call: Call) -> None:
    """It was sent: no lease any more, but a time to ask what became of it."""
    control = caller.control
    with control.store.write() as connection:
        mine = update(jobs).where(
            jobs.c.id == call.id, jobs.c.status == RUNNING, jobs.c.epoch == caller.claim
        )
        connection.execute(mine.values(order_expires_at=None, send_after=control.clock() + _FIRST_ASKED))


def _ask(caller: Caller, job: str) -> None:
    """Ask about a foreign task that was sent; put it off where there is nothing to be told yet."""
    control = caller.control
    sent = _loaded(job, RUNNING, UNKNOWN).where(jobs.c.send_after.is_not(None), jobs.c.settled.is_(False))
    with control.store.read() as connection:
        row = connection.execute(sent).first()
    if row is None:
        return
    scope.note(execution=row.execution, task=row.task, job=job, trace_id=row.trace_id)
    given = (row.input if row.given is None else row.given["input"]) or {}
    call = Call(job, row.execution, "core.celery", given, row.started_at, None)
    answer = _foreign_answer(caller, call)
    if answer is None and row.status == RUNNING:
        answer = _too_late(caller, call)
    if answer is not None:
        record(caller.control, call.execution, call.id, answer)
        return
    age = control.clock() - row.started_at
    pause = min(_LONGEST_PAUSE, max(_FIRST_ASKED, age / 10))
    with control.store.write() as connection:
        later = update(jobs).where(jobs.c.id == job, jobs.c.status.in_((RUNNING, UNKNOWN)))
        connection.execute(later.values(send_after=control.clock() + pause))


def _foreign_answer(caller: Caller, call: Call) -> Answer | None:
    settings = caller.control.settings
    try:
        at = caller.foreign.connection(str(call.given.get("connection") or "default"))
        ended = caller.foreign.ended(at, call.id, settings.call_limit)
    except (InvalidInput, Unavailable) as problem:
        log.warning("nothing is known of a foreign task: %s", problem.message)
        ended = None
    if ended is not None and not call_input.is_shallow(ended.result):
        message = f"the result is nested deeper than {call_input.DEPTH} levels"
        return Answer(FAILED, error={"type": "too_large", "message": message})
    if ended is not None:
        return Answer(SUCCEEDED if ended.error is None else FAILED, ended.result, ended.error)
    return None


def _too_late(caller: Caller, call: Call) -> Answer | None:
    """The timeout of the input is over. What is unknown stays so: only its result or a person tells more."""
    settings = caller.control.settings
    wait = call_input.seconds_of(call.given.get("timeout"), settings.celery_timeout, call_input.MONTH)
    if caller.control.clock() - call.started_at < wait:
        return None
    message = f"no result within {wait:g} s; the task may still run"
    return Answer(FAILED, error={"type": "timeout", "message": message})
