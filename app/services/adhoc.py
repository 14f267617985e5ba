"""One command on one node or on many: an execution of a generated workflow of one task.

So there is one engine, one cancel, one history. What is to be run is kept in the plan as it was given: nothing in it is
a template, whatever braces it has.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, select

from app.compiler.build import build
from app.compiler.plan import FANOUT_ACTION, Plan
from app.engine.status import TASK_OVER, TIMED_OUT
from app.errors import Conflict, NotFound, TooLarge
from app.language.model import Task, Workflow
from app.services import fleet, queries
from app.services.control import Control
from app.services.history import Speaker
from app.services.runnable import Runnable
from app.services.targets import Targets, labelled, refuse_unknown, wrong
from app.services.targets import fleet_now as known_nodes
from app.store.tables import Execution, Job, Output, table
from app.store.tables import Task as TaskRow

executions, tasks, jobs = table(Execution), table(TaskRow), table(Job)
outputs = table(Output)

REF = "adhoc.command"
TASK = "run"

QUEUE_TIMEOUT = 5.0
"""Seconds that a command waits for a node that is away: somebody sits and waits as well."""

_UNSAID = ("bash", "sh")
"""What a node that never said which shells it has is taken to have, as the engine does."""
MOST_BYTES = 900_000
"""Bytes of what is to be run, as JSON: with its order around it, it fits what a node takes."""
SHOWN_AT_MOST = 1 << 20
"""Bytes of each stream in a result: as many as are kept of it where nobody set more."""


@dataclass(frozen=True, slots=True)
class Command:
    """What is to be run: exactly one of `command` (an argv, or text for `language`) and `script`.

    `timeout` is in seconds, `cwd` a directory on the node, `stdin` what the process reads.
    """

    command: Sequence[str] | str | None
    script: str | None
    language: str
    timeout: float
    cwd: str | None = None
    stdin: str | None = None

    @property
    def is_argv(self) -> bool:
        """Whether it runs without a shell."""
        return self.command is not None and not isinstance(self.command, str)

    def input(self) -> dict[str, Any]:
        """The input of the task that runs it."""
        given: dict[str, Any] = {"cwd": self.cwd, "stdin": self.stdin}
        if self.is_argv:
            given["command"] = list(self.command or ())
        else:
            given.update(script=self.script if self.command is None else self.command, shell=self.language)
        return {name: value for name, value in given.items() if value is not None}


def on_node(control: Control, node: str, command: Command) -> Runnable:
    """The workflow that runs a command on one node that is there and online.

    Raises NotFound, Conflict (it is offline or drained), InvalidInput (it has no such shell).
    """
    with control.store.read() as connection:
        found = fleet.get_node(control, connection, node)
    if found["state"] != "active":
        raise Conflict(
            f"node {node} is {found['state']}: it gets nothing new",
            hint=f"`muster node undrain {node}`, or take another one",
            code="node-draining",
        )
    if not found["online"]:
        why = (found["breaker"] or {}).get("error", "")
        raise Conflict(
            f"node {node} is offline{why and f': {why}'}",
            hint="start its worker; `muster node list` tells who is online"
            if found["transport"] == fleet.WORKER
            else f"`muster node show {node}` tells how the connection to it does",
            code="node-offline",
        )
    _check_shell(command, {node: found["shells"]})
    action = "core.shell" if command.is_argv else "core.script"
    task = Task(
        name=TASK,
        action=action,
        timeout=command.timeout,
        queue_timeout=QUEUE_TIMEOUT,
        on_unknown="fail",
        delegate_to=node,
    )
    return _runnable(task, command.input())


def on_nodes(control: Control, targets: Targets, command: Command) -> Runnable:
    """The workflow that runs a command on many nodes, with a row for each, whatever happens to it.

    Raises InvalidInput (labels that no node has, names that none has, a shell that none has), NotFound (none of the
    names is known).
    """
    fleet_now = known_nodes(control)
    if targets.labels is not None:
        where: Any = {"labels": dict(targets.labels)}
        known = labelled(fleet_now, targets.labels)
    else:
        where = list(targets.names or ())
        known = _named(fleet_now, where, targets.allow_unknown)
    _check_shell(command, {name: fleet_now[name].shells for name in known})
    given = {
        **command.input(),
        "nodes": where,
        "timeout": command.timeout,
        "max_failures": targets.max_failures,
    }
    if targets.batch is not None:
        given["batch"] = targets.batch
    task = Task(name=TASK, type="distributed_shell", action=FANOUT_ACTION, queue_timeout=QUEUE_TIMEOUT)
    return _runnable(task, given)


def _named(fleet_now: Mapping[str, Any], names: Sequence[str], allow_unknown: bool) -> list[str]:
    if not any(name in fleet_now for name in names):
        what = (
            f"none of the {len(names)} nodes named, {names[0]} first" if names[1:] else f"no node {names[0]}"
        )
        raise NotFound(f"there is {what}", hint="list them: `muster node list`", code="unknown-node")
    if not allow_unknown:
        refuse_unknown(fleet_now, names, "/nodes")
    return [name for name in names if name in fleet_now]


def _check_shell(command: Command, shells: Mapping[str, Sequence[str]]) -> None:
    if command.is_argv:
        return
    has = {shell for found in shells.values() for shell in (found or _UNSAID)}
    if command.language not in has:
        who = f"node {next(iter(shells))} has" if len(shells) == 1 else "these nodes have"
        hint = f"there is {', '.join(sorted(has))}"
        raise wrong(f"{who} no {command.language}", hint, code="no-shell", pointer="/language")


def _runnable(task: Task, given: Mapping[str, Any]) -> Runnable:
    """Compiled without its input, which is then put in as it is: a compiled one would have its braces bound.

    Raises TooLarge for what no order could carry.
    """
    told = {name: value for name, value in given.items() if name != "nodes"}
    size = len(json.dumps(told, ensure_ascii=False).encode())
    if size > MOST_BYTES:
        raise TooLarge(
            f"the command is {size} bytes as JSON, and may have {MOST_BYTES}",
            hint="put what is large on the nodes, or fetch it from there",
        )
    plan: Plan = build(Workflow(ref=REF, label="One command", tasks=(task,)))
    planned = replace(plan.tasks[TASK], input=dict(given), literal=tuple(given))
    written = {
        name: value
        for name in ("name", "action", "delegate_to", "timeout", "queue_timeout", "on_unknown")
        if (value := getattr(task, name))
    }
    definition = {"ref": REF, "tasks": [{**written, "input": dict(given)}]}
    source = json.dumps(definition, indent=2, ensure_ascii=False) + "\n"
    return Runnable(replace(plan, tasks={TASK: planned}), source, None)


@dataclass(frozen=True, slots=True)
class Result:
    """How far a command is. `over` says that it has ended, `complete` that its output is all here as well."""

    shown: dict[str, Any]
    over: bool
    complete: bool


def result(connection: Connection, execution: str, node: str) -> Result:
    """What became of a command on one node, in five statements. Raises NotFound where it was none, or elsewhere."""
    unit = _unit(connection, execution, node)
    streams = {
        row.stream: row
        for row in connection.execute(
            select(
                *(outputs.c[name] for name in ("stream", "kept", "truncated", "verified", "content"))
            ).where(outputs.c.job == unit["job"])
        )
    }
    over = unit["status"] in TASK_OVER
    shown = {
        "node_id": node,
        "execution": execution,
        "status": unit["status"],
        "exit_code": None if unit["status"] == TIMED_OUT else unit["exit_code"],
        **{name: _text(streams.get(name), (unit["result"] or {}).get(name)) for name in ("stdout", "stderr")},
        "truncated": any(
            row.truncated or not row.verified or row.kept > SHOWN_AT_MOST for row in streams.values()
        ),
        "error": unit["error"],
        "started_at": unit["started_at"],
        "completed_at": unit["ended_at"],
    }
    return Result(shown, over, over and all(row.verified for row in streams.values()))


def _unit(connection: Connection, execution: str, node: str) -> dict[str, Any]:
    query = select(executions.c.workflow_ref, tasks.c.name).join(tasks, tasks.c.execution == executions.c.id)
    found = connection.execute(query.where(executions.c.id == execution).limit(2)).all()
    if [tuple(row) for row in found] == [(REF, TASK)]:
        units = queries.units(connection, execution)
        # A command that never got as far as to a job was for no other node either.
        if len(units) == 1 and units[0]["node"] in (node, None):
            return units[0]
    raise unknown(execution, node)


def unknown(execution: str, node: str) -> NotFound:
    """That there is no such command on that node."""
    return NotFound(
        f"there is no execution {execution} of a command on node {node}",
        hint=f"look at it whole: `muster execution show {execution}`",
        code="unknown-execution",
    )


def _text(stored: Any, told: Any) -> str:
    if stored is None:
        return ""
    if not stored.verified:
        return str(told or "")
    return str(stored.content[-SHOWN_AT_MOST:].decode("utf-8", "backslashreplace"))


def speaker(connection: Connection, execution: str) -> Speaker | None:
    """The job of a command on one node, None where it never got as far."""
    query = select(jobs.c.id, jobs.c.task, jobs.c.node, jobs.c.unit).where(
        jobs.c.execution == execution, jobs.c.task == TASK
    )
    row = connection.execute(query.order_by(jobs.c.attempt.desc()).limit(1)).first()
    return None if row is None else Speaker(*row)
