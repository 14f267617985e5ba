"""The `core` actions: which input each takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from app.language import names
from app.language.fields import (
    TEMPLATE_SCHEMA,
    Anything,
    Choice,
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
from app.language.problems import shown
from app.language.reading import BAD, Reading
from app.language.saved_scripts import ScriptRef, ScriptValues
from app.language.source import Node


@dataclass(frozen=True)
class ShellText(Kind):
    """Text that a shell runs; values in it are bound to variables, never pasted. `lists` allows an argv."""

    lists: bool = False

    def read(self, r: Reading, node: Node) -> Any:
        if self.lists and node.kind == "list":
            return _ARGV.read(r, node)
        if node.kind != "scalar" or node.value is None:
            return r.wrong(node, "a text or a list of texts" if self.lists else "a text")
        if not node.text.strip():
            return r.error(node, "out-of-range", f"`{node.step}` must not be empty")
        if is_template(node):
            shell = node.parent.value.get("shell") if node.parent is not None else None
            r.template(node, shell.text if shell is not None and shell.text else names.DEFAULT_SHELL)
        return node.text

    def schema(self) -> Schema:
        text = Text().schema()
        return {"anyOf": [text, _ARGV.schema()]} if self.lists else text


_ARGV: Final = ListOf(Text(templates=True), least=1, most=1000)


@dataclass(frozen=True)
class Nodes(Kind):
    """The nodes of a fan-out: names, `{labels: {…}}`, or a template that gives either."""

    def read(self, r: Reading, node: Node) -> Any:
        if node.kind == "map":
            found = _LABELLED.read(r, node)
            return found if "labels" in found else BAD
        found = _NODE_LIST.read(r, node)
        if node.kind == "list" and found is not BAD:
            first: set[str] = set()
            for child in node.value:
                if child.kind == "scalar" and not is_template(child) and child.text in first:
                    r.error(
                        child, "duplicate-name", f"the node {shown(child.text)} stands here twice", "keep one"
                    )
                first.add(child.text)
        return list(found) if isinstance(found, tuple) else found

    def schema(self) -> Schema:
        return {"anyOf": [_NODE_LIST.schema(), _LABELLED.schema()]}


LABELS: Final = MapOf(Text(templates=True, most=200), names.LABEL, names.LABEL_RULE)
NODE_NAME: Final = Text(names.NODE, names.NODE_RULE, code="bad-name", templates=True)
_NODE_LIST: Final = ListOf(NODE_NAME, least=1, most=names.MOST_NODES, templates=True)
_LABELLED: Final = Table(
    "a choice of nodes", [Key("labels", LABELS, "Every label a node must carry.", required=True)]
)


@dataclass(frozen=True)
class BatchStep(Kind):
    """How many nodes a batch has: a number, or a share of all as `10%`."""

    def read(self, r: Reading, node: Node) -> Any:
        if node.kind == "scalar" and isinstance(node.value, str) and not is_template(node):
            return _SHARE.read(r, node)
        return _COUNT.read(r, node)

    def schema(self) -> Schema:
        return {
            "anyOf": [
                {"type": "integer", "minimum": 1},
                {"type": "string", "pattern": names.PERCENT},
                TEMPLATE_SCHEMA,
            ]
        }


_SHARE: Final = Text(names.PERCENT, "a number of nodes such as 5, or a share such as 10%")
_COUNT: Final = Number(1, names.MOST_NODES, whole=True)
_TEXT: Final = Text(templates=True)
_NEEDED: Final = Text(templates=True, least=1)
_SECONDS: Final = Number(0, names.DAYS_30, above=True, seconds=True)
_TEXTS: Final = ListOf(_NEEDED, least=1, most=1000, templates=True)

_PROCESS: Final = (
    Key(
        "env",
        MapOf(Text(templates=True, null=True), names.ENVIRONMENT, names.ENVIRONMENT_RULE, templates=True),
        "Environment variables for the process; values are texts.",
    ),
    Key("cwd", _NEEDED, "The directory to run in."),
    Key("stdin", _TEXT, "What the process reads from its standard input."),
    Key(
        "ok_codes",
        ListOf(Number(0, 255, whole=True), least=1, most=256, templates=True),
        "Exit codes that count as success; 0 if not given.",
    ),
    Key("output_limit", Number(1, names.MOST_OUTPUT, whole=True), "Bytes kept of each of stdout and stderr."),
)
_SHELL: Final = Key("shell", Choice(names.SHELLS), f"The shell; {names.DEFAULT_SHELL} if not given.")
_INTERPRETER: Final = Key(
    "shell", Choice((*names.SHELLS, "python")), f"What runs it; {names.DEFAULT_SHELL} if not given."
)
_COMMAND: Final = Key(
    "command", ShellText(lists=True), "A command line for the shell, or a list of arguments."
)
_SCRIPT: Final = Key("script", ShellText(), "The body of a script.")
_SCRIPT_REF: Final = Key(
    "script_ref", ScriptRef(), "A saved script: its name, or one of its versions as `deploy@3`."
)
_SCRIPT_VALUES: Final = Key("parameters", ScriptValues(), "Values for the parameters of the saved script.")
_PROMPT: Final = Key("prompt", _NEEDED, "What the person is asked.", required=True)
_APPROVERS: Final = Key("approvers", _TEXTS, "Who may answer: users or roles.")
_EXPIRES: Final = Key("expires_in", _SECONDS, "Seconds until the question expires.")
_ON_EXPIRE: Final = Key(
    "on_expire", Choice(("reject", "approve", "timeout")), "What expiry means; timeout if not given."
)

ACTIONS: Final[dict[str, Table]] = {
    "core.shell": Table("core.shell", [_COMMAND, _SCRIPT, _SHELL, *_PROCESS], one_of=("command", "script")),
    "core.script": Table(
        "core.script",
        [_SCRIPT, _SCRIPT_REF, _SCRIPT_VALUES, _INTERPRETER, *_PROCESS],
        one_of=("script", "script_ref"),
    ),
    "core.distributed_shell": Table(
        "core.distributed_shell",
        [
            _COMMAND,
            _SCRIPT,
            _SCRIPT_REF,
            _SCRIPT_VALUES,
            Key("nodes", Nodes(), "The nodes: a list of names, or {labels: {…}}.", required=True),
            Key("timeout", _SECONDS, "Seconds that the process may take on each node."),
            _INTERPRETER,
            Key(
                "batch",
                ListOf(BatchStep(), least=1, most=100, single=True, templates=True),
                "Sizes of the batches, such as [1, 10%, 50%]; the last one repeats.",
            ),
            Key(
                "max_failures",
                Number(0, names.MOST_NODES, whole=True),
                "Failed nodes that are put up with; 0.",
            ),
            *_PROCESS,
        ],
        one_of=("command", "script", "script_ref"),
    ),
    "core.echo": Table(
        "core.echo", [Key("message", Anything(), "What comes back as the result.", required=True)]
    ),
    "core.noop": Table("core.noop", []),
    "core.sleep": Table(
        "core.sleep",
        [
            Key(
                "seconds",
                Number(0, names.DAYS_30, seconds=True),
                "How long to wait, in seconds.",
                required=True,
            )
        ],
    ),
    "core.fail": Table("core.fail", [Key("message", _TEXT, "What the error says.")]),
    "core.approval": Table(
        "core.approval",
        [
            _PROMPT,
            _APPROVERS,
            Key("quorum", Number(1, 100, whole=True), "How many must approve; 1."),
            _EXPIRES,
            _ON_EXPIRE,
        ],
    ),
    "core.inquiry": Table(
        "core.inquiry",
        [
            _PROMPT,
            Key("schema", JsonSchema(), "JSON Schema that the answer must fit."),
            _APPROVERS,
            _EXPIRES,
        ],
    ),
    "core.http": Table(
        "core.http",
        [
            Key("url", _NEEDED, "Where to.", required=True),
            Key(
                "method",
                Choice(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")),
                "GET if not given.",
            ),
            Key("headers", MapOf(_TEXT, templates=True), "Request headers."),
            Key("body", _TEXT, "The body as text."),
            Key("json", Anything(), "The body as JSON."),
            Key(
                "expected_status",
                ListOf(Number(100, 599, whole=True), least=1, most=100, single=True, templates=True),
                "Status codes that count as success.",
            ),
            Key("timeout", _SECONDS, "Seconds that the request may take."),
        ],
    ),
    "core.celery": Table(
        "core.celery",
        [
            Key("connection", _NEEDED, "Which of MUSTER_CELERY_CONNECTIONS; `default` if not given."),
            Key("task", _NEEDED, "The name of the Celery task.", required=True),
            Key("args", ListOf(Anything(), templates=True), "Positional arguments."),
            Key("kwargs", MapOf(Anything(), templates=True), "Keyword arguments."),
            Key("queue", _NEEDED, "The queue to send it to."),
            Key("timeout", _SECONDS, "Seconds to wait for its result."),
            Key("ignore_result", Flag(), "Do not wait for a result."),
        ],
    ),
}
