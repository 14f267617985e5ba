"""Flows: children of a block that run on other machines, carried out by whoever takes the first of them.

They are calls, with a lease that is renewed while they run. The siblings that are handed over by then are taken with
it, in one transaction, so that all of a block go in one command; each is recorded as soon as it is over.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select, update

from app.compiler.plan import IO, Plan, PlanTask
from app.engine.status import DISPATCHED, FAILED, RUNNING, SKIPPED, SUCCEEDED, TIMED_OUT
from app.errors import InvalidInput, NotAllowed
from app.flows.breakers import Breakers
from app.flows.model import Flow, Result, Terms, Watch, failed
from app.flows.remote import RemoteExecutor, connect_by
from app.flows.state import MOST_BYTES
from app.logs import scope
from app.services import scope as scoping
from app.services.answers import Answer, record
from app.services.apart import apart
from app.services.control import Control
from app.store import executions as rows
from app.store.tables import Execution, Job, StoredPlan, Task, Variable, table

log = logging.getLogger(__name__)
jobs, tasks, executions = table(Job), table(Task), table(Execution)
variables, plans = table(Variable), table(StoredPlan)

LEASE = 60.0
"""Seconds that flows count as ours without another sign of life of ours."""

_RENEWED_EVERY = 15.0
_LOOK = 1.0
_TRIES = 2 * int(LEASE)
"""How often, with a look's wait between, the results of flows that are over are tried to be recorded."""

_MOST_SAID, _MOST_TYPE = 2000, 100
"""Characters of what a host says of an error, and of its type."""

_AS_IT_WAS = {SUCCEEDED: SUCCEEDED, SKIPPED: SKIPPED, TIMED_OUT: TIMED_OUT}


@dataclass(frozen=True, slots=True)
class Block:
    """Flows of one block that were taken: `jobs` by the number of the flow, ids by claim `claim`.

    `refused` says why none of them may run."""

    execution: str
    claim: str
    jobs: Mapping[int, str]
    flows: tuple[Flow, ...]
    remote: Mapping[str, Any]
    workflow: str
    timeout: float | None
    actions: bytes | None
    trace_id: str
    refused: str


def take(control: Control, connection: Connection, job: str, claim: str) -> Block | None:
    """Make a flow that is handed over ours, with its siblings that are. None where it is not, or any more."""
    query = (
        select(
            jobs.c.execution,
            jobs.c.task,
            executions.c.plan_digest,
            executions.c.trace_id,
            executions.c.requester,
        )
        .join(executions, executions.c.id == jobs.c.execution)
        .where(jobs.c.id == job, jobs.c.node == IO, jobs.c.status == DISPATCHED)
    )
    row = connection.execute(query).first()
    if row is None:
        return None
    plan = rows.plan(connection, row.plan_digest)
    block = plan.tasks[row.task].parent or ""
    children = [name for name in plan.tasks[block].children if plan.tasks[name].flow is not None]
    taken = _claim(control, connection, row.execution, children, claim)
    if not taken:
        return None
    state = _state(connection, row.execution, plan, block)
    flows = tuple(
        _flow(number, plan.tasks[name], row.execution, taken[name][1], state)
        for number, name in enumerate(children)
        if name in taken
    )
    limit = control.settings.flow_timeout or None
    own = plan.tasks[row.task].timeout
    return Block(
        execution=row.execution,
        claim=claim,
        jobs={flow.number: taken[flow.entry_point][0] for flow in flows},
        flows=flows,
        remote=plan.remote or {},
        workflow=_text(connection, row.plan_digest),
        timeout=limit if own is None else own,
        actions=_actions(plan),
        trace_id=row.trace_id,
        refused=_refused(control, connection, row.requester, flows[0]),
    )


def _refused(control: Control, connection: Connection, requester: str, flow: Flow) -> str:
    try:
        scoping.check_host(control, connection, requester, flow.host)
    except NotAllowed as problem:
        return problem.message
    return ""


def _actions(plan: Plan) -> bytes | None:
    """What a host must know to read the workflow: the actions of packs as they are here. None where it names none."""
    if not plan.actions and not any(task.inner.has_child for task in plan.tasks.values()):
        return None
    beside = ("revision", "digest")
    found = {
        ref: {name: value for name, value in action.items() if name not in beside}
        for ref, action in plan.actions.items()
    }
    return json.dumps(found, ensure_ascii=False).encode("utf-8", "surrogatepass")


def _claim(
    control: Control, connection: Connection, execution: str, children: list[str], claim: str
) -> dict[str, tuple[str, int]]:
    """Job and attempt by task, of those that are ours now."""
    now = control.clock()
    columns = {
        "status": RUNNING,
        "epoch": claim,
        "accepted_at": now,
        "started_at": now,
        "send_after": None,
        "give_up_at": None,
        "order_expires_at": now + LEASE,
    }
    free = (jobs.c.execution == execution, jobs.c.task.in_(children), jobs.c.node == IO)
    mine = update(jobs).where(*free, jobs.c.status == DISPATCHED).values(columns)
    found = connection.execute(mine.returning(jobs.c.task, jobs.c.id, jobs.c.attempt))
    return {task: (job, attempt) for task, job, attempt in found}


def _state(connection: Connection, execution: str, plan: Plan, block: str) -> dict[str, Any]:
    """Parameters, variables and results as they were when the block started, and what the execution is: the same for
    every attempt of its flows.

    Secrets stay here.
    """
    of = (tasks.c.execution == execution,)
    began = select(tasks.c.started_at).where(*of, tasks.c.name == block).scalar_subquery()
    over = set(connection.execute(select(tasks.c.name).where(*of, tasks.c.ended_at <= began)).scalars())
    over &= plan.tasks.keys() - {*plan.tasks[block].children}
    query = (
        select(variables.c.name, variables.c.value, variables.c.task)
        .where(variables.c.execution == execution, variables.c.void.is_(False))
        .order_by(variables.c.seq)
    )
    published = {row.name: row.value for row in connection.execute(query) if not row.task or row.task in over}
    columns = (executions.c.parameters, executions.c.created_at, executions.c.requester)
    of_it = connection.execute(select(*columns).where(executions.c.id == execution)).one()
    given, secret = of_it.parameters or {}, plan.secret_parameters
    return {
        "parameters": {name: None if name in secret else value for name, value in given.items()},
        "vars": published,
        "task": rows.load_results(connection, execution, over),
        "system": {
            "execution_id": execution,
            "timestamp": of_it.created_at,
            "identity": {"login": of_it.requester},
        },
    }


def _flow(number: int, task: PlanTask, execution: str, attempt: int, state: Mapping[str, Any]) -> Flow:
    said = task.flow or {}
    name = f"{execution}-{task.name}-{attempt}"
    return Flow(number, name, said["entry_point"], said["exit_point"], said["host"], state)


def _text(connection: Connection, digest: str) -> str:
    return str(connection.execute(select(plans.c.source).where(plans.c.digest == digest)).scalar_one())


class _Open:
    """The flows of a block that are not recorded yet: `jobs` by number. From any thread."""

    def __init__(self, control: Control, block: Block) -> None:
        self.jobs = dict(block.jobs)
        self._control = control
        self._block = block
        self._unkept: dict[int, tuple[Flow, Result]] = {}

    def over(self, flow: Flow, result: Result) -> None:
        """Record what a flow came to; where that cannot be done now it is left to `again`."""
        job, block = self.jobs.get(flow.number), self._block
        if job is None:
            return
        scope.note(execution=block.execution, task=flow.entry_point, job=job, trace_id=block.trace_id)
        try:
            record(self._control, block.execution, job, answer_of(flow, result))
        except Exception:
            # The edge of one flow: what is not recorded here nobody finds again, so that it is kept.
            log.exception("what became of flow %s could not be recorded", flow.name)
            self._unkept.setdefault(flow.number, (flow, result))
        else:
            self._unkept.pop(flow.number, None)
            self.jobs.pop(flow.number, None)

    def again(self) -> bool:
        """Record what could not be recorded. Whether there is still something."""
        for flow, result in list(self._unkept.values()):
            self.over(flow, result)
        return bool(self._unkept)

    def give_up(self) -> None:
        """Record of what could not be recorded that it cannot be: that may be a matter of what it is."""
        for flow, _ in list(self._unkept.values()):
            self.over(flow, failed("bad_result", "what the flow came to could not be stored"))

    def fail(self, problem: BaseException | None) -> None:
        """Record those of which nothing was told: whoever ran them met a fault of its own."""
        for flow in self._block.flows:
            if flow.number in self.jobs and flow.number not in self._unkept:
                self.over(flow, failed("internal", f"the flow was not seen through: {problem!r:.500}"))


def carry(control: Control, breakers: Breakers, block: Block) -> None:
    """Run flows that were taken, to their ends; those that nobody wants any more are ended on their hosts."""
    scope.note(execution=block.execution, trace_id=block.trace_id)
    open_ = _Open(control, block)
    watch = Watch(open_.over)
    renewed = control.clock()

    def look_after() -> None:
        nonlocal renewed
        # What the database does not do now must not end flows, and is asked of it again.
        with apart(block.execution):
            renewed = _look_after(control, block, open_.jobs, watch, renewed)

    with ThreadPoolExecutor(1, "flows") as pool:
        running = pool.submit(copy_context().run, _execute, control, breakers, block, watch)
        while not wait([running], _LOOK).done:
            look_after()
            open_.again()
    problem = running.exception()
    if problem is not None:
        log.error("flows were not seen through", exc_info=problem)
    open_.fail(problem)
    for _ in range(_TRIES):
        if not open_.again():
            return
        look_after()
        time.sleep(_LOOK)
    open_.give_up()


def _execute(control: Control, breakers: Breakers, block: Block, watch: Watch) -> None:
    settings = control.settings
    if block.refused:
        _refuse(block, watch, failed("not_allowed", block.refused))
        return
    try:
        connect = connect_by(settings.flow_ssh, settings.flow_ssh_config)
    except InvalidInput as problem:
        _refuse(block, watch, failed("preflight", problem.message, hint=problem.hint))
        return
    terms = Terms(
        workflow=block.workflow,
        basefile=settings.flow_tools / str(block.remote["basefile"]),
        workdir=str(block.remote["workdir"]),
        cleanup=bool(block.remote["cleanup"]),
        timeout=block.timeout,
        actions=block.actions,
    )
    method = str(block.remote["method"])
    executor = RemoteExecutor(method, connect, breakers, MOST_BYTES, settings.flow_ssh_config)
    executor.execute(block.flows, terms, watch)


def _refuse(block: Block, watch: Watch, result: Result) -> None:
    for flow in block.flows:
        watch.tell(flow, result)


def _look_after(
    control: Control, block: Block, open_: Mapping[int, str], watch: Watch, renewed: float
) -> float:
    """See which flows are not wanted any more, and renew the lease of the others. Gives when that was done last."""
    wanted = dict(open_)
    with control.store.read() as connection:
        mine = (jobs.c.id.in_(wanted.values()), jobs.c.status == RUNNING, jobs.c.epoch == block.claim)
        still = set(connection.execute(select(jobs.c.id).where(*mine)).scalars())
    watch.given_up.update(number for number, job in wanted.items() if job not in still and number in open_)
    now = control.clock()
    if now - renewed < _RENEWED_EVERY or not still:
        return renewed
    with control.store.write() as connection:
        connection.execute(update(jobs).where(*mine).values(order_expires_at=now + LEASE))
    return now


def answer_of(flow: Flow, result: Result) -> Answer:
    """What a child came to, by what its flow left: its own status, result and error there."""
    if result.state is None:
        error: Mapping[str, Any] = result.error or {}
        return Answer(TIMED_OUT if error.get("type") == "timeout" else FAILED, error=error)
    child = result.state["task"].get(flow.entry_point)
    problem = result.state.get("error")
    if not isinstance(child, Mapping) or not (isinstance(problem, Mapping) or problem is None):
        message = f"the result of the flow says nothing of {flow.entry_point}"
        return Answer(FAILED, error={"type": "bad_result", "message": message})
    status = _AS_IT_WAS.get(str(child.get("status")), FAILED)
    if status in (SUCCEEDED, SKIPPED):
        return Answer(status, child.get("result"))
    return Answer(status, child.get("result"), _error(flow, child, problem))


def _error(flow: Flow, child: Mapping[str, Any], problem: Mapping[str, Any] | None) -> dict[str, Any]:
    """The error of a child that failed: what its host says of it, as far as that has the form of an error."""
    said = child.get("error") or problem
    said = said if isinstance(said, Mapping) else {}
    plain = {name: one for name, one in said.items() if isinstance(one, str | int | float | None)}
    error = {name: one[:_MOST_SAID] if isinstance(one, str) else one for name, one in plain.items()}
    kind, message = error.get("type"), error.get("message")
    error["type"] = kind[:_MOST_TYPE] if isinstance(kind, str) else "remote"
    if not isinstance(message, str):
        error["message"] = f"{flow.entry_point} ended as {child.get('status')!s:.20}"
    return {**error, "host": flow.host}
