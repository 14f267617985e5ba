"""Schedules on a desk of their own, whose clock a test sets; time passes in ticks."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from desk import Office
from sqlalchemy import insert, select, update

from app.services import library, roles, schedules, schedules_due
from app.services.people import Person
from app.services.schedule_targets import WORKFLOW, Target
from app.services.schedules import Wanted
from app.store.tables import Execution, Schedule, ScheduleTick, User, table

rows, ticks = table(Schedule), table(ScheduleTick)
executions, users = table(Execution), table(User)


def person(login: str, role: str) -> Person:
    """Somebody with a role that holds everywhere."""
    return Person(login, role, "", roles.EVERYWHERE[role])


QUICK = """
ref: demo.quick
tasks:
  - {name: a, action: core.noop}
"""
NAP = """
ref: demo.nap
tasks:
  - {name: nap, action: core.sleep, input: {seconds: 100}}
"""
ADA = person("ada", "operator")


def at(text: str) -> float:
    """Unix seconds of a moment in UTC, such as 2027-01-15T08:00."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def told(moment: float) -> str:
    """The minute of a moment, on that day."""
    return datetime.fromtimestamp(moment, UTC).strftime("%H:%M")


class Timetable:
    """Ada's schedules of two workflows, from 2027-01-15 08:00 UTC on."""

    def __init__(self, office: Office) -> None:
        self.office = office
        self.control, self.clock = office.control, office.clock
        with office.store.write() as connection:
            values = {"role": "operator", "enabled": True, "created_at": self.clock.now}
            connection.execute(insert(users), [{"login": "ada", **values}, {"login": "bob", **values}])
        for source in (QUICK, NAP):
            library.store_workflow(self.control, "demo", source, "ada")

    def add(self, name: str = "often", ref: str = "demo.quick", cron: str = "* * * * *", **more: Any) -> str:
        """A new schedule; its id."""
        target = Target(WORKFLOW, ref, parameters=more.pop("parameters", {}))
        zone = more.pop("zone", "UTC")
        return schedules.create(self.control, Wanted(name, target, cron, zone, **more), ADA)

    def pass_until(self, moment: float, step: float = 1.0) -> None:
        """A tick of schedules and timers every so many seconds, to the moment itself."""
        while self.clock.now < moment:
            self.clock.now = min(moment, self.clock.now + step)
            self.tick()

    def tick(self) -> None:
        schedules_due.look(self.office.desk)

    def row(self, schedule: str) -> Any:
        with self.office.store.read() as connection:
            return connection.execute(select(rows).where(rows.c.id == schedule)).one()

    def history(self, schedule: str) -> list[tuple[str, str, str]]:
        """(time, status, reason) of every tick, the oldest first."""
        with self.office.store.read() as connection:
            found = connection.execute(
                select(ticks).where(ticks.c.schedule == schedule).order_by(ticks.c.fire_time)
            )
            return [(told(row.fire_time), row.status, row.reason) for row in found]

    def executions(self, schedule: str) -> list[Any]:
        """What it started, the oldest first."""
        with self.office.store.read() as connection:
            query = select(executions).where(executions.c.schedule == schedule).order_by(executions.c.id)
            return list(connection.execute(query))

    def statuses(self, schedule: str) -> list[str]:
        return [row.status for row in self.executions(schedule)]

    def end(self, executions_: Sequence[str], status: str = "completed") -> None:
        """As if these executions had come to their end."""
        with self.office.store.write() as connection:
            values = {"status": status, "ended_at": self.clock.now}
            connection.execute(update(executions).where(executions.c.id.in_(executions_)).values(values))

    def set_user(self, login: str, **columns: Any) -> None:
        with self.office.store.write() as connection:
            connection.execute(update(users).where(users.c.login == login).values(columns))
