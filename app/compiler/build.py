"""Workflow → Plan: edges counted, placement inherited, shell text bound, lines found.

Pure. A workflow that `language.parse` accepted always compiles.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from typing import Any, NamedTuple

from app.compiler import spread
from app.compiler.plan import (
    CALL_ACTIONS,
    ENGINE_ACTIONS,
    FANOUT_ACTION,
    JOB_ACTIONS,
    LOCAL,
    Plan,
    PlanTask,
)
from app.language import expressions, handles, shelltext
from app.language.known import action_to_json, digest_of, parameter_to_json, script_to_json
from app.language.model import RESERVED_TARGETS, Task, Workflow
from app.language.uncollected import uncollected

LINE_CAP = 25
"""Tasks in one chain at the most: every message carries the rest of its chain, so bytes grow with the square."""

ORDER_CAP = 16
"""Tasks that travel in one order at the most: so many may begin on a node before it hears of a pause or a cancel."""

_TEXT_KEYS = ("command", "script")

_SHOWN = {"block": "a parallel block", "loop": "a loop"}


@uncollected()
def build(workflow: Workflow, *, flows: bool = True) -> Plan:
    """The plan of a valid workflow. Without `flows` every child of a block runs as in any other block: so it is where
    a flow itself is run, and where nothing leaves the machine."""
    tasks: dict[str, PlanTask] = {}
    around = _Around(workflow.delegate_to, workflow.workspace)
    secret = handles.secret_chains(workflow.parameters, workflow.secret_config)
    for task in workflow.tasks:
        _add(tasks, task, around, secret)
    for task in workflow.finally_:
        _add(tasks, task, around, secret, is_finally=True)
    spread.lay_out(tasks, workflow, wanted=flows)
    _count_incoming(tasks)
    _draw_lines(tasks)
    _draw_orders(tasks, {action.ref for action in workflow.actions if action.output is not None})
    output_refs = _task_refs([workflow.output_map or {}])
    whole = [workflow.output_map or {}, [value for _, value in workflow.vars]]
    whole += [
        _templates(one) for task in (*workflow.tasks, *workflow.finally_) for one in (task, *task.tasks)
    ]
    return Plan(
        ref=workflow.ref,
        label=workflow.label,
        version=workflow.version,
        tasks=tasks,
        vars=workflow.vars,
        parameters=tuple(parameter_to_json(parameter) for parameter in workflow.parameters),
        start=workflow.start,
        finally_=tuple(task.name for task in workflow.finally_),
        fail_fast=workflow.fail_fast,
        output_map=workflow.output_map,
        output_refs=output_refs,
        output=workflow.output,
        vars_kv=_kv([value for _, value in workflow.vars]),
        output_kv=_kv([workflow.output_map or {}]),
        actions={
            action.ref: {**action_to_json(action), "revision": action.revision, "digest": digest_of(action)}
            for action in workflow.actions
        },
        scripts={ref: script_to_json(script) for ref, script in sorted(workflow.scripts.items())},
        config_refs=_config_refs(whole),
        secret_config=workflow.secret_config,
        remote=spread.remote_of(tasks, workflow),
    )


class _Around(NamedTuple):
    """What a task has that does not say it itself: the innermost wins."""

    place: Any
    workspace: Mapping[str, Any] | None
    merge: str = ""

    def inside(self, task: Task) -> _Around:
        place = task.delegate_to if task.delegate_to is not None else self.place
        return _Around(place, _workspace(task.workspace, self.workspace), task.merge or self.merge)


def _workspace(own: Mapping[str, Any] | None, around: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """What is said of files here and around it: one word changes the direction, and keeps the patterns."""
    return around if own is None else {**(around or {}), **own}


def _add(
    tasks: dict[str, PlanTask],
    task: Task,
    around: _Around,
    secret: Mapping[tuple[str, ...], str],
    *,
    parent: str | None = None,
    is_finally: bool = False,
) -> None:
    own = around.inside(task)
    place = own.place
    given, literal, bound = _bind(task)
    out = tuple(dict.fromkeys(t for t in _targets(task) if t not in RESERVED_TARGETS))
    templates = _templates(task)
    tasks[task.name] = PlanTask(
        name=task.name,
        index=len(tasks),
        kind=_kind(task),
        action=task.action,
        input=given,
        literal=literal,
        bound=bound,
        when=task.when,
        delay=task.delay,
        loop=asdict(task.loop) if task.loop else None,
        retry=asdict(task.retry) if task.retry else None,
        timeout=task.timeout,
        queue_timeout=task.queue_timeout,
        idempotent=task.idempotent,
        on_unknown=task.on_unknown,
        fail_fast=task.fail_fast,
        join=task.join,
        on_success=task.on_success,
        on_failure=task.on_failure,
        on_complete=task.on_complete,
        on_timeout=task.on_timeout,
        on_skip=task.on_skip,
        decision=None
        if task.decision is None
        else tuple((branch.when, branch.next) for branch in task.decision),
        publish=task.publish,
        publish_on_failure=task.publish_on_failure,
        delegate_to=place if place is not None else LOCAL,
        parent=parent,
        children=tuple(child.name for child in task.tasks),
        is_finally=is_finally,
        out=out,
        refs=_task_refs(templates),
        var_refs=_var_refs(templates),
        kv=_kv([*templates, bound]),
        secrets=_secrets([{key: value for key, value in given.items() if key not in literal}, bound], secret),
        line=task.mark.line,
        scripted=task.scripted,
    )
    if tasks[task.name].runs_on_nodes:
        tasks[task.name] = replace(tasks[task.name], **_files(task, own))
    for child in task.tasks:
        _add(tasks, child, own, secret, parent=task.name, is_finally=is_finally)


def _files(task: Task, own: _Around) -> dict[str, Any]:
    """What a task that runs on nodes has of `workspace`, `artifacts` and `merge`."""
    wanted = own.workspace if own.workspace and own.workspace["mode"] != "none" else None
    found: dict[str, Any] = {"workspace": wanted, "artifacts": task.artifacts}
    if own.merge == "per_node" and wanted:
        found["merge"] = own.merge
    return found


def _kind(task: Task) -> str:
    if task.type == "parallel":
        return "block"
    if task.loop is not None:
        return "loop"
    if task.action == FANOUT_ACTION:
        return "fanout"
    if task.action in ENGINE_ACTIONS:
        return "engine"
    return "job" if task.scripted or task.action in JOB_ACTIONS | CALL_ACTIONS else "own"


def _bind(task: Task) -> tuple[dict[str, Any], tuple[str, ...], dict[str, str]]:
    """Shell text with its templates replaced by references to variables.

    Returns the input, the keys that are shell text (never rendered), and what each variable holds. A text that is
    one template as a whole stays a template: the caller decides what runs, and the loader has warned.
    """
    given = dict(task.input)
    if task.type == "workflow" or task.scripted:
        return given, (), {}
    literal: list[str] = []
    bound: dict[str, str] = {}
    for key in _TEXT_KEYS:
        text = given.get(key)
        if not isinstance(text, str):
            continue
        if expressions.has_template(text):
            result = shelltext.bind(text, str(given.get("shell", "sh")))
            if result.whole:
                continue
            given[key] = result.text
            bound.update(result.bindings)
        literal.append(key)
    return given, tuple(literal), bound


def _targets(task: Task) -> Iterator[str]:
    yield from task.on_success
    yield from task.on_failure
    yield from task.on_complete
    yield from task.on_timeout
    yield from task.on_skip
    for branch in task.decision or ():
        yield from branch.next


def _templates(task: Task) -> list[Any]:
    retry = asdict(task.retry) if task.retry else {}
    branches = [branch.when for branch in task.decision or ()]
    return [
        task.input,
        task.when,
        task.delay,
        asdict(task.loop) if task.loop else None,
        task.timeout,
        task.queue_timeout,
        retry,
        branches,
        task.delegate_to,
        [value for _, value in (*task.publish, *task.publish_on_failure)],
    ]


def _references(value: Any) -> Iterator[tuple[str, ...]]:
    for text in _texts(value):
        yield from expressions.references(text)


def _texts(value: Any) -> Iterator[str]:
    """The texts with templates in a value."""
    if isinstance(value, str):
        if expressions.has_template(value):
            yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _texts(one)
    elif isinstance(value, Iterable):
        for one in value:
            yield from _texts(one)


def _task_refs(values: Iterable[Any]) -> tuple[str, ...]:
    chains = (chain for value in values for chain in _references(value))
    return tuple(sorted({chain[1] for chain in chains if chain[0] == "task" and len(chain) > 1}))


def _var_refs(values: Iterable[Any]) -> tuple[str, ...]:
    """Names of the variables read; "*" where the whole map is (`{{ vars }}`)."""
    chains = (chain for value in values for chain in _references(value))
    return tuple(sorted({chain[1] if len(chain) > 1 else "*" for chain in chains if chain[0] == "vars"}))


def _kv(values: Iterable[Any]) -> tuple[str, ...]:
    """The keys that are read with `kv.get`."""
    chains = (chain for value in values for chain in _references(value))
    return tuple(sorted({chain[2] for chain in chains if chain[:2] == ("kv", "get")}))


def _secrets(values: Iterable[Any], secret: Mapping[tuple[str, ...], str]) -> tuple[str, ...]:
    """The references of the secrets that are named."""
    texts = (text for value in values for text in _texts(value))
    return tuple(sorted({one for text in texts for one in handles.named(text, secret)[0]}))


def _config_refs(values: Iterable[Any]) -> tuple[str, ...]:
    chains = (chain for value in values for chain in _references(value))
    return tuple(sorted({chain[2] if chain[2:] else "*" for chain in chains if chain[0] == "pack"}))


def _count_incoming(tasks: dict[str, PlanTask]) -> None:
    counts: dict[str, int] = dict.fromkeys(tasks, 0)
    for task in tasks.values():
        for target in task.out:
            counts[target] += 1
    for name, count in counts.items():
        if count:
            tasks[name] = replace(tasks[name], incoming=count)


def _draw_lines(tasks: dict[str, PlanTask]) -> None:
    """Decide for each task whether the next one travels in the same chain, and say why not."""
    for name, task in list(tasks.items()):
        following, boundary = _next_in_line(tasks, task)
        tasks[name] = replace(tasks[name], then=following, boundary=boundary)
    _cap_lines(tasks)


def _next_in_line(tasks: Mapping[str, PlanTask], task: PlanTask) -> tuple[str | None, str]:
    """The name of the next link, or None and the reason (design: what breaks a line at compile time)."""
    own = _own_boundary(task)
    if own:
        return None, own
    targets = tuple(dict.fromkeys((*task.on_success, *task.on_complete)))
    real = [target for target in targets if target not in RESERVED_TARGETS]
    if not real:
        return None, "last of its line"
    if len(targets) > 1:
        return None, "fork: " + ", ".join(targets)
    following = tasks[real[0]]
    reason = _entry_boundary(following)
    return (None, reason) if reason else (following.name, "")


def _own_boundary(task: PlanTask) -> str:
    if task.kind == "fanout":
        return "fan-out: a chord with its own settle"
    if task.kind == "loop":
        return "loop: a chord with its own settle, or a group that claims the next unit"
    if task.kind == "block":
        return "parallel block: a chord with its own settle"
    if task.kind in ("engine", "own"):
        return f"{task.action} runs in the engine"
    if task.is_call and task.flow is None:
        return f"{task.action} is a call from the control side"
    if task.parent:
        return f"child of the block {task.parent}"
    if task.is_finally:
        return "finally: runs after everything else, in order"
    if task.decision is not None:
        return "decision"
    return ""


def _entry_boundary(task: PlanTask) -> str:
    """Why `task` cannot be the next link of a chain, or ""."""
    if task.kind != "job" or task.is_call:
        return f"{task.name} is {_SHOWN.get(task.kind, task.action)}"
    if task.incoming > 1:
        return f"{task.name} has {task.incoming} incoming edges"
    if task.when is not None:
        return f"{task.name} has `when`"
    if task.delay is not None:
        return f"{task.name} has `delay`"
    if static_node(task) is None:
        return f"the node of {task.name} is known only when it starts"
    return ""


def static_node(task: PlanTask) -> str | None:
    """The node that the text of the workflow names, None where a template or labels decide later."""
    place = task.delegate_to
    if isinstance(place, Mapping):
        place = place.get("node")
    if isinstance(place, str) and not expressions.has_template(place):
        return place
    return None


def _heads(tasks: Mapping[str, PlanTask]) -> list[str]:
    """The tasks that lines begin with."""
    followed = {task.then for task in tasks.values() if task.then}
    return [name for name in tasks if name not in followed]


def _cap_lines(tasks: dict[str, PlanTask]) -> None:
    for name in _heads(tasks):
        length, at = 1, name
        while following := tasks[at].then:
            length += 1
            if length > LINE_CAP:
                tasks[at] = replace(tasks[at], then=None, boundary=f"a chain holds {LINE_CAP} tasks at most")
                length = 1
            at = following


def _draw_orders(tasks: dict[str, PlanTask], promising: Collection[str]) -> None:
    """Decide which links of a line go along in the order of the link before them: where nobody can tell.

    `promising` are the actions whose result must fit a schema, so that control may find that they failed after all.
    """
    for name in _heads(tasks):
        length, at = 1, name
        while following := tasks[at].then:
            along = length < ORDER_CAP and _may_go_along(tasks[at], tasks[following], promising)
            tasks[following] = replace(tasks[following], along=at if along else "")
            length = length + 1 if along else 1
            at = following


def _may_go_along(before: PlanTask, task: PlanTask, promising: Collection[str]) -> bool:
    """Whether `task` may begin on the node of the task before it as soon as that has succeeded there.

    Its input must be known beforehand, and nothing may stand between the two that only control can do.
    """
    plain = not (before.has_files or task.has_files or before.secrets or task.secrets)
    known = not (task.refs or task.var_refs or task.kv)
    unseen = not before.publish and before.action not in promising
    one_edge_does = task.join in ("", "all", "any", 1)
    return plain and known and unseen and one_edge_does and static_node(before) == static_node(task)
