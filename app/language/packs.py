"""The files of a pack to a `Pack`: every problem with its file, line and column, never only the first.

Pure: whoever calls has read the folder, or the request. Scripts are kept as they are; rules and sensors are kept and
never looked into; tests are for `rehearse`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from app.language import declarations, pack_files, parse, source
from app.language.known import NOTHING, Known, Setting
from app.language.model import Action, Parameter, Workflow
from app.language.names import REF
from app.language.pack_files import CONFIG, PACK, problem
from app.language.pack_tables import ACTION, CORE, SETTING, WORKFLOW, is_reserved
from app.language.pack_tables import PACK as PACK_TABLE
from app.language.problems import MOST_PROBLEMS, InvalidWorkflow, Problem, TooManyProblems, nearest, shown
from app.language.reading import BAD, Reading
from app.language.source import Node


class InvalidPack(InvalidWorkflow):
    """A pack that cannot be used; `problems` holds all of them."""

    code = "invalid-pack"


@dataclass(frozen=True, slots=True)
class Packed:
    """A workflow of a pack, the file that it stands in, and its text."""

    workflow: Workflow
    file: str
    text: str


@dataclass(frozen=True, slots=True)
class Pack:
    """A pack as its folder has it. `actions` and `workflows` are by reference, `files` by path."""

    ref: str
    label: str = ""
    description: str = ""
    version: str = "1"
    author: str = ""
    tags: tuple[str, ...] = ()
    config: tuple[Setting, ...] = ()
    actions: Mapping[str, Action] = field(default_factory=dict)
    workflows: Mapping[str, Packed] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Loaded:
    """The pack (None iff there is any error) and every problem, by file and place, warnings included."""

    pack: Pack | None
    problems: tuple[Problem, ...]


def load(files: Mapping[str, str], known: Known = NOTHING) -> Loaded:
    """Read a pack from its files by relative path. `known` is what there is beside it. Never raises for any text."""
    reader = _Reader(files)
    try:
        reader.head()
        reader.workflows(known)
        reader.unused()
    except TooManyProblems:
        reader.give_up()
    failed = any(one.severity == "error" for one in reader.problems)
    return Loaded(None if failed else reader.pack, tuple(reader.problems))


def load_or_raise(files: Mapping[str, str], known: Known = NOTHING) -> Pack:
    """The same; raises InvalidPack with every problem if there is an error."""
    loaded = load(files, known)
    if loaded.pack is None:
        raise InvalidPack(loaded.problems)
    return loaded.pack


def outline(files: Mapping[str, str]) -> Known:
    """What the pack offers to other workflows, as far as it can be read: its own are not looked into."""
    reader = _Reader(files)
    try:
        reader.head()
    except TooManyProblems:
        return NOTHING
    return reader.own


class _Reader:
    """Reads one pack, filling `pack` and `problems`."""

    def __init__(self, files: Mapping[str, str]) -> None:
        self.given = files
        self.files, self.problems = pack_files.check(files)
        self.pack = Pack("", files=self.files)
        self.refs: dict[str, str] = {}
        self.used: set[str] = set()
        self.drafts: dict[str, tuple[Action, Node, Reading]] = {}
        self.broken: set[str] = set()
        self._open: list[Reading] = []

    @property
    def own(self) -> Known:
        """What this pack offers: of the pack core nothing, for its actions are the loader's own."""
        if self.pack.ref == CORE:
            return NOTHING
        configs = {self.pack.ref: self.pack.config} if self.pack.ref else {}
        actions = {ref: one for ref, one in self.pack.actions.items() if ref not in self.broken}
        return Known(actions, frozenset(self.refs), configs, broken=frozenset(self.broken))

    def head(self) -> None:
        """Everything but what stands in the workflows."""
        self._pack()
        if CONFIG in self.files:
            r, root = self._reading(CONFIG)
            if root is not None:
                self.pack = replace(self.pack, config=_settings(r, root))
            self._done(r)
        for path in self._in("workflows"):
            self._reference(path)
        for path in self._in("actions"):
            self._action(path)
        self._aliases()

    def workflows(self, known: Known) -> None:
        """Read every workflow, knowing the actions and workflows of this pack and of others."""
        every = self.own.over(known)
        every = replace(every, complete=known.complete)
        found = {}
        for path in self._in("workflows"):
            loaded = parse.load(self.files[path], path, known=every)
            self._add(loaded.problems)
            if loaded.workflow is not None and self.refs.get(loaded.workflow.ref) == path:
                found[loaded.workflow.ref] = Packed(loaded.workflow, path, self.files[path])
        self.pack = replace(self.pack, workflows=found)

    def unused(self) -> None:
        """Scripts that no action names."""
        for path in self.files:
            if path.startswith("actions/") and not path.endswith(".yaml") and path not in self.used:
                message = f"no action names {shown(path)}"
                hint = "name it as `entry` of an action, or remove it"
                self._add([problem(path, "unused-file", message, hint, warning=True)])

    # the parts

    def _in(self, folder: str) -> list[str]:
        return [path for path in self.files if path.startswith(f"{folder}/") and path.endswith(".yaml")]

    def _reading(self, path: str) -> tuple[Reading, Node | None]:
        root, collector = source.read(self.files[path], path)
        r = Reading(collector)
        self._open.append(r)
        return r, root

    def _done(self, r: Reading) -> None:
        self._open.remove(r)
        self._add(r.collector.sorted())

    def give_up(self) -> None:
        """After the last problem that is told."""
        for r in self._open:
            self.problems += r.collector.sorted()
        del self.problems[MOST_PROBLEMS:]
        message = "there are more problems than these"
        self.problems.append(problem(PACK, "too-many-problems", message, "mend these first"))

    def _add(self, problems: Sequence[Problem]) -> None:
        self.problems += problems
        if len(self.problems) > MOST_PROBLEMS:
            del self.problems[MOST_PROBLEMS:]
            raise TooManyProblems

    def _pack(self) -> None:
        if PACK not in self.given:
            self._add([problem(PACK, "missing-file", f"there is no {PACK}", "begin it with `ref: NAME`")])
        if PACK not in self.files:
            return
        r, root = self._reading(PACK)
        values: Any = BAD if root is None else PACK_TABLE.read(r, root)
        if values is not BAD:
            self.pack = replace(self.pack, **{"ref": "", **values})
        self._done(r)

    def _reference(self, path: str) -> None:
        """The name of a workflow, before it is read for good: others may call it."""
        root, collector = source.read(self.files[path], path)
        if root is None or root.kind != "map":
            return  # `workflows` tells why
        r, node = Reading(collector), root.value.get("ref")
        hint = f"write `ref: {self.pack.ref or 'pack'}.{_stem(path)}`"
        before = len(collector.problems)
        if node is None:
            r.error(root, "missing-key", "a workflow of a pack needs `ref`", hint)
        elif re.match(REF, node.text):
            first = self.refs.get(node.text)
            if self.pack.ref and node.text.partition(".")[0] != self.pack.ref:
                message = f"{shown(node.text)} is no name in the pack {self.pack.ref}"
                r.error(node, "bad-ref", message, hint)
            elif first is not None:
                message = f"{shown(node.text)} stands in {first} already"
                r.error(node, "duplicate-name", message, "rename one of them")
            else:
                self.refs[node.text] = path
        self._add(collector.problems[before:])

    def _action(self, path: str) -> None:
        r, root = self._reading(path)
        values: Any = BAD if root is None else ACTION.read(r, root)
        if root is not None and values is not BAD:
            name = values.get("name") or _stem(path)
            self._named(r, root, f"{self.pack.ref}.{name}", values, path)
        if r.collector.failed:
            name = "" if values is BAD else values.get("name")
            self.broken |= {f"{self.pack.ref}.{one}" for one in (_stem(path), name) if one}
        if root is None or values is BAD:
            self._done(r)

    def _named(self, r: Reading, root: Node, ref: str, values: Mapping[str, Any], path: str) -> None:
        at = root.value.get("name", root)
        runner = values.get("runner", "")
        if not re.match(REF, ref) and self.pack.ref:
            r.error(at, "bad-name", f"{shown(ref)} cannot be the name of an action", "write `name: …`")
        elif ref in self.drafts:
            message = f"{shown(ref)} stands in another file already"
            r.error(at, "duplicate-name", message, "rename one of them")
        elif ref in self.refs:
            message = f"{shown(ref)} is a workflow already ({self.refs[ref]}), and a workflow is an action"
            r.error(at, "duplicate-name", message, "rename one of them, or remove the action")
        elif runner:
            declared = declarations.read(r, root.value.get("parameters"))
            _refuse_reserved(r, root, declared, runner)
            action = Action(
                ref,
                runner,
                script=self._script(r, root, values),
                label=values.get("label", ""),
                description=values.get("description", ""),
                entry=values.get("entry", ""),
                parameters=declared,
                output=values.get("output"),
                timeout=values.get("timeout"),
                idempotent=values.get("idempotent", False),
                ok_codes=values.get("ok_codes", (0,)),
            )
            self.drafts[ref] = (action, root, r)

    def _script(self, r: Reading, root: Node, values: Mapping[str, Any]) -> str:
        """The text that the runner is to run; "" where it runs none, or there is a problem."""
        runner, node = values["runner"], root.value.get("entry")
        if runner == CORE:
            if self.pack.ref != CORE:
                hint = "write the shell that runs it, python or workflow"
                r.error(root.value["runner"], "bad-choice", "the runner core is for the pack core", hint)
            return ""
        if node is None:
            r.error(root, "missing-key", "an action needs `entry`", ACTION.by_name["entry"].doc)
            return ""
        if runner == WORKFLOW or "entry" not in values:
            return ""
        inside, wrong = pack_files.check({f"actions/{node.text}": ""})
        path = next(iter(inside), "")
        if wrong:
            r.error(node, "bad-path", f"`entry`: {wrong[0].message}", "the path starts at actions/")
        elif path not in self.given:
            scripts = [
                one[8:] for one in self.files if one.startswith("actions/") and not one.endswith(".yaml")
            ]
            hint = r.collector.did_you_mean(node.text, scripts, "the path starts at actions/")
            r.error(node, "missing-file", f"there is no file {shown(path)}", hint)
        elif not self.given[path].strip():
            self.used.add(path)
            r.error(node, "out-of-range", f"{shown(path)} is empty", "write what is to be run")
        else:
            self.used.add(path)
            return self.given[path]
        return ""

    def _aliases(self) -> None:
        """Follow every action that is another name for a workflow to the workflow."""
        for ref, (action, root, r) in self.drafts.items():
            if action.runner == WORKFLOW and action.entry:
                target = self._target(r, root.value["entry"], ref)
                self.drafts[ref] = (replace(action, calls=target), root, r)
                if not target:
                    self.broken.add(ref)
        for r in list(self._open):
            self._done(r)
        self.pack = replace(self.pack, actions={ref: draft[0] for ref, draft in self.drafts.items()})

    def _target(self, r: Reading, node: Node, ref: str) -> str:
        """The workflow that the name leads to in the end. One of another pack is not looked for here."""
        way, at = [ref], node.text
        if not re.match(REF, at):
            r.error(node, "bad-ref", f"`entry` cannot be {shown(at)}", "the name of a workflow, `pack.name`")
            return ""
        while at in self.drafts and at not in way:
            way.append(at)
            action = self.drafts[at][0]
            if action.runner != WORKFLOW:
                hint = "name a workflow; a script has a runner of its own"
                r.error(node, "bad-choice", f"{shown(at)} is no workflow", hint)
                return ""
            at = action.entry
        if at in way:
            path = " → ".join([*way[way.index(at) :], at])
            r.error(node, "cycle", f"the names go in a circle: {path}", "let one of them name a workflow")
            return ""
        if at.partition(".")[0] == self.pack.ref and at not in self.refs:
            near = nearest(at, [*self.refs, *self.drafts])
            hint = f"did you mean `{near}`?" if near else "its file belongs into workflows/"
            r.error(node, "unknown-workflow", f"there is no workflow {shown(at)}", hint)
            return ""
        return at


def _stem(path: str) -> str:
    return path.rpartition("/")[2].removesuffix(".yaml")


def _refuse_reserved(r: Reading, root: Node, declared: Sequence[Parameter], runner: str) -> None:
    """A parameter becomes a variable of the script's environment."""
    if runner in (WORKFLOW, CORE):
        return
    for one in declared:
        if is_reserved(one.name, runner):
            message = f"the environment variable {shown(one.name)} has a meaning of its own"
            node = root.value["parameters"].value[one.name]
            r.error(node, "reserved-environment", message, "choose another name", mark=one.mark)


def _settings(r: Reading, root: Node) -> tuple[Setting, ...]:
    out = []
    for one in declarations.read(r, root, SETTING):
        node = root.value[one.name]
        flag = node.value.get("secret") if node.kind == "map" else None
        secret = one.type == "secret" or bool(flag is not None and flag.value is True)
        if secret and one.type not in ("secret", "string"):
            message = f"`{one.name}` is secret, so it must be a string"
            r.error(node.value["type"], "wrong-type", message, "write `type: string`")
        if secret and one.default is not None:
            message, hint = f"a secret stands here for all to read: `{one.name}`", "remove the default"
            r.error(node.value["default"], "secret-default", message, hint)
        given = {name: getattr(one, name) for name in one.__dataclass_fields__}
        out.append(Setting(**given, secret=secret))
    return tuple(out)
