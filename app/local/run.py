"""A part of a workflow in this process: the engine decides, a runner of our own runs the scripts, this clock is waited
for. There is no server, no broker and no database.
"""

from __future__ import annotations

import getpass
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from app.compiler.part import cut
from app.compiler.plan import LOCAL, Plan
from app.engine.context import first_scopes
from app.engine.draft import view
from app.engine.rehearsal import Rehearsal
from app.engine.replan import first_values
from app.engine.state import Node
from app.engine.status import CANCEL, COMPLETED, FAILED, TIMED_OUT
from app.errors import Unavailable
from app.ids import ulid
from app.language.expressions import TemplateError
from app.language.part import Part
from app.local.player import Events, Player, Watcher, clock
from app.local.state import State, put_into
from app.node import shells

SLOTS: Final = 8
"""Scripts at a time, as on a node of which nothing else is said."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How it ended: completed, failed, cancelled or timed_out; `error` is {type, message, task} unless completed."""

    status: str
    error: Mapping[str, Any] | None
    state: State
    output: Any = None

    def to_json(self) -> dict[str, Any]:
        """The document that is left: it can be given to the next part as it is."""
        given = {"parameters": self.state.parameters, "vars": self.state.vars, "task": self.state.task}
        more = {"system": self.state.system} if self.state.system else {}
        return {**given, **more, "status": self.status, "error": self.error, "output": self.output}


def run(
    plan: Plan,
    part: Part,
    given: State,
    watcher: Watcher,
    events: Events,
    *,
    timeout: float | None = None,
    slots: int = SLOTS,
) -> Ended:
    """Run a part of a plan to its end. `given.parameters` are bound already.

    A STOPPED event cancels it; a second one leaves out `finally` as well. After `timeout` seconds it is stopped, and
    with it every script.
    """
    system = {**_system(), **given.system}
    world = Rehearsal(cut(plan, part), _fleet(), given.parameters, now=clock()(), system=system)
    try:
        first = dict(first_values(plan, first_scopes(plan, world.execution, {}), given.vars))
    except TemplateError as problem:
        return Ended(FAILED, _error("template", problem.message), given)
    world.preset({**given.vars, **first})
    for name, one in given.task.items():
        if name in world.tasks and name not in part.inside:
            put_into(world.tasks[name], one)
    player = Player(world, watcher, events, slots)
    broken = ""
    try:
        player.play(timeout)
    except Unavailable as problem:
        broken = problem.message
    finally:
        player.close()
    return _ended(player, given, part, broken)


def _ended(player: Player, given: State, part: Part, broken: str) -> Ended:
    world = player.world
    seen = {name: view(row) for name, row in world.tasks.items() if name in part.inside}
    state = replace(given, vars=world.vars, task={**given.task, **seen})
    run = world.execution
    if broken:
        return Ended(FAILED, _error("runner", broken), state)
    if run.intent == CANCEL and player.stopped is not None:
        kind, message = player.stopped
        return Ended(kind, _error("timeout" if kind == TIMED_OUT else kind, message), state, run.output)
    error = None if run.status == COMPLETED else _why(world, part)
    return Ended(run.status, error, state, run.output)


def _why(world: Rehearsal, part: Part) -> dict[str, Any]:
    """What failed it: something beside the tasks, or the first failure that nothing handled."""
    run = world.execution
    failed = [
        row
        for name, row in world.tasks.items()
        if name in part.inside
        and row.status in (FAILED, TIMED_OUT)
        and world.plan.tasks[name].parent is None
        and not world.plan.tasks[name].handles(row.status)
    ]
    if not failed or (run.ended_badly and run.ended_badly != "finally"):
        return _error(run.ended_badly, run.error_message)
    first = min(failed, key=lambda row: row.ended_at or 0.0)
    error = first.error or {}
    return _error(str(error.get("type", first.status)), str(error.get("message", "")), first.name)


def _system() -> dict[str, Any]:
    try:
        login = getpass.getuser()
    except (OSError, KeyError):  # no name for this user's number
        login = ""
    now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return {"execution_id": ulid(), "timestamp": now, "identity": {"login": login}}


def _fleet() -> dict[str, Node]:
    return {LOCAL: Node(LOCAL, shells=shells.available())}


def _error(kind: str, message: str, task: str | None = None) -> dict[str, Any]:
    return {"type": kind, "message": message, "task": task}
