"""Plan + born jobs → Celery canvas as data. Pure: the result is what Celery's own signatures serialize to.

    line      chain     order(a)@node.x | collect | order(b, c)@node.y | collect
    siblings  group     of lines
    fan-out   chord     header: order | collect each, body: settle
    block     chord     the same, where every child is one plain job
    shared    group     members for one node in one order, settled as they come
    wide      group     of the first `window` members; each `collect` claims the next
    loop      chord or group, as a fan-out

A node is only ever handed `node.order`; everything else runs on control. The rows stay the truth: a canvas that is
lost, cut or sent twice costs seconds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from app.compiler.build import static_node
from app.compiler.plan import Plan, PlanTask

ORDER, COLLECT, SETTLE = "node.order", "control.collect", "control.settle"
RESULTS, CONTROL = "results", "control"

Signature = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Born:
    """A job that may be handed over now: its id is the Celery task id."""

    id: str
    task: str
    unit: int
    attempt: int
    node: str


def job_id(execution: str, task: str, unit: int, attempt: int) -> str:
    """`<execution>.<task>.<unit>.<attempt>`: for reading only, never parsed."""
    return f"{execution}.{task}.{unit}.{attempt}"


def sharing(
    plan: Plan, jobs: Sequence[Born], *, window: int, partial: Collection[str] = ()
) -> list[list[Born]]:
    """Those of these jobs that may share an order: members of one chord for one node.

    They may run at the same time, and nothing follows any of them before all are over.
    """
    shared: dict[tuple[str, str], list[Born]] = {}
    for name, members in _grouped(plan, jobs).items():
        if _is_chord(plan, name, members, window, partial):
            for job in members:
                if not plan.tasks[job.task].secrets:
                    shared.setdefault((name, job.node), []).append(job)
    return [members for members in shared.values() if len(members) > 1]


def compile(
    plan: Plan,
    execution: str,
    jobs: Sequence[Born],
    *,
    window: int,
    partial: Collection[str] = (),
    carried: Collection[str] = (),
    along: Mapping[str, int] = MappingProxyType({}),
) -> list[Signature]:
    """The canvases that hand `jobs` over, in order.

    `window` bounds how many members of one fan-out are sent at once; the caller leaves the rest queued. `partial`
    names the fan-outs and loops of which more units wait: they need a `collect` that claims the next, so they are no
    chord; nor are jobs with files, for what they changed is merged one after another. A line is extended over the tasks
    that the plan says may follow in one chain; their rows are born when it gets there. `carried` are the ids of jobs
    that travel in the order of another (`sharing`), `along` says by a job's id how many follow in its order.
    """
    canvases: list[Signature] = []
    lines: list[Signature] = []
    for name, members in _grouped(plan, jobs).items():
        if not _is_group(name, members):
            lines.extend(line(plan, execution, one, along.get(one.id)) for one in members)
        elif not _is_chord(plan, name, members, window, partial):
            canvases.append(group([pair(member) for member in members[:window]], members[0].id + ".group"))
        else:
            heads = [pair(member) for member in members if member.id not in carried]
            canvases.append(_around(heads, execution, members[0].id, is_shared=len(heads) < len(members)))
    if len(lines) == 1:
        canvases.append(lines[0])
    elif lines:
        canvases.append(group(lines, _group_id(lines)))
    return canvases


def line(plan: Plan, execution: str, job: Born, along: int | None = None) -> Signature:
    """The chain that starts with `job` and goes on as far as the plan allows. `along` as in `links`."""
    return chain(links(plan, execution, job, along))


def links(plan: Plan, execution: str, job: Born, along: int | None = None) -> list[Signature]:
    """The links of `line`: order and collect of each task, but for those that go along in the order before.

    `along` is how many go along with the first, where that is known: with none, each has an order of its own.
    """
    found = [order(job.id, job.node), collect(job.id)]
    left = len(going_along(plan, job.task)) if along is None else along
    at = plan.tasks[job.task].then
    while at is not None:
        task = plan.tasks[at]
        at = task.then
        if left:
            left -= 1
            continue
        following = job_id(execution, task.name, 0, 1)
        found += [order(following, static_node(task) or ""), collect(following)]
        left = len(going_along(plan, task.name)) if along != 0 else 0
    return found


def going_along(plan: Plan, task: str) -> list[str]:
    """The tasks that may travel in the order of this one, one after another."""
    found: list[str] = []
    at = plan.tasks[task].then
    while at is not None and plan.tasks[at].along:
        found.append(at)
        at = plan.tasks[at].then
    return found


def pair(job: Born) -> Signature:
    """One chord or group member: exactly one order and its collect."""
    return chain([order(job.id, job.node), collect(job.id)])


def order(job: str, node: str) -> Signature:
    """The link that hands a job to its node. Its one argument, the sealed order, comes when it is sent."""
    return _signature(ORDER, job, f"node.{node}")


def collect(job: str) -> Signature:
    """The link that records the outcome and returns the next order."""
    return _signature(COLLECT, f"{job}.collect", RESULTS)


def settle(execution: str, task_id: str) -> Signature:
    """The nudge to fold every job that is over."""
    return _signature(SETTLE, task_id, CONTROL, args=[execution], immutable=True)


def chain(tasks: Sequence[Signature]) -> Signature:
    return _canvas("chain", {"tasks": list(tasks)})


def group(tasks: Sequence[Signature], task_id: str) -> Signature:
    return {**_canvas("group", {"tasks": list(tasks)}), "options": {"task_id": task_id}}


def chord(members: Sequence[Signature], execution: str, first: str) -> Signature:
    return _canvas(
        "chord",
        {
            "header": group(members, f"{first}.group"),
            "body": settle(execution, f"{first}.settle"),
            "args": [],
            "kwargs": {},
        },
    )


def _grouped(plan: Plan, jobs: Iterable[Born]) -> dict[str, list[Born]]:
    """The jobs by what they belong to, "" for those of their own."""
    groups: dict[str, list[Born]] = {}
    for job in jobs:
        groups.setdefault(_together(plan, job), []).append(job)
    return groups


def _together(plan: Plan, job: Born) -> str:
    """The fan-out or block that the job belongs to and may share a chord with, "" for a job of its own."""
    task = plan.tasks[job.task]
    if task.kind in ("fanout", "loop"):
        return task.name
    if task.parent and all(_fits_a_chord(plan.tasks[child]) for child in plan.tasks[task.parent].children):
        return task.parent
    return ""


def _around(heads: Sequence[Signature], execution: str, first: str, *, is_shared: bool) -> Signature:
    """The members of a chord; where some bring several outcomes each is settled as it comes, and none counts."""
    if len(heads) == 1:
        return heads[0]
    return group(heads, f"{first}.group") if is_shared else chord(heads, execution, first)


def _is_group(name: str, members: Sequence[Born]) -> bool:
    return bool(name) and len(members) > 1 and members[0].attempt == 1


def _is_chord(plan: Plan, name: str, members: Sequence[Born], window: int, partial: Collection[str]) -> bool:
    fits = len(members) <= window and name not in partial and not plan.tasks[members[0].task].has_files
    return fits and _is_group(name, members)


def _fits_a_chord(task: PlanTask) -> bool:
    return task.kind == "job" and not task.has_files


def _group_id(lines: Sequence[Signature]) -> str:
    return f"{lines[0]['kwargs']['tasks'][0]['options']['task_id']}.siblings"


def _signature(
    name: str, task_id: str, queue: str, *, args: Sequence[Any] = (), immutable: bool = False
) -> Signature:
    return {
        "task": name,
        "args": list(args),
        "kwargs": {},
        "options": {"queue": queue, "task_id": task_id},
        "subtask_type": None,
        "immutable": immutable,
    }


def _canvas(kind: str, kwargs: Mapping[str, Any]) -> Signature:
    return {
        "task": f"celery.{kind}",
        "args": [],
        "kwargs": dict(kwargs),
        "options": {},
        "subtask_type": kind,
        "immutable": False,
    }
