"""A plan as text: the canvas of every segment, the queue of every link, and why each boundary stands."""

from __future__ import annotations

from collections.abc import Iterator

from app.compiler.build import static_node
from app.compiler.canvas import going_along
from app.compiler.plan import Plan, PlanTask

_EDGES = ("on_success", "on_failure", "on_complete", "on_timeout", "on_skip")


def render(plan: Plan) -> str:
    """The tree that `muster compile` prints, one line for each link."""
    lines = [f"workflow {plan.ref}  version {plan.version or '-'}  {len(plan.tasks)} tasks"]
    followed = {task.then for task in plan.tasks.values() if task.then}
    for task in plan.tasks.values():
        if task.parent is None and task.name not in followed:
            lines += _segment(plan, task)
    return "\n".join(lines)


def _segment(plan: Plan, first: PlanTask) -> Iterator[str]:
    if first.kind == "fanout":
        yield from _fanout(first)
    elif first.kind == "loop":
        yield from _loop(plan, first)
    elif first.kind == "block":
        yield from _block(plan, first)
    elif first.is_call:
        yield f"call  {first.name}  {first.action}@io{_role(plan, first)}"
    elif first.kind in ("engine", "own"):
        yield f"engine  {first.name}  {first.action}{_role(plan, first)}"
    else:
        yield from _line(plan, first)
    yield from _edges(plan, first)


def _line(plan: Plan, first: PlanTask) -> Iterator[str]:
    yield f"chain{_role(plan, first)}"
    at: str | None = first.name
    while at is not None:
        order = [plan.tasks[name] for name in (at, *going_along(plan, at))]
        yield f"  {_link(*order)}"
        if order[-1].then is None:
            yield f"  ends: {order[-1].boundary}"
        at = order[-1].then


def _link(task: PlanTask, *along: PlanTask) -> str:
    """The order of a task, and of those that go along in it, one after another."""
    names = ", ".join(one.name for one in (task, *along))
    return f"order({names})@{_queue(task)} | collect@results"


def _queue(task: PlanTask) -> str:
    node = static_node(task)
    return f"node.{node}" if node else f"node.<{_place(task)}>"


def _place(task: PlanTask) -> str:
    return (
        str(task.delegate_to) if isinstance(task.delegate_to, str) else f"by {next(iter(task.delegate_to))}"
    )


def _fanout(task: PlanTask) -> Iterator[str]:
    nodes = task.input.get("nodes")
    yield f"chord  {task.name}  core.distributed_shell"
    if isinstance(nodes, list | tuple):
        for node in nodes:
            yield f"  order({task.name})@node.{node} | collect@results"
    else:
        yield f"  order({task.name})@node.<each of {nodes}> | collect@results"
    if task.input.get("batch"):
        yield f"  batches: {task.input['batch']} (a chord each)"
    yield "  body: settle@control"
    yield f"  ends: {task.boundary}"


def _loop(plan: Plan, task: PlanTask) -> Iterator[str]:
    loop = task.loop or {}
    items = loop["items"]
    many = f"{len(items)} items" if isinstance(items, list | tuple) else f"each of {items}"
    batches = f", in batches of {loop['batch_size']}" if loop.get("batch_size") else ""
    window = f", {loop['concurrency']} at once" if loop.get("concurrency") else ""
    if task.runs_in_engine:
        yield f"engine  {task.name}  {task.action}  loop over {many}{batches}{window}{_role(plan, task)}"
        return
    if task.is_call:
        yield f"call  {task.name}  {task.action}@io  loop over {many}{batches}{window}{_role(plan, task)}"
        return
    yield f"{'group' if window else 'chord'}  {task.name}  {task.action}  loop over {many}{batches}{window}"
    yield f"  {_link(task)}"
    yield "  each collect claims the next unit" if window else "  body: settle@control"
    yield f"  ends: {task.boundary}"


def _block(plan: Plan, block: PlanTask) -> Iterator[str]:
    children = [plan.tasks[name] for name in block.children]
    plain = all(child.kind == "job" and not child.is_call for child in children)
    yield f"{'chord' if plain else 'group'}  {block.name}  parallel"
    for child in children:
        if child.flow is not None:
            yield f"  flow  {child.name}  on {child.flow['host']}, a call@io"
        elif child.is_call and child.kind == "job":
            yield f"  call  {child.name}  {child.action}@io"
        elif child.kind == "job":
            yield f"  {_link(child)}"
        elif child.kind == "fanout":
            yield from (f"  {line}" for line in _fanout(child))
        elif child.kind == "loop":
            yield from (f"  {line}" for line in _loop(plan, child))
        else:
            yield f"  engine  {child.name}  {child.action}"
    yield "  body: settle@control" if plain else "  then: settle when every child is over"
    yield f"  ends: {block.boundary}"


def _role(plan: Plan, task: PlanTask) -> str:
    if task.is_finally:
        return "  (finally)"
    return "  (starts)" if task.name in plan.entries else ""


def _edges(plan: Plan, first: PlanTask) -> Iterator[str]:
    task: PlanTask | None = first
    while task is not None:
        for kind in _EDGES:
            others = [target for target in getattr(task, kind) if target != task.then]
            if others:
                yield f"  {task.name} {kind} -> {', '.join(others)}"
        for when, targets in task.decision or ():
            yield f"  {task.name} decision {when or 'default'} -> {', '.join(targets)}"
        task = plan.tasks[task.then] if task.then else None
