"""The text of a test file to a suite: every problem with its place, those of the workflow in its own file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from app.compiler.build import build
from app.compiler.plan import ASK_ACTIONS, ENGINE_ACTIONS, LOCAL, Plan, PlanTask
from app.engine.state import Node as Machine
from app.errors import InvalidInput
from app.language import parse
from app.language.known import NOTHING, Known
from app.language.model import Workflow
from app.language.parameters import accepts, bind, wanted
from app.language.problems import Problem, TooManyProblems, shown
from app.language.reading import BAD, Reading
from app.language.source import Node, read
from app.marks import PARAMETER, mark
from app.rehearse.grammar import SUITE
from app.rehearse.model import Answer, Case, ChildEnd, Intervention, Mock, Outcome, Suite

Opener = Callable[[str], bytes]
"""The bytes of the file with this path, as the test file writes it. Raises InvalidInput where it cannot be read."""

_SHELLS = ("bash", "sh", "python")
_ANSWERS_TO = {"core.approval": ("approve", "reject", "expire"), "core.inquiry": ("answer", "expire")}


@dataclass(frozen=True, slots=True)
class Loaded:
    """`suite` is None where there is an error. `problems` are by place; warnings included."""

    suite: Suite | None
    problems: tuple[Problem, ...]


def load(
    text: str | bytes, file: str, opened: Opener, *, runnable: bool = True, known: Known = NOTHING
) -> Loaded:
    """Read a test file and the workflow that it names. `file` is for messages, the rest as in `parse.load`.

    Never raises for any text.
    """
    root, collector = read(text, file)
    r = Reading(collector, runnable, known)
    foreign: tuple[Problem, ...] = ()
    suite = None
    if root is not None:
        try:
            values = SUITE.read(r, root)
            workflow, foreign = _workflow(r, {} if values is BAD else values, opened)
            if workflow is not None and not collector.failed:
                suite = _suite(r, root, values, workflow)
        except TooManyProblems:
            suite = None
    return Loaded(None if collector.failed else suite, (*collector.sorted(), *foreign))


def _workflow(
    r: Reading, values: Mapping[str, Any], opened: Opener
) -> tuple[Workflow | None, tuple[Problem, ...]]:
    """The workflow and the problems of its own file."""
    node = values.get("workflow")
    if node is None:
        return None, ()
    if node.kind == "map":
        return parse.within(Reading(r.collector, r.runnable, r.known), node), ()
    if node.kind != "scalar" or not isinstance(node.value, str) or not node.value:
        r.wrong(node, "the path of a workflow file, or a workflow")
        return None, ()
    try:
        text = opened(node.value)
    except InvalidInput as problem:
        r.error(node, "bad-value", problem.message, "the path starts at the directory of this file")
        return None, ()
    loaded = parse.load(text, node.value, runnable=r.runnable, known=r.known)
    return loaded.workflow, () if loaded.workflow else loaded.problems


def _suite(r: Reading, root: Node, values: Mapping[str, Any], workflow: Workflow) -> Suite:
    plan = build(workflow, flows=False)
    check = _Check(r, plan)
    cases: list[Case] = []
    seen: set[str] = set()
    for node, test in zip(root.value["tests"].value, values["tests"], strict=True):
        if test["name"] in seen:
            r.error(node.value["name"], "duplicate-name", f"there are two tests named {shown(test['name'])}")
        seen.add(test["name"])
        check.test(node, test)
        cases.append(
            Case(
                name=test["name"],
                line=node.line,
                parameters=_bound(r, node, workflow, test.get("parameters", {})),
                kv={**values.get("kv", {}), **test.get("kv", {})},
                secrets=frozenset((*values.get("secrets", ()), *test.get("secrets", ()))),
                config=_config(r, node, workflow, {**values.get("config", {}), **test.get("config", {})}),
                fleet=_fleet(test.get("fleet", values.get("fleet", {}))),
                outcomes={task: _mock(one) for task, one in test.get("outcomes", {}).items()},
                answers={
                    task: tuple(Answer(**one) for one in many)
                    for task, many in test.get("answers", {}).items()
                },
                children={
                    task: tuple(ChildEnd(**one) for one in many)
                    for task, many in test.get("children", {}).items()
                },
                at=tuple(Intervention(one["do"], **one["when"]) for one in test.get("at", ())),
                strict=test.get("strict", values.get("strict", False)),
                expect=test["expect"],
            )
        )
    return Suite(plan, tuple(cases))


def _mock(values: Mapping[str, Any]) -> Mock:
    others = values.get("others")
    units = {name: _outcomes(many) for name, many in values.get("units", {}).items()}
    return Mock(None if others is None else _outcomes(others), units)


def _outcomes(many: Iterable[Mapping[str, Any]]) -> tuple[Outcome, ...]:
    return tuple(Outcome(**one) for one in many)


def _fleet(values: Mapping[str, Mapping[str, Any]]) -> dict[str, Machine]:
    return {LOCAL: Machine(LOCAL, shells=_SHELLS)} | {
        name: Machine(name, **{**one, "shells": tuple(one.get("shells", _SHELLS))})
        for name, one in values.items()
    }


def _bound(r: Reading, node: Node, workflow: Workflow, given: Mapping[str, Any]) -> Mapping[str, Any]:
    """The parameters as the server would bind them; what is wrong is noted where the value stands."""
    try:
        bound = bind(workflow.parameters, given)
        secret = {one.name for one in workflow.parameters if one.type == "secret"}
        return {
            name: mark(f"{PARAMETER}:{name}") if name in secret and value is not None else value
            for name, value in bound.items()
        }
    except InvalidInput as refused:
        written = node.value.get("parameters", node)
        for one in refused.detail["errors"]:
            name = one["pointer"].removeprefix("/parameters/").replace("~1", "/").replace("~0", "~")
            at = written.value.get(name, written) if written.kind == "map" else written
            r.error(at, "bad-value", one["detail"], one["hint"])
        return {}


def _config(r: Reading, node: Node, workflow: Workflow, given: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the workflow sees of its pack's configuration; where the pack is not known, what the test says."""
    pack = workflow.ref.partition(".")[0]
    keys = r.known.configs.get(pack)
    if keys is None:
        return given
    written = node.value.get("config", node)
    known = {key.name for key in keys}
    for name in given.keys() - known:
        at = written.value.get(name, written)
        hint = r.collector.did_you_mean(name, known, f"declare it in config.yaml of {pack}")
        r.error(at, "unknown-config", f"the configuration of {pack} has no key {shown(name)}", hint)
    for key in keys:
        value = given.get(key.name)
        if value is not None and not accepts(key.type, value):
            at = written.value.get(key.name, written)
            r.error(at, "wrong-type", f"`{key.name}` must be {wanted(key.type)}")
    defaults = {key.name: key.default if key.has_default else None for key in keys}
    return {**defaults, **given}


class _Check:
    """Whether the names of a test are those of tasks that can be what they are said to be."""

    def __init__(self, r: Reading, plan: Plan) -> None:
        self.r = r
        self.plan = plan

    def test(self, node: Node, values: Mapping[str, Any]) -> None:
        for key, of_right_kind in (
            ("outcomes", self._has_jobs),
            ("answers", self._is_question),
            ("children", self._is_call),
        ):
            for name, child in self._map(node, key):
                task = self._task(child, name, key=True)
                if task is not None:
                    of_right_kind(child, task)
        for name, _ in self._map(node, "answers"):
            self._fits(node.value["answers"].value[name], name, values["answers"][name])
        for entry in self._list(node, "at"):
            task, _, _ = entry.value["when"].text.rpartition(" ")
            if task:
                self._task(entry.value["when"], task.strip())
        expect = node.value["expect"]
        if not values["expect"]:
            self.r.error(expect, "missing-key", "`expect` says nothing", "give the status at least")
        for key in ("tasks", "errors"):
            for name, child in self._map(expect, key):
                self._task(child, name, key=True)
        for key in ("order", "not_run"):
            for child in self._list(expect, key):
                self._task(child, child.text)

    def _map(self, node: Node, key: str) -> list[tuple[str, Node]]:
        return list(node.value[key].value.items()) if key in node.value else []

    def _list(self, node: Node, key: str) -> list[Node]:
        return list(node.value[key].value) if key in node.value else []

    def _task(self, node: Node, name: str, *, key: bool = False) -> PlanTask | None:
        task = self.plan.tasks.get(name)
        if task is None:
            hint = self.r.collector.did_you_mean(name, self.plan.tasks, "tasks are named as in the workflow")
            mark = node.key if key else None
            self.r.error(node, "unknown-task", f"there is no task {shown(name)}", hint, mark=mark)
        return task

    def _has_jobs(self, node: Node, task: PlanTask) -> None:
        if task.kind != "block" and not task.runs_in_engine:
            return
        what = "a parallel block" if task.kind == "block" else task.action
        if task.kind == "block":
            advice = f"its children have outcomes: {', '.join(task.children[:5])}"
        elif task.action in ENGINE_ACTIONS:
            advice = "leave it out: the engine runs it as written"
        else:
            advice = f"say it under `{'answers' if task.action in ASK_ACTIONS else 'children'}`"
        self.r.error(node, "bad-value", f"`{task.name}` is {what} and has no job", advice, mark=node.key)

    def _is_question(self, node: Node, task: PlanTask) -> None:
        if task.action not in ASK_ACTIONS:
            hint = "answers are for core.approval and core.inquiry"
            self.r.error(node, "bad-value", f"`{task.name}` asks nobody", hint, mark=node.key)

    def _is_call(self, node: Node, task: PlanTask) -> None:
        called = task.kind != "block" and task.runs_in_engine
        if not called or task.action in ASK_ACTIONS | ENGINE_ACTIONS:
            hint = "children are for tasks that are workflows themselves"
            self.r.error(node, "bad-value", f"`{task.name}` calls no workflow", hint, mark=node.key)

    def _fits(self, node: Node, name: str, answers: Iterable[Mapping[str, Any]]) -> None:
        task = self.plan.tasks.get(name)
        known = _ANSWERS_TO.get(task.action, ()) if task is not None else ()
        for answer in answers:
            if known and answer["decision"] not in known:
                message = f"`{name}` cannot be answered by {shown(answer['decision'])}"
                self.r.error(node, "bad-choice", message, f"one of {', '.join(known)}")
