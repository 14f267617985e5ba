"""Two that tick at once, and one that dies at any point: each time of a schedule has one row and one execution."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from desk import Office, office_on
from sqlalchemy import func, select
from timetable import Timetable, at, executions, rows, ticks

from app.services import schedules_due
from app.services.apart import log as failures
from app.services.installation import LEASE
from app.services.tick import tick
from app.store.db import Store

EVERY = int(os.environ.get("MUSTER_TEST_FAILPOINT_EVERY", "4"))
"""Every how many points one is tried: 1 tries all."""
EIGHT = at("2027-01-15T08:00")


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=[pytest.mark.postgres, pytest.mark.long])])
def office(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Office]:
    with office_on(request.param, tmp_path, ["web-1"]) as made:
        yield made


def doubled(office: Office) -> list[str]:
    """Schedules with more executions than ticks that fired."""
    with office.store.read() as connection:
        fired = select(ticks.c.schedule, func.count(), func.count(ticks.c.execution.distinct()))
        of_ticks = {
            row[0]: row[1:]
            for row in connection.execute(fired.where(ticks.c.status == "fired").group_by(ticks.c.schedule))
        }
        of_schedule = select(executions.c.schedule, func.count()).group_by(executions.c.schedule)
        started = {schedule: count for schedule, count in connection.execute(of_schedule)}
    return [name for name, count in started.items() if of_ticks.get(name) != (count, count)]


class Tickers:
    """Two control workers with stores of their own, which look at the same moment."""

    def __init__(self, office: Office) -> None:
        url = office.store.url.render_as_string(hide_password=False)
        self._stores = [Store(url) for _ in range(2)]
        self._desks = [
            replace(office.desk, control=replace(office.control, store=one)) for one in self._stores
        ]
        self._start, self._end = threading.Barrier(3), threading.Barrier(3)
        self._goes_on = True
        self.wrong: list[BaseException] = []
        self._threads = [threading.Thread(target=self._run, args=(desk,)) for desk in self._desks]
        for thread in self._threads:
            thread.start()

    def _run(self, desk: object) -> None:
        while True:
            self._start.wait()
            if not self._goes_on:
                return
            try:
                schedules_due.look(desk)  # type: ignore[arg-type]
            except BaseException as error:
                self.wrong.append(error)
            self._end.wait()

    def look(self) -> None:
        self._start.wait()
        self._end.wait()

    def close(self) -> None:
        self._goes_on = False
        self._start.wait()
        for thread in self._threads:
            thread.join()
        for store in self._stores:
            store.close()


@pytest.mark.long
def test_two_workers_over_a_thousand_ticks_double_none(
    office: Office, caplog: pytest.LogCaptureFixture
) -> None:
    times = Timetable(office)
    found = [
        times.add("allow", overlap="allow"),
        times.add("skip", overlap="skip"),
        times.add("queue", overlap="queue"),
        times.add("cancel", overlap="cancel"),
        times.add("spread", overlap="allow", jitter=20.0),
    ]
    tickers = Tickers(office)
    try:
        for minute in range(1, 201):
            times.clock.now = EIGHT + 60 * minute + 30
            tickers.look()
    finally:
        tickers.close()
    assert tickers.wrong == []
    assert [record for record in caplog.records if record.name == failures.name] == []
    assert doubled(office) == []
    for schedule in found:
        history = times.history(schedule)
        assert len(history) == 200, schedule
        assert Counter(status for _, status, _ in history) == {"fired": 200}
        assert len(times.executions(schedule)) == 200


def test_two_workers_at_one_execution_that_does_not_end(office: Office) -> None:
    times = Timetable(office)
    found = {name: times.add(name, ref="demo.nap", overlap=name) for name in ("skip", "queue", "cancel")}
    tickers = Tickers(office)
    try:
        for minute in range(1, 21):
            times.clock.now = EIGHT + 60 * minute
            tickers.look()
            open_ = [one.id for one in times.executions(found["queue"]) if one.status == "waiting"]
            assert len(open_) == 1
            if minute % 5 == 0:
                times.end(open_)
    finally:
        tickers.close()
    assert tickers.wrong == []
    assert doubled(office) == []
    assert {name: len(times.history(one)) for name, one in found.items()} == dict.fromkeys(found, 20)
    assert Counter(times.statuses(found["skip"])) == {"waiting": 1}
    assert Counter(times.statuses(found["cancel"])) == {"cancelled": 19, "waiting": 1}
    # One for the first, and one for each that had waited for an end.
    assert len(times.executions(found["queue"])) in (4, 5)


@pytest.mark.long
def test_beats_that_tick_twice_and_workers_that_share_the_lease(office: Office) -> None:
    times = Timetable(office)
    schedule = times.add(overlap="allow")
    for second in range(1, 301):
        times.clock.now = EIGHT + second
        for worker in ("control-1", "control-2") * 2:
            tick(office.desk, worker)
    assert len(times.history(schedule)) == len(times.executions(schedule)) == 5
    # The holder is gone; the other takes over when the lease runs out.
    for second in range(301, 421):
        times.clock.now = EIGHT + second
        tick(office.desk, "control-2")
    assert LEASE < 60
    assert len(times.history(schedule)) == len(times.executions(schedule)) == 7


DIES = """
import os, signal, sys
from dataclasses import replace
from sqlalchemy import Engine, event
from app.services import schedules_due
from app.services.control import Control
from app.settings import Settings
from app.store import prepared
from app.store.db import Store

url, now, at = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
control = Control(Settings(), Store(url), clock=lambda: now)
count = 0

def point(*_):
    global count
    count += 1
    if count == at:
        os.kill(os.getpid(), signal.SIGKILL)

class Desk:
    pass

desk = Desk()
desk.control = control
execute = prepared.execute
def pointed(*given, **options):
    point()
    return execute(*given, **options)
prepared.execute = pointed
event.listen(Engine, "before_cursor_execute", point)
event.listen(Engine, "commit", point)
schedules_due.look(desk)
print(count)
"""


def killed_at(office: Office, moment: float, point: int) -> bool:
    """Whether a process that looks at schedules and kills itself at a point had as many: between any two statements."""
    url = office.store.url.render_as_string(hide_password=False)
    words = [sys.executable, "-c", DIES, url, str(moment), str(point)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, env=dict(os.environ))
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode != 0


@pytest.mark.long
@pytest.mark.timeout(600)
def test_who_dies_between_any_two_statements_neither_doubles_nor_loses(office: Office) -> None:
    times = Timetable(office)
    schedule = times.add(ref="demo.nap", overlap="cancel")
    deaths = 0
    for minute, point in enumerate(range(1, 500, EVERY), 1):
        moment = EIGHT + 60 * minute
        died = killed_at(office, moment, point)
        assert doubled(office) == [], point
        deaths += died
        # Whoever comes next sees to what was left.
        times.clock.now = moment + 1
        times.tick()
        assert len(times.history(schedule)) == minute, point
        assert len(times.executions(schedule)) == minute, point
        assert Counter(times.statuses(schedule)) == Counter(["waiting", *["cancelled"] * (minute - 1)]), point
        if not died:
            break
    assert deaths > 20 // EVERY


def test_two_schedules_due_at_once_do_not_stop_each_other(
    office: Office, caplog: pytest.LogCaptureFixture
) -> None:
    times = Timetable(office)
    broken, sound = times.add("broken"), times.add("sound")
    with office.store.write() as connection:
        connection.execute(rows.update().where(rows.c.id == broken).values(zone="Nowhere/None"))
    times.clock.now = EIGHT + 60
    times.tick()
    assert times.history(sound) == [("08:01", "fired", "")]
    assert "schedule broken" in caplog.text
