"""Schedules: what is to be run, when, and on whose behalf. Looked at whole before any is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, RowMapping, and_, delete, false, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from app.errors import Conflict, InvalidInput, NotAllowed, NotFound
from app.ids import ulid
from app.services import audit, cron, roles, scope, scripted
from app.services.control import Control
from app.services.cron import Cron
from app.services.guard import STORED
from app.services.misfires import next_tick
from app.services.people import Person
from app.services.schedule_targets import SCRIPT, WORKFLOW, Target, submission
from app.services.submit import fitted
from app.store.tables import Schedule, ScheduleTick, Script, table

schedules, ticks, scripts = table(Schedule), table(ScheduleTick), table(Script)

MOST: Final = 10_000
"""Schedules of an installation. One look at all of them has to stay short."""

_RUN: Final = ("kind", "ref", "version", "nodes", "parameters")
"""What of a schedule says what is run: whoever changes any of it wrote it, and approves nothing that it asks."""

DISABLED: Final = "disabled"
"""Why a tick that waited did not fire: the schedule was disabled in the meantime."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A schedule as somebody writes it. Times are seconds; `enabled` None leaves it as it is, and a new one enabled."""

    name: str
    target: Target
    cron: str
    zone: str
    description: str = ""
    enabled: bool | None = None
    misfire: str = "once"
    most: int = 1
    grace: float = 3600.0
    overlap: str = "skip"
    jitter: float = 0.0


def create(control: Control, wanted: Wanted, person: Person) -> str:
    """Keep a new schedule, which is this person's; its id.

    Raises InvalidInput with a pointer for each thing that is wrong (what it runs is not there, its
    parameters do not fit, its nodes do not exist, its expression is none or never fires), NotAllowed for what is out of
    the person's bounds, and Conflict where the name is taken.
    """
    now = control.clock()
    with audit.refusals(control, person.login, "schedule.create", wanted.name):
        _check_bounds(control, wanted.target, person)
        checked = _checked(control, wanted, person.login, now)
    id_ = ulid(now)
    enabled = wanted.enabled is not False
    values = {
        "id": id_,
        **checked,
        "enabled": enabled,
        **_next(id_, checked, now, enabled=enabled),
        "owner": person.login,
        "written_by": person.login,
        "updated_by": person.login,
        "created_at": now,
        "updated_at": now,
    }
    with audit.writing(control, person.login, "schedule.create", id_, _told(checked)) as connection:
        _refuse_too_many(connection)
        try:
            with connection.begin_nested():
                connection.execute(insert(Schedule), values)
        except IntegrityError:
            raise _name_taken(wanted.name) from None
    return id_


def change(control: Control, schedule: str, wanted: Wanted, person: Person, *, expected: int | None) -> None:
    """Write a schedule anew. Its next time stays what it is unless when it fires has changed.

    Raises as `create`, NotFound, NotAllowed (it is somebody else's), and Conflict where `expected` is not its revision.
    """
    now = control.clock()
    with control.store.read() as connection:
        owner = get(connection, schedule, person)["owner"]
    with audit.refusals(control, person.login, "schedule.change", schedule):
        _check_bounds(control, wanted.target, person)
        checked = _checked(control, wanted, owner, now)

    def written(row: RowMapping) -> dict[str, Any]:
        enabled = row["enabled"] if wanted.enabled is None else wanted.enabled
        same = all(row[name] == checked[name] for name in ("cron", "zone", "jitter"))
        when = {} if same and enabled == row["enabled"] else _next(row["id"], checked, now, enabled=enabled)
        is_same = all(row[name] == checked[name] for name in _RUN)
        wrote = {} if is_same else {"written_by": person.login}
        return {**checked, **when, **wrote, "enabled": enabled}

    try:
        _write(control, schedule, person, "schedule.change", written, expected, _told(checked))
    except IntegrityError:
        raise _name_taken(wanted.name) from None


def enable(control: Control, schedule: str, person: Person) -> None:
    """Let it fire again, from its next time on: what would have been in between does not. Twice changes nothing.

    `schedule` is an id or a name, here and below. Raises NotFound, NotAllowed.
    """
    _switch(control, schedule, person, enabled=True)


def disable(control: Control, schedule: str, person: Person) -> None:
    """Let it fire no more; a tick that waits is skipped. What runs goes on. Twice changes nothing.

    Raises NotFound, NotAllowed.
    """
    _switch(control, schedule, person, enabled=False)


def _switch(control: Control, schedule: str, person: Person, *, enabled: bool) -> None:
    now = control.clock()

    def written(row: RowMapping) -> dict[str, Any]:
        if row["enabled"] == enabled:
            return {}
        return {"enabled": enabled, **_next(row["id"], row, now, enabled=enabled)}

    _write(control, schedule, person, f"schedule.{'enable' if enabled else 'disable'}", written)


def remove(control: Control, schedule: str, person: Person, *, expected: int | None = None) -> None:
    """Forget a schedule and its history; executions stay. Raises NotFound, NotAllowed, Conflict."""
    with audit.writing(control, person.login, "schedule.delete", schedule) as connection:
        row = _locked(connection, schedule, person, expected)
        connection.execute(delete(schedules).where(schedules.c.id == row["id"]))


def _write(
    control: Control,
    schedule: str,
    person: Person,
    action: str,
    written: Callable[[RowMapping], Mapping[str, Any]],
    expected: int | None = None,
    told: Mapping[str, Any] | None = None,
) -> None:
    """Change what `written` says of the locked row; nothing where it says nothing."""
    now = control.clock()
    with audit.writing(control, person.login, action, schedule, told) as connection:
        row = _locked(connection, schedule, person, expected)
        values = dict(written(row))
        if not values:
            return
        values |= {"revision": row["revision"] + 1, "updated_by": person.login, "updated_at": now}
        if not values.get("enabled", row["enabled"]) and row["waiting"] is not None:
            mine = (ticks.c.schedule == row["id"], ticks.c.fire_time == row["waiting"])
            gone = {"status": "skipped", "reason": DISABLED, "at": now}
            connection.execute(update(ticks).where(*mine).values(gone))
            values |= {"waiting": None, "last_status": "skipped", "last_reason": DISABLED}
        connection.execute(update(schedules).where(schedules.c.id == row["id"]).values(values))


def _locked(connection: Connection, schedule: str, person: Person, expected: int | None) -> RowMapping:
    """The row until the transaction ends. Raises NotFound, NotAllowed, Conflict."""
    query = select(schedules).where(_is(schedule), *_seen_by(person)).with_for_update()
    row = connection.execute(query).mappings().first()
    if row is None:
        raise _unknown(schedule)
    if row["owner"] != person.login and not person.may("admin"):
        raise NotAllowed(
            f"the schedule {row['name']} is {row['owner']}'s",
            hint=f"{row['owner']} or an administrator may change it",
            code="not-owner",
        )
    if expected is not None and row["revision"] != expected:
        raise Conflict(
            f"the schedule is at revision {row['revision']}, not {expected}",
            hint="read it again and repeat the change",
            code="revision-conflict",
        )
    return row


# what may be kept


def _checked(control: Control, wanted: Wanted, owner: str, now: float) -> dict[str, Any]:
    """The columns of what is wanted. Raises InvalidInput, and NotAllowed for what its owner may not run."""
    times = cron.read(wanted.cron, wanted.zone, now)
    target = wanted.target
    _refuse_nodes_of_workflow(target)
    try:
        asked = submission(control, target, owner)
        fitted(control, asked)
        with control.store.read() as connection:
            plan, kind = asked.plan, asked.kind
            scope.check_submission(control, connection, owner, plan, origin=STORED, kind=kind)
    except NotFound as error:
        pointer = "/version" if error.code == "unknown-version" else f"/{target.kind}"
        raise _pointed(error, pointer) from None
    except InvalidInput as error:
        raise _pointed(error) from None
    return {
        "name": wanted.name,
        "description": wanted.description,
        "kind": target.kind,
        "ref": asked.script if target.kind == SCRIPT else target.ref,
        "version": target.version,
        "nodes": dict(target.nodes),
        "parameters": dict(target.parameters),
        "cron": times.expression,
        "zone": times.zone,
        "misfire": wanted.misfire,
        "most": wanted.most,
        "grace": wanted.grace,
        "overlap": wanted.overlap,
        "jitter": wanted.jitter,
    }


def _check_bounds(control: Control, target: Target, person: Person) -> None:
    """Raises NotAllowed for what is out of the person's bounds, before anything is told of what there is."""
    if not person.is_scoped:
        return
    names = target.nodes.get("host_ids") or ()
    pack = scripted.PACK if target.kind == SCRIPT else scope.pack_of(target.ref)
    with control.store.read() as connection:
        scope.check_nodes(control, connection, person, names, pack, "/host_ids")


def _refuse_nodes_of_workflow(target: Target) -> None:
    if target.kind != WORKFLOW:
        return
    for name in target.nodes:
        detail, hint = "a workflow says itself where it runs", "leave it out, or schedule a script"
        error = {"pointer": f"/{name}", "detail": detail, "hint": hint}
        raise InvalidInput(detail, hint=hint, code="no-nodes-here", errors=[error])


def _pointed(error: InvalidInput | NotFound, pointer: str = "") -> InvalidInput:
    """The same, with its pointers as a schedule's text has them."""
    errors = [
        {**one, "pointer": f"/parameters{one['pointer'].removeprefix('/parameter_values')}"}
        if one.get("pointer", "").startswith("/parameter_values")
        else one
        for one in error.detail.get("errors") or ()
    ]
    errors = errors or [{"pointer": pointer, "detail": error.message, "hint": error.hint}]
    return InvalidInput(error.message, hint=error.hint, code=error.code, errors=errors)


def _next(schedule: str, of: Mapping[str, Any] | RowMapping, now: float, *, enabled: bool) -> dict[str, Any]:
    """When it fires next, and how it begins anew: nothing of the past is made up for."""
    tick = next_tick(schedule, Cron(of["cron"], of["zone"]), now, of["jitter"]) if enabled else None
    return {"next_run": tick and tick.fire_time, "due_at": tick and tick.due_at, "skips": 0}


def _told(checked: Mapping[str, Any]) -> dict[str, Any]:
    """What the audit trail says of it: no parameters, which may be anybody's."""
    return {name: checked[name] for name in ("name", "kind", "ref", "version", "cron", "zone", "overlap")}


def _refuse_too_many(connection: Connection) -> None:
    if len(connection.execute(select(schedules.c.id).limit(MOST)).all()) >= MOST:
        raise Conflict(f"there are {MOST} schedules", hint="delete some of them", code="too-many-schedules")


def _name_taken(name: str) -> Conflict:
    detail, hint = f"there is a schedule {name} already", "choose another name, or change that one"
    errors = [{"pointer": "/name", "detail": detail, "hint": hint}]
    return Conflict(detail, hint=hint, code="schedule-exists", errors=errors)


def _unknown(schedule: str) -> NotFound:
    hint = "list them: `muster schedule list`"
    return NotFound(f"there is no schedule {schedule}", hint=hint, code="unknown-schedule")


# reading


def _is(schedule: str) -> ColumnElement[bool]:
    return or_(schedules.c.id == schedule, schedules.c.name == schedule)


_shown = select(schedules, scripts.c.name.label("script_name")).outerjoin(
    scripts, and_(schedules.c.kind == SCRIPT, scripts.c.id == schedules.c.ref)
)


def _seen_by(person: Person) -> tuple[ColumnElement[bool], ...]:
    """Schedules of the packs that somebody may see; scripts are of one pack."""
    packs = roles.packs_of(person.grants, "viewer")
    if packs is None:
        return ()
    mine = [schedules.c.ref.startswith(f"{pack}.", autoescape=True) for pack in sorted(packs)]
    of_workflow = and_(schedules.c.kind == WORKFLOW, or_(false(), *mine))
    return (or_(of_workflow, schedules.c.kind == SCRIPT) if scripted.PACK in packs else of_workflow,)


def get(connection: Connection, schedule: str, person: Person) -> RowMapping:
    """One schedule that somebody may see, by its id or name, with the name of its script. Raises NotFound."""
    query = _shown.where(_is(schedule), *_seen_by(person))
    found = connection.execute(query).mappings().first()
    if found is None:
        raise _unknown(schedule)
    return found


def list_schedules(
    connection: Connection,
    person: Person,
    *,
    limit: int,
    after: str | None = None,
    enabled: bool | None = None,
) -> list[RowMapping]:
    """Schedules that somebody may see, by name, those behind `after`."""
    query = _shown.where(*_seen_by(person)).order_by(schedules.c.name).limit(limit)
    if after is not None:
        query = query.where(schedules.c.name > after)
    if enabled is not None:
        query = query.where(schedules.c.enabled.is_(enabled))
    return list(connection.execute(query).mappings())


def history(
    connection: Connection, schedule: str, person: Person, *, limit: int, before: float | None = None
) -> list[RowMapping]:
    """What became of its times, the newest first, those before a time in Unix seconds. Raises NotFound."""
    query = select(ticks).where(ticks.c.schedule == get(connection, schedule, person)["id"])
    if before is not None:
        query = query.where(ticks.c.fire_time < before)
    return list(connection.execute(query.order_by(ticks.c.fire_time.desc()).limit(limit)).mappings())
