"""A part of a workflow: what runs from one task up to another, which is not run any more.

A name of a child of a parallel block stands, as the end, for its block; as the beginning, for that child alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from app.language import handles
from app.language.model import Task, Workflow
from app.language.needs_server import Chain, Need, needs, values_needed
from app.language.problems import Collector, shown
from app.language.source import Node


@dataclass(frozen=True, slots=True)
class Part:
    """What runs. `first` start at once, `inside` are all tasks that may run, children and `finally` included.

    `goes_on` says that the part goes on to the end of the workflow, so that `finally` and `output_map` are its own.
    """

    first: tuple[str, ...]
    inside: frozenset[str]
    goes_on: bool


@dataclass(frozen=True, slots=True)
class Ends:
    """Where a part begins, "" for the first tasks, and the task that it stops before, "" for the end."""

    entry: str = ""
    exit: str = ""


_UNKNOWN: Final = {"entry": "unknown-entry-point", "exit": "unknown-exit-point"}


def take(
    collector: Collector, root: Node, workflow: Workflow, ends: Ends, given: Collection[str] = ()
) -> Part | None:
    """The part between two ends, None where there is none; notes what is wrong with it, and all in it that needs the
    server (`needs_server`).

    `root` is the workflow as written, which has been read without an error; `given` are the variables whose values
    are there already.
    """
    found = _Map(workflow).part(collector, root, ends)
    if found is None:
        return None
    for need in _needed(root, workflow, found, given):
        collector.add(need.code, need.message, need.node.mark, path=need.node.pointer, hint=need.hint)
    return None if collector.failed else found


class _Map:
    """The tasks of a workflow and the ways between them."""

    def __init__(self, workflow: Workflow) -> None:
        self.workflow = workflow
        self.top = {task.name: task for task in workflow.tasks}
        self.block_of = {child.name: task.name for task in workflow.tasks for child in task.tasks}
        self.final_block_of = {child.name: task.name for task in workflow.finally_ for child in task.tasks}
        self.final = {task.name for task in workflow.finally_}

    def part(self, collector: Collector, root: Node, ends: Ends) -> Part | None:
        fine = self._is_known(collector, root, ends.entry, "entry")
        if not self._is_known(collector, root, ends.exit, "exit") or not fine:
            return None
        stop = self.block_of.get(ends.exit, ends.exit)
        alone = self.block_of | self.final_block_of
        first = (alone.get(ends.entry, ends.entry),) if ends.entry else self._entries()
        if stop and (stop in first or stop not in self._behind(first)):
            where = f"`{ends.entry}`" if ends.entry else "any first task"
            message = f"no way leads from {where} to `{ends.exit}`, where the part is to stop"
            place = _place(root, stop)
            collector.add(
                "unreachable-exit-point", message, place.mark, path=place.pointer, hint="name a later task"
            )
            return None
        if ends.entry in alone:
            return Part((ends.entry,), frozenset({ends.entry}), goes_on=False)
        inside = self._behind(first, without=stop) | {*first}
        inside |= {child.name for name in inside for child in self.top[name].tasks}
        if not stop:
            inside |= {one.name for task in self.workflow.finally_ for one in (task, *task.tasks)}
        return Part(first, frozenset(inside), goes_on=not stop)

    def _is_known(self, collector: Collector, root: Node, name: str, which: str) -> bool:
        if not name or name in self.top or name in self.block_of:
            return True
        if name in self.final_block_of and which == "entry":
            return True
        if name in self.final or name in self.final_block_of:
            hint = "the tasks of `finally` run by themselves, at the end"
        else:
            known = (*self.top, *self.block_of)
            hint = collector.did_you_mean(name[:100], known, "name one of this workflow's tasks")
        node = root.value["tasks"]
        message = f"there is no task {shown(name)} to be the {which} point"
        collector.add(_UNKNOWN[which], message, node.key or node.mark, path=node.pointer, hint=hint)
        return False

    def _entries(self) -> tuple[str, ...]:
        if self.workflow.start is not None:
            return self.workflow.start
        reached = {target for task in self.top.values() for target in targets(task)}
        return tuple(name for name in self.top if name not in reached)

    def _behind(self, names: Iterable[str], without: str = "") -> set[str]:
        """What ways lead to from these tasks, and not by way of `without`."""
        found: set[str] = set()
        ahead = [target for name in names if name in self.top for target in targets(self.top[name])]
        while ahead:
            name = ahead.pop()
            if name in self.top and name not in found and name != without:
                found.add(name)
                ahead.extend(targets(self.top[name]))
        return found


def targets(task: Task) -> list[str]:
    """The names that the transitions and the decision of a task lead to, reserved ones too."""
    edges = (task.on_success, task.on_failure, task.on_complete, task.on_timeout, task.on_skip)
    decided = [branch.next for branch in task.decision or ()]
    return [name for names in (*edges, *decided) for name in names]


def _needed(root: Node, workflow: Workflow, part: Part, given: Collection[str]) -> Iterable[Need]:
    secret = handles.secret_chains(workflow.parameters, workflow.secret_config)
    for task in (*workflow.tasks, *workflow.finally_):
        node = _place(root, task.name)
        if task.name in part.inside:
            yield from needs(task, node, [root], secret)
        for child in task.tasks:
            if child.name in part.inside:
                yield from needs(child, _place(node, child.name), [node, root], secret)
    yield from _of_all(root, part, secret, given)


def _of_all(root: Node, part: Part, secret: Mapping[Chain, str], given: Collection[str]) -> Iterable[Need]:
    """What stands beside the tasks: the first values of variables that are not given, and the output."""
    variables = root.value.get("vars")
    for name, node in variables.value.items() if variables is not None else ():
        if name not in given:
            yield from values_needed(node, secret)
    if part.goes_on and "output_map" in root.value:
        yield from values_needed(root.value["output_map"], secret)


def _place(owner: Node, name: str) -> Node:
    """A task as written, by its name; `owner` is the workflow or the block that it stands in."""
    for key in ("tasks", "finally"):
        tasks: list[Node] = owner.value[key].value if key in owner.value else []
        for node in tasks:
            if node.value["name"].text == name:
                return node
    raise LookupError(name)
