"""What a person may write, as frozen values. `docs/language.md` describes each key; `parse` builds these.

A value that may hold a template keeps it as text (`"{{ parameters.x }}"`): nothing here is rendered.
Durations are seconds. `Template` marks fields that are either a number or the text of a template.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Template = str
Number = int | float | Template

RESERVED_TARGETS = frozenset({"fail", "noop"})
"""Transition targets that are no tasks: `fail` fails the execution, `noop` does nothing."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in the source: line and column count from 1."""

    line: int
    column: int


NOWHERE = Mark(0, 0)


@dataclass(frozen=True, slots=True)
class Parameter:
    """One declared parameter of a workflow (or script). `default` counts only if `has_default`."""

    name: str
    type: str = "string"
    required: bool = False
    has_default: bool = False
    default: Any = None
    enum: tuple[Any, ...] | None = None
    description: str = ""
    mark: Mark = NOWHERE


@dataclass(frozen=True, slots=True)
class Retry:
    """`count` retries after the first attempt; the wait before retry n follows `backoff` (semantics E3)."""

    count: Number = 0
    delay: Number = 0
    backoff: Literal["constant", "linear", "exponential"] = "constant"
    max_delay: Number | None = None
    on_error: Template | None = None


@dataclass(frozen=True, slots=True)
class Branch:
    """One entry of `decision`: `when` is None for the default."""

    when: Template | None
    next: tuple[str, ...]
    mark: Mark = NOWHERE


@dataclass(frozen=True, slots=True)
class Loop:
    """`with_items` and its companions (semantics I1-I5)."""

    items: Template | tuple[Any, ...]
    batch_size: Number | None = None
    concurrency: Number | None = None
    tolerate: int = 0


@dataclass(frozen=True, slots=True)
class Remote:
    """`settings.parallel.remote`: flow i runs on `hosts[i % len(hosts)]`, by the tool `basefile`, in a directory of its
    own below `workdir` that is removed if `cleanup`. `method` is auto, parallel (GNU Parallel) or ssh."""

    hosts: tuple[str, ...]
    basefile: str
    workdir: str
    cleanup: bool = True
    method: Literal["auto", "parallel", "ssh"] = "auto"


@dataclass(frozen=True, slots=True)
class Parallel:
    """`settings.parallel`. With `remote` as strategy the children of blocks are flows; `timeout` (seconds) and `retry`
    are then those of a flow. A block's own `strategy` wins."""

    strategy: Literal["thread", "process", "remote"] = "thread"
    remote: Remote | None = None
    timeout: float | None = None
    retry: Retry | None = None

    def is_remote(self, block: Task) -> bool:
        """Whether the children of this block are flows."""
        return (block.strategy or self.strategy) == "remote"


@dataclass(frozen=True, slots=True)
class Task:
    """A named unit of a workflow.

    `type` is `action`, `parallel`, `workflow` or `distributed_shell`; `action` is set unless it is parallel.
    `scripted` says that `action` is an action of a pack that runs a script.
    `join` is "" (the default join), "all", "any" or a number. `delegate_to` is a node's name, a template, or
    a mapping with one of `node`, `address`, `labels`; None inherits. `tasks` are a parallel block's children,
    `strategy` says how they run, "" as `Workflow.parallel` does. `workspace` has `mode` (none, push, pull, sync) and
    perhaps `include` and `exclude`; None inherits.
    """

    name: str
    type: Literal["action", "parallel", "workflow", "distributed_shell"] = "action"
    action: str = ""
    description: str = ""
    input: Mapping[str, Any] = field(default_factory=dict)
    when: Template | None = None
    delay: Number | None = None
    loop: Loop | None = None
    retry: Retry | None = None
    timeout: Number | None = None
    queue_timeout: Number | None = None
    idempotent: bool = False
    on_unknown: Literal["", "wait", "fail"] = ""
    fail_fast: bool = False
    join: str | int = ""
    publish: tuple[tuple[str, Any], ...] = ()
    publish_on_failure: tuple[tuple[str, Any], ...] = ()
    on_success: tuple[str, ...] = ()
    on_failure: tuple[str, ...] = ()
    on_complete: tuple[str, ...] = ()
    on_timeout: tuple[str, ...] = ()
    on_skip: tuple[str, ...] = ()
    decision: tuple[Branch, ...] | None = None
    delegate_to: str | Mapping[str, Any] | None = None
    tasks: tuple[Task, ...] = ()
    workspace: Mapping[str, Any] | None = None
    artifacts: tuple[str, ...] = ()
    merge: Literal["", "fail", "per_node"] = ""
    strategy: Literal["", "thread", "process", "remote"] = ""
    mark: Mark = NOWHERE
    scripted: bool = False


@dataclass(frozen=True, slots=True)
class Action:
    """An action of a pack, as workflows call it.

    `runner` is a shell or `python`, which run `script`, or `workflow`: then `calls` names the workflow. `timeout` is in
    seconds, `output` a JSON Schema of what the script writes to MUSTER_OUTPUT. `revision` is the server's count.
    """

    ref: str
    runner: str
    script: str = ""
    calls: str = ""
    label: str = ""
    description: str = ""
    entry: str = ""
    parameters: tuple[Parameter, ...] = ()
    output: Mapping[str, Any] | None = None
    timeout: float | None = None
    idempotent: bool = False
    ok_codes: tuple[int, ...] = (0,)
    revision: int = 0


@dataclass(frozen=True, slots=True)
class PinnedScript:
    """One version of a saved script, as a workflow runs it. `parameters` are its declarations as JSON (see
    `script_parameters`), `timeout` is in seconds."""

    id: str
    name: str
    version: int
    shell: str
    body: str
    parameters: tuple[Mapping[str, Any], ...]
    timeout: float
    requires_approval: bool = False


@dataclass(frozen=True, slots=True)
class Workflow:
    """One workflow as written. `finally_` holds whole tasks that run last, in order, without edges. `actions` are those
    of packs that its tasks name, `scripts` the saved ones by what the text calls them, `secret_config` the secret keys
    of its own pack's configuration. `text_digest` is the sha256 of the text where flows take it with them."""

    ref: str
    label: str = ""
    description: str = ""
    version: str = "1"
    tags: tuple[str, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    output: Mapping[str, Any] | None = None
    vars: tuple[tuple[str, Any], ...] = ()
    tasks: tuple[Task, ...] = ()
    start: tuple[str, ...] | None = None
    finally_: tuple[Task, ...] = ()
    fail_fast: bool = False
    delegate_to: str | Mapping[str, Any] | None = None
    workspace: Mapping[str, Any] | None = None
    output_map: Mapping[str, Any] | None = None
    actions: tuple[Action, ...] = ()
    scripts: Mapping[str, PinnedScript] = field(default_factory=dict)
    secret_config: tuple[str, ...] = ()
    parallel: Parallel = Parallel()
    text_digest: str = field(default="", compare=False)
