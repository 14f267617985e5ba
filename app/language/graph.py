"""How the tasks of a workflow hang together: names, targets, cycles, entries, joins, and who comes first.

Ancestors are bitsets over the tasks' numbers, so the cost stays linear for all practical sizes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from app.language import names
from app.language.model import RESERVED_TARGETS, Task
from app.language.problems import shown
from app.language.reading import Reading, Use
from app.language.source import Node

Role = Literal["task", "child", "final"]


@dataclass(slots=True, eq=False)
class Draft:
    """A task as read, with its node, its templates and its number; its values may still be incomplete."""

    task: Task
    node: Node
    uses: list[Use]
    role: Role
    children: list[Draft] = field(default_factory=list)
    number: int = -1
    block: Draft | None = None

    @property
    def name(self) -> str:
        return self.task.name


@dataclass(slots=True)
class Edge:
    """One transition. `exit` is the way out of the task: a transition's key, or decision.<branch>."""

    exit: str
    source: Draft
    target: Draft
    node: Node


@dataclass(slots=True)
class Graph:
    """The tasks, in topological order if there is no cycle.

    `before` holds, by number, the bitset of tasks that may have run before a task; children of a block come
    with it. It is empty when there is a cycle.
    """

    drafts: list[Draft]
    by_name: dict[str, Draft]
    edges: list[Edge] = field(default_factory=list)
    order: list[Draft] = field(default_factory=list)
    before: list[int] = field(default_factory=list)

    def into(self, draft: Draft) -> list[Edge]:
        return [edge for edge in self.edges if edge.target is draft]


def numbered(top: Sequence[Draft], final: Sequence[Draft]) -> list[Draft]:
    """All drafts, children after their block, each with its number."""
    drafts: list[Draft] = []
    for draft in (*top, *final):
        drafts.append(draft)
        for child in draft.children:
            child.block = draft
            drafts.append(child)
    for number, draft in enumerate(drafts):
        draft.number = number
    return drafts


def check(r: Reading, drafts: list[Draft], root: Node) -> Graph:
    """Note every problem of the graph; gives what could be made of it."""
    graph = Graph(drafts, _names(r, drafts))
    if len(drafts) > r.limits.tasks:
        message = f"{len(drafts)} tasks in all, {r.limits.tasks} are allowed"
        r.error(root, "too-many-tasks", message, "split the workflow: one may be a task of another")
    graph.edges = [edge for draft in drafts if draft.role == "task" for edge in _edges(r, graph, draft)]
    incoming: dict[int, set[int]] = {draft.number: set() for draft in drafts}
    outgoing: dict[int, list[Edge]] = {draft.number: [] for draft in drafts}
    for edge in graph.edges:
        incoming[edge.target.number].add(edge.source.number)
        outgoing[edge.source.number].append(edge)
    _never_run(r, graph, incoming)
    if _sort(graph, incoming, outgoing):
        _ancestors(graph, incoming)
    else:
        _cycles(r, graph, incoming, outgoing)
    _joins(r, drafts, incoming)
    start = root.value.get("start")
    if start is not None:
        _start(r, graph, start, incoming, outgoing)
    elif not r.collector.failed:
        _entries(r, drafts, incoming)
    return graph


def _names(r: Reading, drafts: list[Draft]) -> dict[str, Draft]:
    by_name: dict[str, Draft] = {}
    for draft in drafts:
        if not draft.name:
            continue
        first = by_name.setdefault(draft.name, draft)
        if first is not draft:
            node, other = draft.node.value["name"], first.node.value["name"]
            message = f"a task called `{draft.name}` stands at line {other.line} already"
            r.error(node, "duplicate-name", message, "names are unique, also in blocks and under `finally`")
    return by_name


def _targets(draft: Draft) -> Iterator[tuple[str, Node]]:
    for key in names.TRANSITIONS:
        node = draft.node.value.get(key)
        if node is not None:
            yield from ((key, child) for child in _each(node))
    decision = draft.node.value.get("decision")
    if decision is None or decision.kind != "list":
        return
    for index, branch in enumerate(decision.value):
        for key in ("next", "default"):
            if branch.kind == "map" and key in branch.value:
                yield from ((f"decision.{index}", child) for child in _each(branch.value[key]))


def _each(node: Node) -> Iterator[Node]:
    children = node.value if node.kind == "list" else [node]
    # A number or `true` is read as the text that stands there.
    return (child for child in children if child.kind == "scalar" and child.value is not None)


def _edges(r: Reading, graph: Graph, draft: Draft) -> Iterator[Edge]:
    decided = draft.task.decision is not None and "on_success" in draft.node.value
    if decided:
        node = draft.node.value["on_success"]
        message = "`decision` replaces `on_success`, which is ignored here"
        r.error(
            node, "decision-and-on-success", message, "remove `on_success`", mark=node.key, level="warning"
        )
    for key, node in _targets(draft):
        target = _target(r, graph, draft, node)
        if target is not None:
            yield Edge("ignored" if decided and key == "on_success" else key, draft, target, node)


def _target(r: Reading, graph: Graph, draft: Draft, node: Node) -> Draft | None:
    if node.text in RESERVED_TARGETS:
        return None
    target = graph.by_name.get(node.text)
    if target is None:
        if "{{" not in node.text:
            known = [other.name for other in graph.drafts if other.role == "task" and other.name]
            hint = r.collector.did_you_mean(
                node.text, known, "name one of this workflow's tasks, or fail or noop"
            )
            r.error(node, "unknown-target", f"there is no task {shown(node.text)}", hint)
    elif target is draft:
        r.error(node, "self-reference", f"`{draft.name}` leads to itself", "use `retry` to try again")
    elif target.role == "final":
        r.error(
            node,
            "unknown-target",
            f"`{target.name}` stands under `finally`: it runs last anyway",
            "remove it",
        )
    elif target.block is not None:
        hint = f"lead to the block: `{target.block.name}`"
        r.error(node, "unknown-target", f"`{target.name}` is inside a parallel block", hint)
    else:
        return target
    return None


def _never_run(r: Reading, graph: Graph, incoming: dict[int, set[int]]) -> None:
    """Ignored edges are no edges; a target with no other would start by itself, which nobody meant."""
    live = {(edge.source.number, edge.target.number) for edge in graph.edges if edge.exit != "ignored"}
    for edge in graph.edges:
        if edge.exit == "ignored" and (edge.source.number, edge.target.number) not in live:
            incoming[edge.target.number].discard(edge.source.number)
            if not incoming[edge.target.number]:
                message = f"`{edge.target.name}` is reached only by an `on_success` that `decision` replaces"
                r.error(edge.node, "unreachable", message, "name it in a branch of the decision")
    graph.edges = [edge for edge in graph.edges if edge.exit != "ignored"]


def _sort(graph: Graph, incoming: dict[int, set[int]], outgoing: dict[int, list[Edge]]) -> bool:
    left = {number: len(sources) for number, sources in incoming.items()}
    ready = [draft for draft in graph.drafts if not left[draft.number]]
    for draft in ready:
        for number in dict.fromkeys(edge.target.number for edge in outgoing[draft.number]):
            if draft.number in incoming[number]:
                left[number] -= 1
                if not left[number]:
                    ready.append(graph.drafts[number])
    graph.order = ready
    return len(ready) == len(graph.drafts)


def _ancestors(graph: Graph, incoming: dict[int, set[int]]) -> None:
    before = [0] * len(graph.drafts)
    with_children = [1 << draft.number for draft in graph.drafts]
    for draft in graph.drafts:
        for child in draft.children:
            with_children[draft.number] |= 1 << child.number
    for draft in graph.order:
        for source in incoming[draft.number]:
            before[draft.number] |= before[source] | with_children[source]
    for draft in graph.drafts:
        for child in draft.children:
            before[child.number] = before[draft.number]
    seen = 0
    for draft in graph.drafts:
        if draft.role == "task":
            seen |= with_children[draft.number]
    for draft in graph.drafts:
        if draft.role == "final":
            for number in [draft.number, *(child.number for child in draft.children)]:
                before[number] = seen
            seen |= with_children[draft.number]
    graph.before = before


def _cycles(r: Reading, graph: Graph, incoming: dict[int, set[int]], outgoing: dict[int, list[Edge]]) -> None:
    sorted_out = {draft.number for draft in graph.order}
    left = {draft.number for draft in graph.drafts} - sorted_out
    while left:
        number, path = min(left), list[int]()
        # Everything left has a predecessor that is left: walking back must meet itself.
        while number not in path:
            path.append(number)
            sources = incoming[number] & left
            if not sources:
                break
            number = min(sources)
        else:
            _report_cycle(r, graph, path[path.index(number) :][::-1], outgoing)
        left -= set(path)


def _report_cycle(r: Reading, graph: Graph, ring: list[int], outgoing: dict[int, list[Edge]]) -> None:
    first = ring.index(min(ring))
    ring = ring[first:] + ring[:first]
    back = next(edge for edge in outgoing[ring[-1]] if edge.target.number == ring[0])
    named = [graph.drafts[number].name for number in ring] + [graph.drafts[ring[0]].name]
    path = " → ".join(named if len(named) <= 12 else [*named[:6], "…", *named[-5:]])
    r.error(
        back.node,
        "cycle",
        f"the tasks go in a circle: {path}",
        "take one transition out; `retry` repeats a task",
    )


def _joins(r: Reading, drafts: list[Draft], incoming: dict[int, set[int]]) -> None:
    for draft in drafts:
        join, count = draft.task.join, len(incoming[draft.number])
        if not join:
            continue
        node = draft.node.value["join"]
        if isinstance(join, int) and join > count:
            leading = "1 task leads" if count == 1 else f"{count} tasks lead"
            message = f"`join: {join}` can never be met: {leading} here"
            r.error(node, "join-too-large", message, f"at most {count}" if count else "remove it")
        elif count < 2:
            message = f"`join` has no effect: {'one task leads' if count else 'no task leads'} here"
            r.error(node, "join-without-effect", message, "remove it", level="warning")


def _start(
    r: Reading, graph: Graph, node: Node, incoming: dict[int, set[int]], outgoing: dict[int, list[Edge]]
) -> None:
    reached: set[int] = set()
    pending: list[Draft] = []
    for child in _each(node):
        draft = graph.by_name.get(child.text)
        if draft is None or draft.role != "task":
            known = [other.name for other in graph.drafts if other.role == "task" and other.name]
            hint = r.collector.did_you_mean(child.text, known, "name a task of `tasks`")
            r.error(child, "unknown-target", f"there is no task {shown(child.text)} to start with", hint)
        elif incoming[draft.number]:
            leading = graph.drafts[min(incoming[draft.number])].name
            hint = "start with tasks that nothing leads to"
            r.error(
                child, "start-not-first", f"`{draft.name}` cannot be a start: `{leading}` leads to it", hint
            )
        if draft is not None:
            pending.append(draft)
    while pending:
        draft = pending.pop()
        if draft.number not in reached:
            reached.add(draft.number)
            pending += [edge.target for edge in outgoing[draft.number]]
    if r.collector.failed:
        return
    for draft in graph.drafts:
        if draft.role == "task" and draft.number not in reached:
            hint = "add it to `start`, lead to it, or remove it"
            r.error(draft.node, "unreachable", f"nothing in `start` leads to `{draft.name}`", hint)


def _entries(r: Reading, drafts: list[Draft], incoming: dict[int, set[int]]) -> None:
    entries = [draft for draft in drafts if draft.role == "task" and not incoming[draft.number]]
    if len(entries) > 1:
        listed = ", ".join(f"`{draft.name}`" for draft in entries[:5]) + (", …" if len(entries) > 5 else "")
        hint = "if that is meant, list them under `start:`; else lead to the others by a transition"
        message = f"{len(entries)} tasks start at once, as nothing leads to them: {listed}"
        r.error(entries[1].node, "several-entries", message, hint, level="warning")
