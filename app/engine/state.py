"""What the engine is given: a slice of one execution, and what it may answer when that is not enough.

A slice holds the execution's own row, the tasks and jobs that an event touches, and the results and variables that
their templates read: never the whole execution, so that a step costs the same in a large execution as in a small one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from app.compiler.plan import Plan
from app.engine.status import PENDING, QUEUED, REQUESTED, RUN

# The three states have no slots: the engine copies whatever an event touches and compares it at the end, and the
# dict of an instance is copied and compared in a third of the time.

MAIN = -1
"""`finally_at` before the finally tasks begin; afterwards the index of the one that runs."""


@dataclass
class ExecutionState:
    """The execution's row.

    `gate` is where the approval is that the execution waits for before any task is born: "" (it needs none), "pending",
    "approved", "rejected", "expired" or "closed" (cancelled before anybody had decided); `gates` is how often people
    were asked for it. `halt` is why nothing new starts: "", "cancel", "forced" (a second, forced cancel), "fail_fast",
    or "rejected" and "expired" of the gate. `live` counts top-level tasks that run or wait, `waiting` those that wait.
    `ended_badly` is set by what fails an execution without a failed task: "no_branch", "template", "fail", "finally",
    "output", a limit that was passed, or how the gate ended. `var_bytes` is the size of all that was ever published, as
    JSON. `config` is what its workflow reads of its pack's configuration, as it was when it was submitted.
    """

    id: str
    status: str = REQUESTED
    intent: str = RUN
    gate: str = ""
    gates: int = 0
    halt: str = ""
    live: int = 0
    waiting: int = 0
    unhandled: int = 0
    handled: int = 0
    ended_badly: str = ""
    error_message: str = ""
    finally_at: int = MAIN
    var_seq: int = 0
    var_bytes: int = 0
    parameters: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    system: Mapping[str, Any] = field(default_factory=dict)
    output: Any = None
    degraded: bool = False
    started_at: float | None = None
    ended_at: float | None = None


@dataclass
class TaskState:
    """A task's row inside one execution.

    `open` and `fired` count incoming edges. `units` is how many there are (fan-out: nodes; block: children; loop:
    items or batches of them), `total` how many items a loop has and `window` how many of its units may be outstanding
    (0: as many as the server lets). `items` says how each unit of a loop that is over came out. `started` is how many
    units have been born, `over` how many have ended. `stopping` is why open units are being stopped: "timed_out",
    "fail_fast", "threshold" or "cancel". `went` are the targets that its edges fired when it was over, `fail` among
    them, None where a halt kept them from firing. `input` is rendered once and kept. Attempt numbers go on over retries
    of the execution: this run of the task began with `first_attempt`, and the jobs that count are those from
    `base_attempt` on (fewer than all where it was reset as a whole).
    """

    name: str
    status: str = PENDING
    wait_reason: str = ""
    open: int = 0
    fired: int = 0
    units: int = 0
    started: int = 0
    over: int = 0
    succeeded: int = 0
    failed: int = 0
    skipped: int = 0
    cancelled: int = 0
    stopping: str = ""
    input: Any = None
    nodes: tuple[str, ...] | None = None
    total: int = 0
    window: int = 0
    items: Any = None
    timeout: float | None = None
    result: Any = None
    error: Mapping[str, Any] | None = None
    went: tuple[str, ...] | None = None
    started_at: float | None = None
    ended_at: float | None = None
    first_attempt: int = 1
    base_attempt: int = 1
    retry_count: int = 0
    max_retries: int = 0


@dataclass
class JobState:
    """A job's row: one task x unit x attempt.

    `given` is what a loop's unit has of its own, for all its attempts: `item`, `index`, rendered `input`, `timeout`.
    `node` is empty where the engine itself runs the unit. `snapshot` is what it is given of the workspace, None
    until that is settled.
    """

    id: str
    task: str
    unit: int
    attempt: int
    node: str
    status: str = QUEUED
    exit_code: int | None = None
    result: Mapping[str, Any] | None = None
    error: Mapping[str, Any] | None = None
    started_at: float | None = None
    ended_at: float | None = None
    queue_timeout: float = 3600.0
    given: Mapping[str, Any] | None = None
    settled: bool = False
    snapshot: str | None = None


@dataclass(frozen=True, slots=True)
class Node:
    """What the engine knows of a machine. `state` is active, draining or removed."""

    name: str
    shells: tuple[str, ...] = ("bash", "sh")
    labels: Mapping[str, str] = field(default_factory=dict)
    address: str = ""
    state: str = "active"


@dataclass(slots=True)
class Slice:
    """One execution as far as an event needs it.

    `results` maps a task's name to what templates see of it; `vars` holds the current variables loaded so far
    (`vars_loaded`: which names were looked for), `kv` the values of keys likewise (`kv_loaded`); `jobs_loaded` names
    the tasks of which every job is here; `live_loaded` says that all live tasks are here, with their children and
    jobs; `fleet` holds every node by name. `earlier` is the plan that held so far, where the event is the one by which
    `plan` takes its place.
    """

    plan: Plan
    execution: ExecutionState
    tasks: dict[str, TaskState] = field(default_factory=dict)
    jobs: dict[str, JobState] = field(default_factory=dict)
    results: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    vars: dict[str, Any] = field(default_factory=dict)
    vars_loaded: frozenset[str] = frozenset()
    kv: dict[str, Any] = field(default_factory=dict)
    kv_loaded: frozenset[str] = frozenset()
    jobs_loaded: frozenset[str] = frozenset()
    live_loaded: bool = False
    fleet: Mapping[str, Node] = field(default_factory=dict)
    limits: Limits = field(default_factory=lambda: Limits())
    earlier: Plan | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds that settings give: seconds, or bytes of JSON, or counts.

    `result` is for the result of a single task; those of many units together have `MANY` times as much. `variable` is
    for one value, `variables` for all that an execution ever publishes, `output` for what `output_map` gives.
    """

    queue_timeout: float = 3600.0
    fanout_queue_timeout: float = 60.0
    retries: int = 100
    items: int = 10_000
    result: int = 4_000_000
    variable: int = 1_000_000
    variables: int = 16_000_000
    output: int = 1_000_000


@dataclass(frozen=True, slots=True)
class Need:
    """The slice was too small: load these and call again. Nothing was decided."""

    tasks: frozenset[str] = frozenset()
    results: frozenset[str] = frozenset()
    vars: frozenset[str] = frozenset()
    kv: frozenset[str] = frozenset()
    jobs_of: frozenset[str] = frozenset()
    jobs: frozenset[str] = frozenset()
    live: bool = False


@dataclass(frozen=True, slots=True)
class Timer:
    """A wait as a row: kind is delay, retry, sleep or timeout; `due_at` in Unix seconds."""

    task: str
    unit: int
    kind: str
    due_at: float


@dataclass(frozen=True, slots=True)
class Ask:
    """A question to people. `kind` is approval or inquiry; `approvers` logins, all who may decide where empty."""

    job: str
    task: str
    unit: int
    kind: str
    prompt: str
    approvers: tuple[str, ...]
    quorum: int
    expires_at: float | None
    schema: Any = None


@dataclass(frozen=True, slots=True)
class Child:
    """A workflow to call with parameters. The job's `given` may say that an earlier child is to be tried again."""

    job: str
    ref: str
    parameters: Mapping[str, Any]


@dataclass(slots=True)
class Changes:
    """What is to be written, as columns by row.

    `asks` are questions to people, `children` workflows to call; `closed` names the jobs of those that are to be given
    up. `voided` names tasks of which everything published so far no longer counts. `sweep_pending` turns pending tasks
    into not_reached: "main" all but those of `finally`, "all" those as well. `new_tasks` and `gone_tasks` are rows that
    another version of the workflow brings and takes.
    """

    execution: dict[str, Any] = field(default_factory=dict)
    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)
    new_jobs: list[JobState] = field(default_factory=list)
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    published: list[tuple[int, str, Any, str]] = field(default_factory=list)
    timers: list[Timer] = field(default_factory=list)
    dropped_timers: list[tuple[str, int, str]] = field(default_factory=list)
    dropped_task_timers: list[str] = field(default_factory=list)
    sweep_pending: str = ""
    voided: list[str] = field(default_factory=list)
    new_tasks: list[TaskState] = field(default_factory=list)
    gone_tasks: list[str] = field(default_factory=list)
    asks: list[Ask] = field(default_factory=list)
    children: list[Child] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    log: list[dict[str, Any]] = field(default_factory=list)


@dataclass(slots=True)
class Commands:
    """What is to be done after the commit: jobs to hand over, jobs to stop; and whether the execution is over."""

    dispatch: list[JobState] = field(default_factory=list)
    stop: list[JobState] = field(default_factory=list)
    finished: bool = False


@dataclass(slots=True)
class Facts:
    """`nodes` are those that placement looked at by name, None where there is none; `fleet` every node, where it looked
    through all of them. `jobs` holds what nodes and the hand-over had made of jobs, as columns by id. `kv` are the keys
    that were read and that had a value, with their values."""

    nodes: dict[str, Node | None] = field(default_factory=dict)
    fleet: Mapping[str, Node] | None = None
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    kv: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Step:
    """The answer of `advance`. `facts` is what it read that neither the event nor an earlier step had said."""

    changes: Changes
    commands: Commands
    facts: Facts
