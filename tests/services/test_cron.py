"""Which expressions are taken, and when they fire: against a table, and against a walk through every minute."""

from __future__ import annotations

import random
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import yaml
from cron_oracle import fires, minutes_of

from app.errors import InvalidInput
from app.services import cron

CASES = Path(__file__).parent.parent / "cases" / "cron"
NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)
NOW = NEW_YEAR.timestamp()


def cases(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load((CASES / f"{name}.yaml").read_text())
    return found


@pytest.mark.parametrize("case", cases("valid"), ids=lambda case: case["cron"])
def test_valid(case: dict[str, Any]) -> None:
    read = cron.read(case["cron"], "UTC", NOW)
    assert read.expression == case.get("kept", case["cron"])
    found = cron.next_times(read, NOW, len(case["next"]))
    assert [datetime.fromtimestamp(one, UTC).strftime("%Y-%m-%dT%H:%M") for one in found] == case["next"]
    assert cron.read(read.expression, "UTC", NOW) == read


@pytest.mark.parametrize("case", cases("invalid"), ids=lambda case: repr(case["cron"]))
def test_invalid(case: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput) as refused:
        cron.read(case["cron"], "UTC", NOW)
    error = refused.value
    assert error.code == "bad-cron"
    assert case["says"] in f"{error.message} {error.hint}"
    assert error.hint
    assert [one["pointer"] for one in error.detail["errors"]] == ["/cron"]


def test_there_are_enough_cases() -> None:
    assert len(cases("valid")) + len(cases("invalid")) >= 80


@pytest.mark.parametrize(
    "zone",
    ["", "Berlin", "Europe/Berln", "europe/berlin", "../etc/passwd", "/etc/localtime", "posix/Europe/Berlin",
     "right/Europe/Berlin", "localtime", "posixrules", "CEST", "UTC+1", "+01:00", "Europe/Berlin\0", "x" * 10_000],
)  # fmt: skip
def test_what_is_no_zone(zone: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        cron.read("* * * * *", zone, NOW)
    assert refused.value.code == "bad-zone"
    assert [one["pointer"] for one in refused.value.detail["errors"]] == ["/zone"]


def test_a_near_zone_is_named() -> None:
    with pytest.raises(InvalidInput) as refused:
        cron.read("* * * * *", "Europe/Berln", NOW)
    assert refused.value.hint == "did you mean Europe/Berlin?"


# clocks that people set

CHANGES = {
    "spring in Berlin": ("Europe/Berlin", "2026-03-29T01:00"),
    "autumn in Berlin": ("Europe/Berlin", "2026-10-25T01:00"),
    "spring in New York": ("America/New_York", "2026-03-08T07:00"),
    "autumn in New York": ("America/New_York", "2026-11-01T06:00"),
    "spring on Lord Howe, by half an hour": ("Australia/Lord_Howe", "2026-10-03T15:30"),
    "autumn on Lord Howe, by half an hour": ("Australia/Lord_Howe", "2026-04-04T15:00"),
    "before Ramadan in Casablanca": ("Africa/Casablanca", "2026-02-15T02:00"),
    "after Ramadan in Casablanca": ("Africa/Casablanca", "2026-03-22T02:00"),
    "a day without a midnight in Cairo": ("Africa/Cairo", "2026-04-23T22:00"),
    "two midnights in Cairo": ("Africa/Cairo", "2026-10-29T21:00"),
    "a day without a midnight in Beirut": ("Asia/Beirut", "2026-03-28T22:00"),
    "a day without a midnight in Santiago": ("America/Santiago", "2026-09-06T04:00"),
    "two last hours in Santiago": ("America/Santiago", "2026-04-05T03:00"),
    "a day without a midnight in Havana": ("America/Havana", "2026-03-08T05:00"),
    "two midnights in Havana": ("America/Havana", "2026-11-01T05:00"),
    "in Troll, by two hours": ("Antarctica/Troll", "2026-03-29T01:00"),
    "in Dublin, whose winter is the exception": ("Europe/Dublin", "2026-10-25T01:00"),
    "on Chatham, a quarter to three": ("Pacific/Chatham", "2026-09-26T14:00"),
    "a day that Apia never had": ("Pacific/Apia", "2011-12-30T10:00"),
    "never in Kathmandu": ("Asia/Kathmandu", "2026-03-29T01:00"),
}
EXPRESSIONS = (
    "* * * * *", "*/7 * * * *", "0 * * * *", "30 * * * *", "*/30 0-3 * * *", "0 0 * * *", "15 0 * * *", "59 23 * * *",
    "30 1 * * *", "45 1 * * *", "0 2 * * *", "15 2 * * *", "30 2 * * *", "0 3 * * *", "0 0 * * sun", "30 2 29 * *",
    "0 0 l * *", "30 2 * * 7#5", "*/20 1,2 25 10 *", "5 0 30 12 *", "0 12 30 12 *",
)  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_over_a_change_of_the_clock_it_fires_as_a_walk_through_all_minutes_says(name: str) -> None:
    zone, at = CHANGES[name]
    change = datetime.fromisoformat(at).replace(tzinfo=UTC)
    begin = change - timedelta(hours=30)
    walk = minutes_of(zone, begin, 60 * 60)
    for expression in EXPRESSIONS:
        found = []
        for moment in cron.times(cron.Cron(expression, zone), begin.timestamp()):
            if moment > (begin + timedelta(hours=60)).timestamp():
                break
            found.append(moment)
        assert found == fires(expression, walk), expression


@pytest.mark.parametrize("name", [name for name in CHANGES if not name.startswith("never")])
def test_there_is_a_change_of_the_clock(name: str) -> None:
    """The tables of zones change: a test over a change that is none would say nothing."""
    zone, at = CHANGES[name]
    change = datetime.fromisoformat(at).replace(tzinfo=UTC)
    offsets = [(change + timedelta(seconds=by)).astimezone(ZoneInfo(zone)).utcoffset() for by in (-1, 0)]
    assert offsets[0] != offsets[1]


def test_wherever_one_begins_the_next_time_is_the_same() -> None:
    zone, at = CHANGES["autumn in Berlin"]
    change = datetime.fromisoformat(at).replace(tzinfo=UTC).timestamp()
    walk = minutes_of(zone, datetime.fromtimestamp(change - 7200, UTC), 36 * 60)
    for expression in ("*/20 * * * *", "30 2 * * *", "0 3 * * *"):
        whole = fires(expression, walk)
        for begin in range(int(change) - 7200, int(change) + 7200, 137):
            expected = next(one for one in whole if one > begin)
            assert cron.following(cron.Cron(expression, zone), begin + 0.25) == expected, (expression, begin)


@pytest.mark.long
def test_random_expressions_fire_as_a_walk_says() -> None:
    chance = random.Random(20)

    def field(least: int, most: int) -> str:
        def one() -> str:
            first = chance.randint(least, most)
            last = chance.randint(first, most)
            step = chance.randint(1, max(1, last - first))
            return chance.choice(["*", str(first), f"{first}-{last}", f"{first}-{last}/{step}"])

        return ",".join(one() for _ in range(chance.choice([1, 1, 2])))

    told = 0
    for zone, at in CHANGES.values():
        begin = datetime.fromisoformat(at).replace(tzinfo=UTC) - timedelta(days=1)
        walk = minutes_of(zone, begin, 3 * 1440)
        for _ in range(12):
            bounds = ((0, 59), (0, 23), (1, 28), (begin.month, begin.month), (0, 7))
            expression = " ".join(field(*each) for each in bounds)
            expected = fires(expression, walk)
            told += len(expected)
            read = cron.read(expression, zone, begin.timestamp())
            assert cron.next_times(read, begin.timestamp(), len(expected)) == expected, (expression, zone)
    assert told > 1000


def test_a_repeated_minute_fires_the_first_time_and_a_skipped_one_as_the_gap_ends() -> None:
    half_past_two = cron.Cron("30 2 * * *", "Europe/Berlin")
    autumn = datetime(2026, 10, 24, 12, tzinfo=UTC).timestamp()
    assert [cron.local(one, "Europe/Berlin") for one in cron.next_times(half_past_two, autumn, 2)] == [
        "2026-10-25T02:30:00+02:00",
        "2026-10-26T02:30:00+01:00",
    ]
    spring = datetime(2026, 3, 28, 12, tzinfo=UTC).timestamp()
    assert [cron.local(one, "Europe/Berlin") for one in cron.next_times(half_past_two, spring, 2)] == [
        "2026-03-29T03:00:00+02:00",
        "2026-03-30T02:30:00+02:00",
    ]


HOSTILE = [
    "," * 200, "*," * 99 + "* * * * *", "0-59/1," * 24 + "0 * * * *", "*/" * 100, "9" * 200, "(" * 190, "* " * 100,
    "1-" * 100, "0 0 29 2 " + "sun#5," * 31 + "mon#5", "a" * 10_000_000, "* * * * " + "#" * 190, "0 0 30,31 2 *",
    "0 0 31 2,4,6,9,11 *", "\t" * 200, "@" * 200, "L" * 200, "W" * 200, "\x00" * 200, "0 0 * * " + "5#5," * 45 + "5#5",
]  # fmt: skip


@pytest.mark.parametrize("expression", HOSTILE, ids=lambda text: text[:12] + f"({len(text)})")
def test_hostile_expressions_are_answered_at_once(expression: str) -> None:
    began = time.perf_counter()
    with suppress(InvalidInput):
        cron.next_times(cron.read(expression, "America/New_York", NOW), NOW, 5)
    assert time.perf_counter() - began < 1


def test_no_mess_of_characters_is_more_than_refused() -> None:
    chance = random.Random(5)
    for _ in range(5_000):
        expression = "".join(
            chance.choice("0123459*,-/ #lLwWrRhH?@mon\t%") for _ in range(chance.randint(0, 24))
        )
        try:
            read = cron.read(expression, "Europe/Berlin", NOW)
        except InvalidInput:
            continue
        assert cron.following(read, NOW) is not None
