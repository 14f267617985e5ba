"""Cron a second time, the slow way: every minute is looked at, and a clock is watched that people set."""

from __future__ import annotations

import calendar
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]


def number(text: str) -> int:
    return DAYS.index(text) if text in DAYS else MONTHS.index(text) + 1 if text in MONTHS else int(text)


def takes(item: str, value: int, least: int, most: int) -> bool:
    """Whether one item of a field, without `l` and `#`, holds for a value."""
    where, _, step = item.partition("/")
    if where == "*":
        first, last = least, most
    elif "-" in where:
        first, last = (number(one) for one in where.split("-"))
    else:
        first = number(where)
        last = most if step else first
    return first <= value <= last and (value - first) % int(step or 1) == 0


def on_day(field: str, day: date) -> bool:
    last = calendar.monthrange(day.year, day.month)[1]
    return any(day.day == last if item == "l" else takes(item, day.day, 1, 31) for item in field.split(","))


def on_weekday(field: str, day: date) -> bool:
    for item in field.split(","):
        weekday, _, nth = item.partition("#")
        if nth and (day.day - 1) // 7 + 1 != int(nth):
            continue
        today = day.isoweekday() % 7
        if takes(weekday, today, 0, 7) or (today == 0 and takes(weekday, 7, 0, 7)):
            return True
    return False


def matches(expression: str, shows: datetime) -> bool:
    """Whether what a clock shows is a time of the expression."""
    minute, hour, day, month, weekday = expression.split()
    if not any(takes(item, shows.minute, 0, 59) for item in minute.split(",")):
        return False
    if not any(takes(item, shows.hour, 0, 23) for item in hour.split(",")):
        return False
    if not any(takes(item, shows.month, 1, 12) for item in month.split(",")):
        return False
    today = shows.date()
    if {"*", "*/1"} & {*day.split(","), *weekday.split(",")}:
        return on_day(day, today) and on_weekday(weekday, today)
    return on_day(day, today) or on_weekday(weekday, today)


Walk = list[tuple[float, list[datetime]]]


def minutes_of(zone: str, begin: datetime, minutes: int) -> Walk:
    """The instants of so many minutes behind `begin`, each with what the zone's clock shows for the first time then.

    That is more than one minute where the clock jumped, and none where it was set back: it is watched from two days
    before.
    """
    clock = ZoneInfo(zone)
    moment = begin.astimezone(UTC) - timedelta(days=2)
    furthest = moment.astimezone(clock).replace(tzinfo=None)
    found: Walk = []
    while moment <= begin + timedelta(minutes=minutes):
        shows = moment.astimezone(clock).replace(tzinfo=None)
        new = []
        while furthest < shows:
            furthest += timedelta(minutes=1)
            new.append(furthest)
        if moment > begin:
            found.append((moment.timestamp(), new))
        moment += timedelta(minutes=1)
    return found


def fires(expression: str, walk: Walk) -> list[float]:
    """The instants of the walk at which it fires."""
    return [moment for moment, new in walk if any(matches(expression, shows) for shows in new)]
