"""The tables of the language: every key of a workflow, a task, a retry and a parameter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from app.language import names, parallel
from app.language.actions import ACTIONS, LABELS, NODE_NAME
from app.language.fields import (
    TEMPLATE_SCHEMA,
    Anything,
    Choice,
    Condition,
    Flag,
    Key,
    Kind,
    ListOf,
    MapOf,
    Number,
    Schema,
    Table,
    Text,
    is_template,
)
from app.language.json_schema import JsonSchema
from app.language.limits import DEFAULT
from app.language.model import Branch
from app.language.parameters import TYPES
from app.language.reading import BAD, Reading
from app.language.source import Node
from app.language.workspace_fields import MERGES, PATTERNS, Workspace


@dataclass(frozen=True)
class Later(Kind):
    """A value that needs its neighbours to be read: `parse` does it; here is only its schema."""

    form: str

    def read(self, r: Reading, node: Node) -> Any:
        return node

    def schema(self) -> Schema:
        if self.form.startswith("tasks:"):
            return {"type": "array", "minItems": 1, "items": {"$ref": f"#/$defs/{self.form[6:]}"}}
        return {"type": "object"} if self.form == "input" else {}


@dataclass(frozen=True)
class Publish(Kind):
    """Variables to write: a mapping, or a list of mappings where order matters; gives pairs in order."""

    def read(self, r: Reading, node: Node) -> Any:
        entries = publish_entries(node)
        if entries is None:
            return r.wrong(node, "a mapping of names to values, or a list of such mappings")
        out = []
        for name, child in entries:
            if child.kind != "broken" and _VARIABLES.read(r, _alone(node, name, child)):
                out.append((name, Anything().read(r, child)))
        return tuple(out)

    def schema(self) -> Schema:
        one = {"type": "object", "minProperties": 1, "propertyNames": {"pattern": names.VARIABLE}}
        return {"anyOf": [one, {"type": "array", "items": one}]}


_VARIABLES: Final = MapOf(Later(""), names.VARIABLE, names.VARIABLE_RULE)


def _alone(owner: Node, name: str, child: Node) -> Node:
    return Node("map", owner.line, owner.column, {name: child}, parent=owner.parent, step=owner.step)


def publish_entries(node: Node) -> list[tuple[str, Node]] | None:
    """Names and values under `publish` in order; None if it has not the right form."""
    if node.kind == "map":
        return list(node.value.items())
    if node.kind != "list" or any(entry.kind != "map" or not entry.value for entry in node.value):
        return None
    return [pair for entry in node.value for pair in entry.value.items()]


@dataclass(frozen=True)
class Decision(Kind):
    """Branches in order, at most one default at the end; gives Branch values."""

    def read(self, r: Reading, node: Node) -> Any:
        if node.kind != "list" or not node.value:
            return r.wrong(node, "a list of {when, next} with at most one {default} at the end")
        out: list[Branch] = []
        for index, child in enumerate(node.value):
            default = child.kind == "map" and "default" in child.value
            found = (_DEFAULT if default else _BRANCH).read(r, child)
            if default and index < len(node.value) - 1:
                r.error(
                    child, "branch-after-default", "branches stand after this default", "put the default last"
                )
            if found is BAD:
                continue
            if default and "default" in found:
                out.append(Branch(None, found["default"], child.mark))
            elif "when" in found and "next" in found:
                out.append(Branch(found["when"], found["next"], child.mark))
        return tuple(out)

    def schema(self) -> Schema:
        return {"type": "array", "minItems": 1, "items": {"anyOf": [_BRANCH.schema(), _DEFAULT.schema()]}}


@dataclass(frozen=True)
class Place(Kind):
    """Where to run: a node's name, or a mapping with exactly one of node, address, labels."""

    def read(self, r: Reading, node: Node) -> Any:
        if node.kind == "map":
            found = _PLACE.read(r, node)
            return found if len(found) == 1 else BAD
        return NODE_NAME.read(r, node)

    def schema(self) -> Schema:
        return {"anyOf": [NODE_NAME.schema(), _PLACE.schema()]}


@dataclass(frozen=True)
class Join(Kind):
    """all, any, or how many incoming edges must fire."""

    def read(self, r: Reading, node: Node) -> Any:
        if node.kind == "scalar" and isinstance(node.value, int) and not isinstance(node.value, bool):
            return Number(1, names.MOST_TARGETS, whole=True, templates=False).read(r, node)
        if node.kind == "scalar" and node.text in ("all", "any"):
            return node.text
        return r.wrong(node, "all, any or a number")

    def schema(self) -> Schema:
        return {"anyOf": [{"enum": ["all", "any"]}, {"type": "integer", "minimum": 1}]}


@dataclass(frozen=True)
class Target(Kind):
    """The name of a task to go to. Its form is not checked: that no such task is there says more."""

    def read(self, r: Reading, node: Node) -> Any:
        return Text().read(r, node)

    def schema(self) -> Schema:
        return TASK_NAME.schema()


@dataclass(frozen=True)
class Items(Kind):
    """What a loop goes over: a template that gives a list, or a list."""

    def read(self, r: Reading, node: Node) -> Any:
        if node.kind == "list":
            if len(node.value) > r.limits.items:
                message = f"a loop over {len(node.value)} items, {r.limits.items} are allowed"
                return r.error(
                    node, "too-many-items", message, "split the list, or use `batch_size` in a script"
                )
            return tuple(Anything().read(r, node))
        if not is_template(node):
            return r.wrong(node, "a list or a template that gives one")
        return ListOf(Anything(), templates=True).read(r, node)

    def schema(self) -> Schema:
        return {"anyOf": [{"type": "array"}, TEMPLATE_SCHEMA]}


@dataclass(frozen=True)
class Retries(Kind):
    """How many times to try again."""

    def read(self, r: Reading, node: Node) -> Any:
        value = Number(0, names.MOST_RETRIES, whole=True).read(r, node)
        if isinstance(value, int) and value > r.limits.retries:
            message = f"a task may be tried again {r.limits.retries} times, not {value}"
            return r.error(node, "too-many-attempts", message, "a longer `delay` waits as long with fewer")
        return value

    def schema(self) -> Schema:
        return Number(0, DEFAULT.retries, whole=True).schema()


TASK_NAME: Final = Text(names.TASK, names.TASK_RULE, code="bad-name")
_TARGETS: Final = ListOf(Target(), least=1, most=names.MOST_TARGETS, single=True)
_PROSE: Final = Text(prose=True, most=20_000)
_DELAY: Final = Number(0, names.DAYS_30, seconds=True)
_TIMEOUT: Final = Number(0, names.DAYS_30, above=True, seconds=True)
_WHEN: Final = Key("when", Condition(), "The branch is taken if this is true.", required=True, after=True)
_BRANCH: Final = Table(
    "a branch of `decision`", [_WHEN, Key("next", _TARGETS, "Where to go.", required=True)]
)
_DEFAULT: Final = Table(
    "the default of `decision`", [Key("default", _TARGETS, "Where to go if no branch is taken.")]
)
_PLACE: Final = Table(
    "`delegate_to`",
    [
        Key("node", NODE_NAME, "The node's name."),
        Key(
            "address",
            Text(names.ADDRESS, names.ADDRESS_RULE, templates=True),
            "The address of an enrolled node.",
        ),
        Key("labels", LABELS, "Any one node that carries all of these."),
    ],
    one_of=("node", "address", "labels"),
)
_RETRY: Final = Table(
    "`retry`",
    [
        Key(
            "count",
            Retries(),
            "How many times to try again after the first attempt.",
            required=True,
        ),
        Key("delay", _DELAY, "Seconds to wait before a retry."),
        Key(
            "backoff",
            Choice(("constant", "linear", "exponential")),
            "How the wait grows; constant if not given.",
        ),
        Key("max_delay", _DELAY, "The longest wait, in seconds."),
        Key("on_error", Condition(), "Try again only if this is true; sees the attempt's error.", after=True),
    ],
    elsewhere={"max_attempts": "`count` is the number of retries after the first attempt"},
)

_TRANSITION_DOCS: Final = {
    "on_success": "Where to go after success; `fail` and `noop` are reserved targets.",
    "on_failure": "Where to go after a failure, which is thereby handled.",
    "on_complete": "Where to go after success or failure; handles nothing.",
    "on_timeout": "Where to go after a timeout, instead of `on_failure`.",
    "on_skip": "Where to go if `when` was false.",
}
_CORE: Final[tuple[Key, ...]] = (
    Key("name", TASK_NAME, "The task's name, once in a workflow.", required=True),
    Key(
        "type", Choice(("action", "parallel", "workflow", "distributed_shell")), "What kind of task; action."
    ),
    Key("action", Text(names.REF, names.REF_RULE, code="bad-ref"), "What to run, such as core.shell."),
    Key("description", _PROSE, "For people."),
    Key("input", Later("input"), "Values for the action.", item=True),
    Key("when", Condition(), "Run only if this is true, else the task is skipped."),
    Key("delay", _DELAY, "Seconds to wait before the task starts."),
    Key("with_items", Items(), "Run once per item of this list."),
    Key("batch_size", Number(1, 10_000, whole=True), "Hand over the items in arrays of this size."),
    Key("concurrency", Number(1, 10_000, whole=True), "How many may run at once."),
    Key("tolerate", Number(0, 10_000, whole=True, templates=False), "How many may fail."),
    Key("retry", _RETRY, "When and how to try again.", item=True),
    Key("timeout", _TIMEOUT, "Seconds that one attempt may take.", item=True),
    Key("queue_timeout", _TIMEOUT, "Seconds to wait for a node that is offline.", item=True),
    Key("idempotent", Flag(), "It may be started again if its node was lost."),
    Key("on_unknown", Choice(("wait", "fail")), "What to do when nobody knows how an attempt ended."),
    Key("fail_fast", Flag(), "The first failure stops the rest of a block or loop."),
    Key("delegate_to", Place(), "Where to run; the innermost `delegate_to` wins.", item=True),
    Key("workspace", Workspace(), "Which files go with the task, and come back."),
    Key("artifacts", PATTERNS, "Files that are kept for people."),
    Key("merge", Choice(MERGES), "What happens to files that several jobs changed."),
)
_PUBLISHING: Final[tuple[Key, ...]] = (
    Key("publish", Publish(), "Variables to set after success, in order.", after=True),
    Key("publish_on_failure", Publish(), "Variables to set after a failure or timeout.", after=True),
)
_EDGES: Final[tuple[Key, ...]] = (
    Key("join", Join(), "How many incoming edges must have fired."),
    *(Key(name, _TARGETS, doc, after=True) for name, doc in _TRANSITION_DOCS.items()),
    Key("decision", Decision(), "Where to go after success: the first branch that is true.", after=True),
)
_BLOCK: Final[tuple[Key, ...]] = (
    Key("tasks", Later("tasks:child"), "Children of a block."),
    Key("strategy", parallel.STRATEGY, "How the children run, if not as `settings.parallel` says."),
)
_UNDER_INPUT: Final = {
    key.name: f"`{key.name}` belongs under `input:`"
    for table in ACTIONS.values()
    for key in table.keys
    if key.name not in {core.name for core in _CORE}
}
_FOREIGN: Final = {
    "if": "did you mean `when`?",
    "id": "did you mean `name`?",
    "run": "write `action: core.shell` and `input: {command: …}`",
    "needs": "order is written the other way round: `on_success` of the task before",
    "depends_on": "order is written the other way round: `on_success` of the task before",
    "next": "did you mean `on_success`?",
    "loop": "did you mean `with_items`?",
    "on_error": "did you mean `on_failure`?",
    "config": "did you mean `input`?",
    "args": "did you mean `input`?",
    "retries": "write `retry: {count: …}`",
    "node": "did you mean `delegate_to`?",
}
_ELSEWHERE: Final = {**_UNDER_INPUT, **_FOREIGN}

_NO_EDGES_CHILD: Final = "children of a parallel block start together; put it on the block"
_NO_EDGES_FINAL: Final = "tasks under `finally` run one after the other, in the order written"

TASK: Final = Table(
    "a task",
    [*_CORE, *_PUBLISHING, *_EDGES, *_BLOCK],
    _ELSEWHERE,
)
CHILD: Final = Table(
    "a child of a parallel block",
    _CORE,
    {
        **_ELSEWHERE,
        **{key.name: _NO_EDGES_CHILD for key in (*_PUBLISHING, *_EDGES)},
        "tasks": "blocks do not nest",
        "strategy": "it belongs to the block",
    },
)
FINAL: Final = Table(
    "a task under `finally`",
    [*_CORE, *_PUBLISHING, *_BLOCK],
    {**_ELSEWHERE, **{key.name: _NO_EDGES_FINAL for key in _EDGES}},
)

NOT_ON_A_BLOCK: Final = (
    "action",
    "input",
    "with_items",
    "batch_size",
    "concurrency",
    "tolerate",
    "retry",
    "queue_timeout",
    "idempotent",
    "on_unknown",
    "artifacts",
)

PARAMETER: Final = Table(
    "a parameter",
    [
        Key("type", Choice(TYPES), "What kind of value; string if not given."),
        Key("required", Flag(), "The caller must give it."),
        Key("enum", Later("enum"), "The values that are allowed."),
        Key("default", Later("default"), "The value if the caller gives none."),
        Key("description", _PROSE, "For people."),
    ],
    {"name": "the name is the key above", "choices": "did you mean `enum`?"},
)

WORKFLOW: Final = Table(
    "a workflow",
    [
        Key("ref", Text(names.REF, names.REF_RULE, code="bad-ref"), "The workflow's name, `pack.name`."),
        Key("label", Text(prose=True, most=200), "A short name for people."),
        Key("description", _PROSE, "For people."),
        Key("version", Text(most=50, least=1), "The version, a text."),
        Key("tags", ListOf(Text(most=100, least=1), most=100), "Words to find it by."),
        Key("parameters", Later("parameters"), "What the caller gives."),
        Key("output", JsonSchema(), "JSON Schema that the result must fit."),
        Key(
            "vars",
            MapOf(Anything(), names.VARIABLE, names.VARIABLE_RULE),
            "Variables and their first values, in order.",
        ),
        Key("tasks", Later("tasks:task"), "The tasks, each with a name and an action.", required=True),
        Key("start", _TARGETS, "The tasks to start with, if not all that no other task leads to."),
        Key("finally", Later("tasks:final"), "Tasks that run last, always, in order."),
        Key("fail_fast", Flag(), "The first unhandled failure stops the other branches."),
        Key("delegate_to", Place(), "Where tasks run that do not say it themselves."),
        Key("output_map", MapOf(Anything(), r"^.{1,200}$", "a short name"), "The result: names and values."),
        Key("workspace", Workspace(), "Which files go with the tasks, and come back."),
        Key("settings", parallel.SETTINGS, "How parallel blocks run."),
    ],
    {
        "name": "write `ref: pack.name`, and `label` for people",
        "steps": "did you mean `tasks`?",
        "jobs": "did you mean `tasks`?",
        "params": "did you mean `parameters`?",
        "inputs": "did you mean `parameters`?",
        "outputs": "did you mean `output_map`?",
        "variables": "did you mean `vars`?",
        "on": "schedules and rules stand outside a workflow",
    },
)


def input_table(action: str) -> Table:
    """The input of a `core` action; keys of a task that people write there by mistake are pointed out."""
    table = ACTIONS[action]
    known = set(table.by_name)
    task = {
        name: f"`{name}` belongs to the task, beside `input`" for name in TASK.by_name if name not in known
    }
    return Table(f"the input of {action}", table.keys, task, table.one_of)


INPUTS: Final = {action: input_table(action) for action in ACTIONS}
