"""The plan: a workflow made ready to run, as JSON with a version.

A plan is stored once for each digest and pinned by every execution of it, so that an execution never depends on
the YAML as it is today. Nothing here is rendered: templates are kept as text.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

from app.errors import InvalidInput
from app.language.known import parameter_from_json
from app.language.model import Parameter

PLAN_VERSION = 1

JOB_ACTIONS = frozenset({"core.shell", "core.script", "core.echo"})
CALL_ACTIONS = frozenset({"core.http", "core.celery"})
FANOUT_ACTION = "core.distributed_shell"
ENGINE_ACTIONS = frozenset({"core.noop", "core.sleep", "core.fail"})
ASK_ACTIONS = frozenset({"core.approval", "core.inquiry"})

LOCAL = "local"
"""The node on the control side: where a task without `delegate_to` runs."""

IO = "io"
"""Where calls run: no node, but whichever control worker consumes the queue of this name."""

_READING = frozenset({"GET", "HEAD"})


class UnknownPlanVersion(InvalidInput):
    code = "unknown-plan-version"


@dataclass(frozen=True, slots=True)
class PlanTask:
    """One task, with its edges counted and its place in a line decided.

    `kind` is `job` (one job, on a node or as a call), `fanout` (one job a node), `loop` (one job a unit: an item, or a
    batch of them), `block` (children), `own` (one job that the engine itself sees to: a question, another workflow) or
    `engine` (no job).
    `loop` holds `items`, `batch_size`, `concurrency` and `tolerate`.
    `out` are the tasks that an edge leads to, each once; `incoming` counts edges that lead here. `then` is the next
    task of the same line (chain), None where the line ends; `boundary` says why it ends. `along` is the task before it,
    where it goes along in that one's order and begins on the node as soon as that has succeeded. `literal` are the keys
    of `input` that are shell text and never rendered, `bound` what their variables hold. `refs` are the tasks whose
    results its templates read, `var_refs` the variables, `kv` the keys; `secrets` are the references (`app.marks`) that
    its input names, and no others are ever put into it. `scripted`: its action is a script of `Plan.actions`.
    `workspace` says which files go with its jobs and come back (`mode` push, pull or sync, `include`, `exclude`), None
    for none; `artifacts` are patterns of files to keep; `merge` per_node puts what each node changed under its name.
    `flow` makes a child of a block one job that runs the whole child on another machine (`Plan.remote`): `entry_point`,
    `exit_point` ("" for the end) and `host`, and under `task` what it does there, which is not rendered here.
    """

    name: str
    index: int
    kind: str
    action: str = ""
    input: Mapping[str, Any] = field(default_factory=dict)
    literal: tuple[str, ...] = ()
    bound: Mapping[str, str] = field(default_factory=dict)
    when: str | None = None
    delay: Any = None
    loop: Mapping[str, Any] | None = None
    retry: Mapping[str, Any] | None = None
    timeout: Any = None
    queue_timeout: Any = None
    idempotent: bool = False
    on_unknown: str = ""
    fail_fast: bool = False
    join: str | int = ""
    on_success: tuple[str, ...] = ()
    on_failure: tuple[str, ...] = ()
    on_complete: tuple[str, ...] = ()
    on_timeout: tuple[str, ...] = ()
    on_skip: tuple[str, ...] = ()
    decision: tuple[tuple[str | None, tuple[str, ...]], ...] | None = None
    publish: tuple[tuple[str, Any], ...] = ()
    publish_on_failure: tuple[tuple[str, Any], ...] = ()
    delegate_to: Any = None
    parent: str | None = None
    children: tuple[str, ...] = ()
    is_finally: bool = False
    out: tuple[str, ...] = ()
    incoming: int = 0
    refs: tuple[str, ...] = ()
    var_refs: tuple[str, ...] = ()
    kv: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    then: str | None = None
    along: str = ""
    boundary: str = ""
    line: int = 0
    scripted: bool = False
    workspace: Mapping[str, Any] | None = None
    artifacts: tuple[str, ...] = ()
    merge: str = ""
    flow: Mapping[str, Any] | None = None

    @property
    def is_entry(self) -> bool:
        """Starts with the execution unless `start` says otherwise (semantics E1)."""
        return not self.incoming and self.parent is None and not self.is_finally

    @property
    def may_have_timers(self) -> bool:
        """Whether anything of this task ever waits for time to pass."""
        return (
            self.delay is not None
            or self.retry is not None
            or self.kind in ("block", "engine", "loop", "own")
        )

    @property
    def runs_in_engine(self) -> bool:
        """Whether its units need no node: nothing of it is ever handed over."""
        if self.kind != "loop":
            return self.kind in ("engine", "own")
        return not self.scripted and self.action not in JOB_ACTIONS | CALL_ACTIONS

    @property
    def has_child(self) -> bool:
        """Whether its jobs are workflows that run as executions of their own."""
        return (
            self.runs_in_engine and self.kind != "engine" and self.action not in ENGINE_ACTIONS | ASK_ACTIONS
        )

    @property
    def is_call(self) -> bool:
        """Whether its jobs are calls from the control side (`IO`)."""
        return self.flow is not None or self.action in CALL_ACTIONS

    @property
    def runs_on_nodes(self) -> bool:
        """Whether its own jobs are handed to nodes."""
        return self.kind in ("job", "fanout", "loop") and not (self.is_call or self.runs_in_engine)

    @property
    def has_files(self) -> bool:
        """Whether files go with its jobs, or are kept of them."""
        return self.workspace is not None or bool(self.artifacts)

    @property
    def is_repeatable(self) -> bool:
        """Whether a job that was lost may run once more without harm (semantics E8)."""
        return self.idempotent or (self.action == "core.http" and self.input.get("method", "GET") in _READING)

    @property
    def essence(self) -> str:
        """What of it makes it another task when it changes: all but where it stands, and what follows from others."""
        return json.dumps(self.own(), sort_keys=True)

    def own(self) -> dict[str, Any]:
        """It as JSON, without where it stands and what follows from others."""
        return {key: value for key, value in _slim(self).items() if key not in _DERIVED}

    @property
    def inner(self) -> PlanTask:
        """What a flow runs on its host; any other task itself."""
        return self if self.flow is None else _fat(self.flow["task"])

    def handles(self, outcome: str) -> bool:
        """Whether a failure of this kind is declared as handled (semantics E6)."""
        return bool(self.on_timeout if outcome == "timed_out" and self.on_timeout else self.on_failure)


@dataclass(frozen=True)
class Plan:
    """All tasks of a workflow by name, in the order written, children of blocks after their block.

    `output` is the schema that what `output_map` gives must fit.
    `vars_kv` are the keys that `vars` read, `output_kv` those of `output_map`.
    `actions` are the actions of packs that it uses, as they were when it was compiled: what `action_to_json` gives,
    with `revision` and `digest`. `config_refs` are the keys of its pack's configuration that its templates read, "*"
    for all; `secret_config` those keys of it that name secrets. `gate` is the approval that an execution waits for
    before any task is born, as the input of `core.approval` (prompt, approvers, quorum, expires_in, on_expire).
    `scripts` are the saved scripts that its tasks run, by what they call them (`script_ref`), as they were when it was
    compiled. `remote` is there if any task is a flow: `hosts`, `basefile`, `workdir`, `cleanup`, `method`, and as
    `text` the digest of the workflow's text, which goes with every flow.
    """

    ref: str
    tasks: Mapping[str, PlanTask]
    vars: tuple[tuple[str, Any], ...] = ()
    parameters: tuple[Mapping[str, Any], ...] = ()
    start: tuple[str, ...] | None = None
    finally_: tuple[str, ...] = ()
    fail_fast: bool = False
    output_map: Mapping[str, Any] | None = None
    output_refs: tuple[str, ...] = ()
    output: Mapping[str, Any] | None = None
    vars_kv: tuple[str, ...] = ()
    output_kv: tuple[str, ...] = ()
    label: str = ""
    version: str = ""
    actions: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    config_refs: tuple[str, ...] = ()
    secret_config: tuple[str, ...] = ()
    gate: Mapping[str, Any] | None = None
    scripts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    remote: Mapping[str, Any] | None = None

    @cached_property
    def secret_parameters(self) -> frozenset[str]:
        """The names of the parameters whose values are secrets."""
        return frozenset(one["name"] for one in self.parameters if one["type"] == "secret")

    @cached_property
    def entries(self) -> tuple[str, ...]:
        """The tasks that start with the execution."""
        if self.start is not None:
            return self.start
        return tuple(task.name for task in self.tasks.values() if task.is_entry)

    def to_json(self) -> dict[str, Any]:
        data = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "tasks"}
        data = {name: value for name, value in data.items() if value or name not in _SELDOM}
        return {"plan_version": PLAN_VERSION, **data, "tasks": [_slim(task) for task in self.tasks.values()]}

    def dump(self) -> str:
        """The one text form; equal plans have equal texts."""
        return json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Plan:
        """The plan that `to_json` gave. Raises UnknownPlanVersion."""
        version = data.get("plan_version")
        if version != PLAN_VERSION:
            raise UnknownPlanVersion(
                f"plan_version {version!r} is not known to this version of Muster",
                hint="upgrade the control workers to the version that stored this execution",
            )
        rest = {key: value for key, value in data.items() if key not in ("plan_version", "tasks")}
        tasks = [_fat(task) for task in data["tasks"]]
        return cls(
            **{
                **rest,
                "tasks": {task.name: task for task in tasks},
                "vars": tuple((name, value) for name, value in rest["vars"]),
                "parameters": tuple(rest["parameters"]),
                "start": None if rest["start"] is None else tuple(rest["start"]),
                "finally_": tuple(rest["finally_"]),
                **{name: tuple(rest[name]) for name in ("output_refs", "vars_kv", "output_kv")},
                **{name: tuple(rest.get(name, ())) for name in ("config_refs", "secret_config")},
            }
        )

    def parameters_of(self, action: str) -> tuple[Parameter, ...]:
        """The parameters of one of its `actions`."""
        return tuple(parameter_from_json(one) for one in self.actions[action]["parameters"])

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of its text."""
        return hashlib.sha256(self.dump().encode()).hexdigest()


_DERIVED = frozenset({"index", "line", "incoming", "then", "along", "boundary"})
_SELDOM = frozenset({"actions", "config_refs", "secret_config", "gate", "scripts", "remote"})
"""Left out of the text of a plan that has none: most have none."""

_DEFAULTS = {one.name: one for one in fields(PlanTask)}
_NAMES = (
    "on_success",
    "on_failure",
    "on_complete",
    "on_timeout",
    "on_skip",
    "children",
    "out",
    "refs",
    "var_refs",
    "kv",
    "secrets",
    "literal",
    "artifacts",
)


def _slim(task: PlanTask) -> dict[str, Any]:
    """Without the fields that hold their default: plans are stored by the thousand."""
    values = {name: getattr(task, name) for name in _DEFAULTS}
    return {key: value for key, value in values.items() if value not in (None, "", (), {}, False)}


def _fat(data: Mapping[str, Any]) -> PlanTask:
    values = dict(data)
    for key in _NAMES:
        if key in values:
            values[key] = tuple(values[key])
    for key in ("publish", "publish_on_failure"):
        values[key] = tuple((name, value) for name, value in values.get(key, ()))
    if "decision" in values:
        values["decision"] = tuple((when, tuple(targets)) for when, targets in values["decision"])
    values.setdefault("index", 0)
    return PlanTask(**values)
