"""Text to `Workflow`: reads every key, collects every problem, never stops at the first.

What a key may hold stands in `grammar`; here is what takes more than one key to decide. `graph` checks how
tasks hang together, `scopes` what templates may refer to, `races` who publishes what.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from app.language import (
    action_input,
    declarations,
    grammar,
    graph,
    handles,
    names,
    output,
    parallel,
    races,
    saved_scripts,
    scopes,
    source,
    workspace_rules,
)
from app.language.fields import Anything, MapOf, Table
from app.language.graph import Draft, Role
from app.language.known import NOTHING, Known
from app.language.limits import DEFAULT, TextLimits
from app.language.model import RESERVED_TARGETS, Action, Loop, Retry, Task, Workflow
from app.language.problems import InvalidWorkflow, Problem, TooManyProblems, shown
from app.language.reading import BAD, Reading
from app.language.source import Node
from app.language.uncollected import uncollected


@dataclass(frozen=True, slots=True)
class Loaded:
    """The workflow (None iff there is any error) and every problem by place, warnings included."""

    workflow: Workflow | None
    problems: tuple[Problem, ...]


def load(
    text: str | bytes,
    file: str = "<workflow>",
    *,
    runnable: bool = True,
    known: Known = NOTHING,
    limits: TextLimits = DEFAULT,
) -> Loaded:
    """Read a workflow; `file` is for messages only, `known` what there is beside it.

    With `runnable` what the engine cannot run yet is refused by name; without, the grammar alone is checked.
    Never raises for any text.
    """
    workflow = None
    with uncollected():
        root, collector = source.read(text, file)
        if root is not None:
            try:
                workflow = _workflow(Reading(collector, runnable, known, limits), root)
            except TooManyProblems:
                workflow = None
    if workflow is not None and parallel.has_flows(workflow):
        workflow = replace(workflow, text_digest=parallel.digest_of(text))
    return Loaded(None if collector.failed else workflow, collector.sorted())


def load_or_raise(
    text: str | bytes,
    file: str = "<workflow>",
    *,
    runnable: bool = True,
    known: Known = NOTHING,
    limits: TextLimits = DEFAULT,
) -> Workflow:
    """Read a workflow; raises InvalidWorkflow with every problem if there is an error."""
    loaded = load(text, file, runnable=runnable, known=known, limits=limits)
    if loaded.workflow is None:
        raise InvalidWorkflow(loaded.problems)
    return loaded.workflow


def within(r: Reading, node: Node) -> Workflow | None:
    """Read a workflow that is part of a larger text; problems are noted in `r`. Raises TooManyProblems."""
    found = _workflow(r, node)
    return None if r.collector.failed else found


def _workflow(r: Reading, root: Node) -> Workflow | None:
    values = grammar.WORKFLOW.read(r, root)
    if values is BAD:
        return None
    uses, r.uses = r.uses, []
    declared = declarations.read(r, values.get("parameters"))
    top = _tasks(r, values.get("tasks"), "task", most=r.limits.tasks)
    final = _tasks(r, values.get("finally"), "final", most=r.limits.tasks)
    drafts = graph.numbered(top, final)
    found = graph.check(r, drafts, root)
    scopes.check(r, found, scopes.Known(root, declared, uses, values.get("ref", names.INLINE_REF)))
    races.check(r, found)
    _refuse_self_call(r, drafts, values.get("ref", ""))
    output.check(r, root, values.get("output"), values.get("output_map"))
    blocks = parallel.read(r, root, values)
    pack = values.get("ref", "").partition(".")[0]
    parallel.check(r, drafts, blocks, root, handles.secret_chains(declared, r.known.secret_config(pack)))
    named = {draft.node.value["action"].text for draft in drafts if "action" in draft.node.value}
    return Workflow(
        ref=values.get("ref", names.INLINE_REF),
        label=values.get("label", ""),
        description=values.get("description", ""),
        version=values.get("version", "1"),
        tags=values.get("tags", ()),
        parameters=declared,
        output=values.get("output"),
        vars=tuple(values.get("vars", {}).items()),
        tasks=tuple(draft.task for draft in top),
        start=values.get("start"),
        finally_=tuple(draft.task for draft in final),
        fail_fast=values.get("fail_fast", False),
        delegate_to=values.get("delegate_to"),
        workspace=values.get("workspace"),
        output_map=values.get("output_map"),
        scripts={
            ref: r.known.scripts[ref]
            for draft in drafts
            if draft.task.action.startswith("core.")
            and (ref := str(draft.task.input.get("script_ref"))) in r.known.scripts
        },
        actions=tuple(r.known.actions[ref] for ref in sorted(named & r.known.actions.keys())),
        secret_config=r.known.secret_config(pack),
        parallel=blocks,
    )


def _refuse_self_call(r: Reading, drafts: Sequence[graph.Draft], ref: str) -> None:
    for draft in drafts:
        if ref and draft.task.type == "workflow" and draft.task.action == ref:
            hint = "a loop (`with_items`) or `retry` repeats a task"
            r.error(draft.node.value["action"], "self-call", f"{ref} calls itself", hint)


def _tasks(r: Reading, node: Node | None, role: Role, *, most: int, owner: str = "") -> list[Draft]:
    if node is None:
        return []
    if node.kind != "list":
        r.wrong(node, "a list of tasks", "start each one with `- name: …`")
        return []
    if not node.value and role != "final":
        r.error(node, "out-of-range", f"{owner or 'a workflow'} needs at least one task")
    if len(node.value) > most:
        hint = "split the workflow: one may be a task of another"
        r.error(node, "too-many-tasks", f"{len(node.value)} tasks, {most} are allowed", hint)
        return []
    return [draft for child in node.value if (draft := _task(r, child, role)) is not None]


_TABLES: dict[Role, Table] = {"task": grammar.TASK, "child": grammar.CHILD, "final": grammar.FINAL}


def _task(r: Reading, node: Node, role: Role) -> Draft | None:
    r.uses = []
    values = _TABLES[role].read(r, node)
    if values is BAD:
        return None
    name = values.get("name", "")
    if name in RESERVED_TARGETS:
        hint = f"`{name}` is a target of transitions, choose another name"
        r.error(node.value["name"], "reserved-name", f"a task cannot be called `{name}`", hint)
    kind, action = _kind(r, node, values)
    given: Mapping[str, Any] = {}
    packed = r.known.actions.get(values.get("action", ""))
    if action:
        given = _input(r, node, action, values.get("input"))
    if packed is not None:
        given, values = _with_defaults(packed, given, values)
    saved = r.known.scripts.get(str(given.get("script_ref"))) if action.startswith("core.") else None
    given, values = saved_scripts.with_own(saved, action, given, values)
    uses, r.uses = r.uses, []
    children: list[Draft] = []
    if kind == "parallel" and role == "child":
        r.error(
            node.value["type"], "nested-block", "blocks do not nest", "put the children into the outer block"
        )
    elif kind == "parallel" and "tasks" in values:
        children = _tasks(r, values["tasks"], "child", most=names.MOST_CHILDREN, owner="a parallel block")
    scripted = packed is not None and packed.runner != "workflow" and action == packed.ref
    _combinations(r, node, kind)
    workspace_rules.check(r, node, kind, action, scripted=scripted, is_child=role == "child")
    plain = {key: values[key] for key in _SAME if key in values}
    edges: dict[str, Any] = {
        key: tuple(dict.fromkeys(values[key])) for key in names.TRANSITIONS if key in values
    }
    task = Task(
        **{"name": "", **plain},
        **edges,
        type=kind,
        action=action,
        input=given,
        loop=_loop(values),
        retry=Retry(**values["retry"]) if "retry" in values else None,
        tasks=tuple(child.task for child in children),
        mark=node.mark,
        scripted=scripted,
    )
    return Draft(task, node, uses, role, children)


def _with_defaults(
    action: Action, given: Mapping[str, Any], values: Mapping[str, Any]
) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """What an action of a pack says where the task does not. A script's parameters are bound when it starts."""
    own = {"timeout": action.timeout, "idempotent": action.idempotent}
    values = {**{key: value for key, value in own.items() if value}, **values}
    if action.runner == "workflow":
        given = {**{one.name: one.default for one in action.parameters if one.has_default}, **given}
    return given, values


_SAME = (
    "name",
    "description",
    "when",
    "delay",
    "timeout",
    "queue_timeout",
    "idempotent",
    "on_unknown",
    "fail_fast",
    "join",
    "publish",
    "publish_on_failure",
    "decision",
    "delegate_to",
    "workspace",
    "artifacts",
    "merge",
    "strategy",
)


def _loop(values: Mapping[str, Any]) -> Loop | None:
    if "with_items" not in values:
        return None
    return Loop(
        values["with_items"], values.get("batch_size"), values.get("concurrency"), values.get("tolerate", 0)
    )


def _kind(r: Reading, node: Node, values: Mapping[str, Any]) -> tuple[Any, str]:
    """The task's type and action; the action is "" if there is none whose input could be read."""
    kind, action = values.get("type", "action"), values.get("action", "")
    if "type" in node.value and "type" not in values:
        return "action", ""
    if kind == "parallel":
        _block(r, node)
        return kind, ""
    if "tasks" in node.value:
        child = node.value["tasks"]
        r.error(
            child,
            "unknown-key",
            "only a parallel block has `tasks`",
            "write `type: parallel`",
            mark=child.key,
        )
    if "strategy" in node.value and "strategy" in values:
        child = node.value["strategy"]
        message = "only a parallel block has `strategy`"
        r.error(child, "unknown-key", message, "remove it", mark=child.key)
    if kind == "distributed_shell":
        if action not in ("", "core.distributed_shell"):
            hint = "remove `action` or `type`"
            r.error(node.value["action"], "bad-choice", f"`type: {kind}` runs core.distributed_shell", hint)
            return kind, ""
        return kind, "core.distributed_shell"
    if "action" not in node.value:
        if "tasks" not in node.value:
            r.error(node, "missing-key", "a task needs `action`", "such as `action: core.shell`")
        return kind, ""
    if not action:
        return kind, ""
    return _known_action(r, node.value["action"], kind, action)


def _known_action(r: Reading, node: Node, kind: str, action: str) -> tuple[str, str]:
    if action in r.known.broken:
        return kind, ""
    core = action.startswith("core.")
    packed = r.known.actions.get(action)
    if packed is not None and packed.runner == "workflow":
        return "workflow", packed.calls
    if kind == "workflow":
        if core or packed is not None:
            r.error(node, "bad-choice", f"{action} is no workflow", "remove `type: workflow`")
            return kind, ""
        return kind, action
    if packed is not None:
        return kind, action
    if core and action not in grammar.INPUTS:
        hint = r.collector.did_you_mean(action, grammar.INPUTS, f"known: {', '.join(grammar.INPUTS)}")
        r.error(node, "unknown-action", f"there is no action {shown(action)}", hint)
        return kind, ""
    if not core:
        return _called(r, node, action)
    return "distributed_shell" if action == "core.distributed_shell" else kind, action


def _called(r: Reading, node: Node, action: str) -> tuple[str, str]:
    """What is neither of `core` nor a known action of a pack can only be a workflow that is stored."""
    if action in r.known.workflows:
        return "workflow", action
    if r.known.complete or action.partition(".")[0] in r.known.configs:
        hint = r.collector.did_you_mean(
            action,
            r.known.references,
            f"register the pack {action.partition('.')[0]} with it, or store the workflow",
        )
        r.error(node, "unknown-action", f"there is no action and no workflow {shown(action)}", hint)
        return "workflow", ""
    if not r.runnable:
        return "workflow", action
    hint = (
        "name the folder with its pack (--packs DIR), or write `type: workflow` if it is one that is stored"
    )
    message = f"nothing here tells what {shown(action)} is: taken for a stored workflow"
    r.error(node, "unchecked-action", message, hint, level="warning")
    return "workflow", action


def _block(r: Reading, node: Node) -> None:
    if "tasks" not in node.value:
        r.error(node, "missing-key", "a parallel block needs `tasks`", "list its children under `tasks:`")
    for key in grammar.NOT_ON_A_BLOCK:
        if (child := node.value.get(key)) is not None:
            message = f"a parallel block has no `{key}`"
            r.error(child, "unknown-key", message, "put it on the children", mark=child.key)


def _combinations(r: Reading, node: Node, kind: str) -> None:
    loop = "with_items" in node.value
    for key in ("batch_size", "concurrency", "tolerate"):
        child = node.value.get(key)
        if child is not None and not loop and kind != "parallel":
            hint = "add `with_items`, or remove it"
            r.error(child, "missing-key", f"`{key}` needs `with_items` beside it", hint, mark=child.key)
    if loop and kind == "distributed_shell":
        message = "a fan-out cannot be a loop"
        hint = (
            "list the machines in `nodes`, or put the fan-out into a workflow of its own and loop over that"
        )
        r.error(node.value["with_items"], "bad-combination", message, hint, mark=node.value["with_items"].key)
    child = node.value.get("fail_fast")
    if child is not None and not loop and kind not in ("parallel", "distributed_shell"):
        message = "`fail_fast` has no effect on a single task"
        hint = "it is for parallel blocks and loops, or for the whole workflow"
        r.error(child, "no-effect", message, hint, mark=child.key, level="warning")


def _input(r: Reading, node: Node, action: str, given: Node | None) -> Mapping[str, Any]:
    if given is None:
        # What a required key is missed in: it stands where the action is named.
        at = node.value.get("action", node)
        given = Node("map", at.line, at.column, {}, parent=node, step="input")
    packed = r.known.actions.get(node.value["action"].text) if "action" in node.value else None
    table = grammar.INPUTS.get(action)
    if packed is not None and (packed.parameters or packed.runner != "workflow"):
        table = action_input.table_of(packed)
    r.item = True
    values = (table or MapOf(Anything())).read(r, given)
    r.item = False
    return {} if values is BAD else cast(Mapping[str, Any], _lists(values))


def _lists(value: Any) -> Any:
    """Tuples become lists, so that an input is the JSON value that it will be sent as."""
    if isinstance(value, dict):
        return {key: _lists(item) for key, item in value.items()}
    return [_lists(item) for item in value] if isinstance(value, (list, tuple)) else value
