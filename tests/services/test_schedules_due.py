"""What becomes of the times of a schedule: fired, waiting, skipped or missed, and each once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from desk import executions, office_on
from sqlalchemy import func, select, update
from timetable import ADA, NAP, Timetable, at, person, rows, ticks, told

from app.errors import NotAllowed, NotFound
from app.services import library, retention, roles, schedules
from app.services.misfires import spread
from app.services.people import Person
from app.services.schedule_targets import WORKFLOW, Target
from app.services.schedules import Wanted
from app.store.tables import AuditEntry, table

EIGHT = at("2027-01-15T08:00")
audit = table(AuditEntry)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=[pytest.mark.postgres, pytest.mark.long])])
def times(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Timetable]:
    with office_on(request.param, tmp_path, ["web-1"]) as office:
        yield Timetable(office)


def test_each_time_fires_once_as_it_comes(times: Timetable) -> None:
    schedule = times.add(cron="*/2 * * * *")
    assert told(times.row(schedule).next_run) == "08:02"
    times.pass_until(EIGHT + 119)
    assert times.history(schedule) == []
    times.pass_until(EIGHT + 245)
    assert times.history(schedule) == [("08:02", "fired", ""), ("08:04", "fired", "")]
    row = times.row(schedule)
    found = times.executions(schedule)
    assert [one.requester for one in found] == ["ada", "ada"]
    assert [one.id for one in found][-1] == row.last_execution
    assert (told(row.next_run), row.last_run, row.last_status) == ("08:06", EIGHT + 240, "completed")
    assert len({one.trace_id for one in found}) == 2


def test_the_status_follows_the_execution(times: Timetable) -> None:
    schedule = times.add(ref="demo.nap")
    times.pass_until(EIGHT + 60)
    assert times.row(schedule).last_status == "waiting"
    times.end([times.row(schedule).last_execution], "failed")
    times.pass_until(EIGHT + 61)
    assert times.row(schedule).last_status == "failed"


# times that nobody saw


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ({"misfire": "skip"}, ["missed late"] * 9 + ["fired "]),
        ({"misfire": "once"}, ["missed late"] * 4 + ["missed superseded"] * 5 + ["fired "]),
        ({"misfire": "all", "most": 3}, ["missed late"] * 4 + ["missed superseded"] * 3 + ["fired "] * 3),
        ({"misfire": "all", "most": 50}, ["missed late"] * 4 + ["fired "] * 6),
        ({"misfire": "once", "grace": 0}, ["missed late"] * 9 + ["fired "]),
    ],
    ids=str,
)
def test_after_ten_minutes_away(times: Timetable, policy: dict[str, object], expected: list[str]) -> None:
    schedule = times.add(**{"grace": 320.0, "overlap": "allow", **policy})
    times.pass_until(EIGHT + 610, step=610)
    assert [f"{status} {reason}" for _, status, reason in times.history(schedule)] == expected
    assert len(times.executions(schedule)) == expected.count("fired ")
    times.pass_until(EIGHT + 660)
    assert times.history(schedule)[-1] == ("08:11", "fired", "")


def test_what_is_longer_ago_than_its_grace_is_missed(times: Timetable) -> None:
    schedule = times.add(cron="0 9 * * *")
    times.pass_until(at("2027-01-15T10:00:01"), step=7201)
    assert times.history(schedule) == [("09:00", "missed", "late")]
    assert times.executions(schedule) == []
    assert told(times.row(schedule).next_run) == "09:00"


def test_a_time_counts_as_on_time_for_a_minute(times: Timetable) -> None:
    schedule = times.add(cron="0 9 * * *", misfire="skip")
    times.pass_until(at("2027-01-15T09:01"), step=3660)
    assert times.history(schedule) == [("09:00", "fired", "")]


def test_a_week_away_is_written_in_bounded_steps(times: Timetable) -> None:
    schedule = times.add()
    times.clock.now += 7 * 86400
    times.tick()
    assert len(times.history(schedule)) == 2000
    for _ in range(5):
        times.tick()
    history = times.history(schedule)
    assert len(history) == 7 * 1440
    assert [status for _, status, _ in history].count("fired") == 1
    assert history[-1][1] == "fired"


def test_of_years_away_only_what_is_kept_has_rows(times: Timetable) -> None:
    schedule = times.add(cron="0 0 * * *")
    times.clock.now += 3 * 365 * 86400
    times.tick()
    assert len(times.history(schedule)) in (90, 91)
    assert times.row(schedule).next_run > times.clock.now


# overlap


def test_skip_leaves_the_running_one_alone_and_alarms_after_three(
    times: Timetable, caplog: pytest.LogCaptureFixture
) -> None:
    schedule = times.add(ref="demo.nap", overlap="skip")
    times.pass_until(EIGHT + 250)
    assert [status for _, status, _ in times.history(schedule)] == ["fired", "skipped", "skipped", "skipped"]
    assert {reason for _, _, reason in times.history(schedule)} == {"", "overlap"}
    assert times.statuses(schedule) == ["waiting"]
    assert "has skipped 3 times in a row" in caplog.text
    with times.office.store.read() as connection:
        alarms = connection.execute(select(audit).where(audit.c.action == "schedule.alarm")).all()
    assert [(row.person, row.subject, row.detail["skips"]) for row in alarms] == [("ada", schedule, 3)]
    times.pass_until(EIGHT + 310)
    assert times.row(schedule).skips == 4
    assert caplog.text.count("times in a row") == 1
    times.end([times.row(schedule).last_execution])
    times.pass_until(EIGHT + 360)
    assert (times.row(schedule).skips, len(times.executions(schedule))) == (0, 2)


@pytest.mark.parametrize(
    "status", ["requested", "scheduling", "running", "waiting", "pausing", "paused", "cancelling"]
)
def test_whatever_is_not_over_counts(times: Timetable, status: str) -> None:
    schedule = times.add(ref="demo.nap", overlap="skip")
    times.pass_until(EIGHT + 60)
    with times.office.store.write() as connection:
        connection.execute(update(executions).values(status=status))
    times.pass_until(EIGHT + 120)
    assert times.history(schedule)[-1] == ("08:02", "skipped", "overlap")


def test_executions_that_others_start_do_not_count(times: Timetable) -> None:
    schedule, other = times.add(ref="demo.nap"), times.add("other", ref="demo.nap")
    times.office.hand_in(NAP)
    times.pass_until(EIGHT + 60)
    assert [len(times.executions(one)) for one in (schedule, other)] == [1, 1]


def test_allow_lets_them_run_side_by_side(times: Timetable) -> None:
    schedule = times.add(ref="demo.nap", overlap="allow")
    times.pass_until(EIGHT + 180)
    assert times.statuses(schedule) == ["waiting"] * 3


def test_queue_lets_one_wait_which_fires_as_the_earlier_one_ends(times: Timetable) -> None:
    schedule = times.add(ref="demo.nap", overlap="queue")
    times.pass_until(EIGHT + 185)
    assert times.history(schedule) == [
        ("08:01", "fired", ""),
        ("08:02", "queued", "overlap"),
        ("08:03", "skipped", "overlap"),
    ]
    assert told(times.row(schedule).waiting) == "08:02"
    times.end([times.row(schedule).last_execution])
    times.pass_until(EIGHT + 186)
    assert times.history(schedule)[1] == ("08:02", "fired", "overlap")
    assert times.statuses(schedule) == ["completed", "waiting"]
    assert times.row(schedule).waiting is None
    times.pass_until(EIGHT + 240)
    assert times.history(schedule)[-1] == ("08:04", "queued", "overlap")


def test_cancel_ends_the_old_one_and_starts_the_new(times: Timetable) -> None:
    schedule = times.add(ref="demo.nap", overlap="cancel")
    times.pass_until(EIGHT + 180)
    assert [status for _, status, _ in times.history(schedule)] == ["fired"] * 3
    assert times.statuses(schedule) == ["cancelled", "cancelled", "waiting"]
    with times.office.store.read() as connection:
        found = connection.execute(select(audit).where(audit.c.action == "execution.cancel")).all()
    assert [(row.person, row.detail["reason"]) for row in found] == [
        ("ada", "schedule often starts anew")
    ] * 2


# what stands against it


def test_a_disabled_owners_times_are_skipped(times: Timetable) -> None:
    schedule = times.add()
    times.set_user("ada", enabled=False)
    times.pass_until(EIGHT + 60)
    times.set_user("ada", enabled=True, role="viewer")
    times.pass_until(EIGHT + 120)
    times.set_user("ada", role="operator")
    times.pass_until(EIGHT + 180)
    assert times.history(schedule) == [
        ("08:01", "skipped", "owner-disabled"),
        ("08:02", "skipped", "owner-not-allowed"),
        ("08:03", "fired", ""),
    ]
    with times.office.store.read() as connection:
        refused = connection.execute(select(audit).where(audit.c.action == "schedule.fire")).all()
    assert [row.outcome for row in refused] == ["refused", "refused"]


def test_what_the_owner_may_is_looked_at_as_the_time_comes(times: Timetable) -> None:
    schedule = times.add()
    for packs, minute in ((["other"], 1), (["demo"], 2)):
        times.set_user("ada", role="", grants=[{"role": "operator", "packs": packs}])
        times.control.scoped.forget()
        times.pass_until(EIGHT + 60 * minute)
    assert times.history(schedule) == [("08:01", "skipped", "out-of-scope"), ("08:02", "fired", "")]


def test_nobody_schedules_or_sees_what_is_not_theirs(times: Timetable) -> None:
    schedule = times.add()
    given = [{"role": "operator", "packs": ["other"]}]
    times.set_user("bob", role="", grants=given)
    times.control.scoped.forget()
    bob = Person("bob", "", "", roles.kept("", given))
    wanted = Wanted("bobs", Target(WORKFLOW, "demo.quick"), "* * * * *", "UTC")
    with pytest.raises(NotAllowed, match="bob is no operator of the pack demo"):
        schedules.create(times.control, wanted, bob)
    with times.office.store.read() as connection:
        assert schedules.list_schedules(connection, bob, limit=10) == []
        assert [row["id"] for row in schedules.list_schedules(connection, ADA, limit=10)] == [schedule]
        with pytest.raises(NotFound):
            schedules.get(connection, schedule, bob)
    with pytest.raises(NotFound):
        schedules.remove(times.control, schedule, bob)


def test_a_deleted_workflows_times_are_skipped_with_the_reason(times: Timetable) -> None:
    schedule = times.add()
    library.delete_workflow(times.control, "demo.quick", "ada")
    times.pass_until(EIGHT + 60)
    assert times.history(schedule) == [("08:01", "skipped", "unknown-workflow")]
    row = times.row(schedule)
    assert (row.last_status, row.last_reason) == ("skipped", "unknown-workflow")


def test_a_workflow_that_wants_more_by_now_is_skipped_with_the_reason(times: Timetable) -> None:
    schedule = times.add()
    source = "ref: demo.quick\nparameters: {x: {type: string, required: true}}\ntasks: [{name: a, action: core.noop}]\n"
    library.store_workflow(times.control, "demo", source, "ada")
    times.pass_until(EIGHT + 60)
    assert times.history(schedule) == [("08:01", "skipped", "invalid-parameters")]


def test_with_the_feature_off_times_are_recorded_as_skipped(times: Timetable) -> None:
    schedule = times.add(overlap="queue", ref="demo.nap")
    times.pass_until(EIGHT + 120)
    settings = replace(times.control.settings, automation_script_schedule=False)
    times.office.desk = replace(times.office.desk, control=replace(times.control, settings=settings))
    times.pass_until(EIGHT + 180)
    assert times.history(schedule)[1:] == [
        ("08:02", "queued", "overlap"),
        ("08:03", "skipped", "feature-off"),
    ]
    times.end([times.row(schedule).last_execution])
    times.pass_until(EIGHT + 240)
    assert times.history(schedule) == [
        ("08:01", "fired", ""),
        ("08:02", "skipped", "feature-off"),
        ("08:03", "skipped", "feature-off"),
        ("08:04", "skipped", "feature-off"),
    ]


# people


def test_disabled_and_enabled_in_place_without_the_past(times: Timetable) -> None:
    schedule = times.add()
    times.pass_until(EIGHT + 60)
    schedules.disable(times.control, schedule, ADA)
    assert times.row(schedule).next_run is None
    times.pass_until(EIGHT + 600, step=20)
    schedules.enable(times.control, schedule, ADA)
    assert told(times.row(schedule).next_run) == "08:11"
    schedules.enable(times.control, schedule, ADA)
    times.pass_until(EIGHT + 660)
    assert times.history(schedule) == [("08:01", "fired", ""), ("08:11", "fired", "")]


def test_a_tick_that_waits_does_not_outlive_the_schedule_being_disabled(times: Timetable) -> None:
    schedule = times.add(ref="demo.nap", overlap="queue")
    times.pass_until(EIGHT + 120)
    schedules.disable(times.control, schedule, ADA)
    times.end([times.row(schedule).last_execution])
    schedules.enable(times.control, schedule, ADA)
    times.pass_until(EIGHT + 125)
    assert times.history(schedule) == [("08:01", "fired", ""), ("08:02", "skipped", "disabled")]


def test_a_change_of_when_begins_anew_and_any_other_keeps_the_next_time(times: Timetable) -> None:
    schedule = times.add(cron="0 9 * * *")
    wanted = Wanted("renamed", Target(WORKFLOW, "demo.nap"), "0 9 * * *", "UTC", overlap="allow")
    times.clock.now = at("2027-01-15T09:00:30")
    schedules.change(times.control, schedule, wanted, ADA, expected=1)
    times.tick()
    assert times.history(schedule) == [("09:00", "fired", "")]
    schedules.change(times.control, schedule, replace(wanted, cron="*/5 * * * *"), ADA, expected=2)
    row = times.row(schedule)
    assert (told(row.next_run), row.name, row.overlap, row.revision) == ("09:05", "renamed", "allow", 3)


def test_a_clock_that_is_set_back_does_not_fire_a_time_again(times: Timetable) -> None:
    schedule = times.add()
    times.pass_until(EIGHT + 120)
    times.clock.now = EIGHT + 30
    schedules.disable(times.control, schedule, ADA)
    schedules.enable(times.control, schedule, ADA)
    times.pass_until(EIGHT + 185)
    assert [time for time, _, _ in times.history(schedule)] == ["08:01", "08:02", "08:03"]
    assert len(times.executions(schedule)) == 3


def test_only_the_owner_or_an_administrator_changes_it(times: Timetable) -> None:
    schedule = times.add()
    with pytest.raises(Exception, match="is ada's"):
        schedules.disable(times.control, schedule, person("bob", "operator"))
    schedules.disable(times.control, schedule, person("root", "admin"))
    assert times.row(schedule).enabled is False


# jitter, retention


def test_jitter_is_the_same_each_time_it_is_asked_for(times: Timetable) -> None:
    schedule = times.add(jitter=30.0)
    drawn = [spread(schedule, EIGHT + 60 * minute, 30.0) for minute in range(1, 200)]
    assert drawn == [spread(schedule, EIGHT + 60 * minute, 30.0) for minute in range(1, 200)]
    assert (min(drawn) < 3, max(drawn) > 27, max(drawn) < 30) == (True, True, True)
    row = times.row(schedule)
    assert row.due_at == pytest.approx(EIGHT + 60 + drawn[0], abs=0.001)
    times.pass_until(row.due_at - 0.01, step=5)
    assert times.history(schedule) == []
    times.pass_until(row.due_at + 1)
    assert times.history(schedule) == [("08:01", "fired", "")]


def test_a_jitter_longer_than_the_interval_puts_nothing_off_to_the_next_time(times: Timetable) -> None:
    schedule = times.add(jitter=600.0, overlap="allow")
    times.pass_until(EIGHT + 3600)
    assert times.history(schedule)[:59] == [(told(EIGHT + 60 * n), "fired", "") for n in range(1, 60)]
    late = [one.created_at % 60 for one in times.executions(schedule)]
    assert (min(late) < 10, max(late) > 50) == (True, True)


def test_old_ticks_go_and_those_that_wait_stay(times: Timetable) -> None:
    schedule = times.add(ref="demo.nap", overlap="queue")
    times.pass_until(EIGHT + 180)
    schedules.disable(times.control, times.add("other"), ADA)
    times.clock.now += 91 * 86400
    retention.prune(times.control)
    assert times.history(schedule) == [("08:02", "queued", "overlap")]


def test_a_deleted_schedule_takes_its_history_and_leaves_its_executions(times: Timetable) -> None:
    schedule = times.add()
    times.pass_until(EIGHT + 60)
    schedules.remove(times.control, schedule, ADA)
    times.pass_until(EIGHT + 180)
    assert (times.history(schedule), len(times.executions(schedule))) == ([], 1)
    with times.office.store.read() as connection:
        assert connection.execute(select(func.count()).select_from(rows)).scalar() == 0
        assert connection.execute(select(func.count()).select_from(ticks)).scalar() == 0
