"""Times by a cron expression in a zone: the one gate around croniter.

Five fields, read strictly; croniter then looks for dates on a clock without a zone, and the zone says here when that
clock shows them. A schedule fires at the first instant at which the zone's clock shows a time of the expression, or
has jumped over it: what a clock shows twice fires once, and what it never shows fires as the gap ends.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, lru_cache
from itertools import islice
from typing import Final
from zoneinfo import ZoneInfo, available_timezones

from croniter import croniter
from croniter.croniter import CroniterError

from app.errors import InvalidInput
from app.language.problems import nearest, shown

LONGEST: Final = 200
"""Characters of an expression."""
LONGEST_ZONE: Final = 64
YEARS: Final = 8
"""Within which an expression has to fire: the 29th of February does, the 30th does not."""

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_WORDS: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_ITEM = re.compile(r"(?P<first>\*|[0-9a-z]{1,9})(?:-(?P<last>[0-9a-z]{1,9}))?(?:/(?P<step>[0-9]{1,9}))?")
_CHANCE = re.compile(r"[rh](\([0-9]*-[0-9]*\))?(/[0-9]*)?")
_NTH = re.compile(r"(?P<day>[0-9a-z]{1,9})#(?P<nth>[0-9]{1,9})")


@dataclass(frozen=True, slots=True)
class _Field:
    """One of the five: its name and the numbers that it takes. `names` are words for them, from `least` on."""

    name: str
    least: int
    most: int
    names: Sequence[str] = ()


_FIELDS: Final = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of month", 1, 31),
    _Field("month", 1, 12, _MONTHS),
    _Field("day of week", 0, 7, _DAYS),
)
_DAY_OF_MONTH, _DAY_OF_WEEK = 2, 4
_ALL = frozenset({"*", "*/1"})
_EVERY_DAY = frozenset(map(str, range(1, 32)))
_EVERY_WEEKDAY = frozenset(map(str, range(7)))


@dataclass(frozen=True, slots=True)
class Cron:
    """An expression that was read, its fields one space apart, and the name of its zone."""

    expression: str
    zone: str


def read(expression: str, zone: str, now: float) -> Cron:
    """The expression and zone as they are kept. Raises InvalidInput (`bad-cron`, `bad-zone`, each with its pointer)
    for what is none, or never fires within `YEARS` of `now`, in Unix seconds."""
    found = Cron(_read(expression), check_zone(zone))
    if following(found, now) is None:
        raise _bad(f"{shown(found.expression)} never fires within {YEARS} years", "no month has such a day")
    return found


def check_zone(zone: str) -> str:
    """The zone, which is one of the IANA data base. Raises InvalidInput."""
    if len(zone) <= LONGEST_ZONE and zone in _zones():
        return zone
    near = nearest(zone[:LONGEST_ZONE], _zones())
    hint = f"did you mean {near}?" if near else "a name of the IANA data base, such as Europe/Berlin or UTC"
    detail = f"there is no time zone {shown(zone[:LONGEST_ZONE])}"
    told = {"pointer": "/zone", "detail": detail, "hint": hint}
    raise InvalidInput(detail, hint=hint, code="bad-zone", errors=[told])


def following(cron: Cron, after: float) -> float | None:
    """The first time behind `after`, in Unix seconds; None where there is none within `YEARS`."""
    return next(times(cron, after), None)


def next_times(cron: Cron, after: float, count: int) -> list[float]:
    """The next so many times behind `after`, fewer where there are not as many."""
    return list(islice(times(cron, after), count))


def times(cron: Cron, after: float) -> Iterator[float]:
    """Times behind `after`, one after another, each later than the one before."""
    zone = ZoneInfo(cron.zone)
    begin = datetime.fromtimestamp(after // 1, UTC).astimezone(zone).replace(tzinfo=None, fold=0)
    dates = croniter(_plain(cron.expression), begin, ret_type=datetime, max_years_between_matches=YEARS)
    last = after
    while True:
        try:
            shows = dates.get_next()
        except (CroniterError, OverflowError):
            return
        moment = reached(shows, zone)
        # What the clock showed before it was set back, and what it jumped over, comes but once.
        if moment > last:
            last = moment
            yield moment


def reached(shows: datetime, zone: ZoneInfo) -> float:
    """The first instant at which the clock of a zone shows this (naive) time, or one behind it."""
    before = shows.replace(tzinfo=zone, fold=0).timestamp()
    behind = shows.replace(tzinfo=zone, fold=1).timestamp()
    if before <= behind:
        return before
    # The clock never shows it: by the offset before the gap it would be behind its end, by that after it before.
    least, most = int(behind), int(before)
    while least + 1 < most:
        middle = (least + most) // 2
        if datetime.fromtimestamp(middle, zone).replace(tzinfo=None) >= shows:
            most = middle
        else:
            least = middle
    return float(most)


def local(moment: float, zone: str) -> str:
    """What a zone's clock shows then, as ISO 8601 with its offset."""
    return datetime.fromtimestamp(moment, ZoneInfo(zone)).isoformat()


# reading


@cache
def _zones() -> frozenset[str]:
    # Not what a machine calls its own, and not the one that says that nobody set any.
    return frozenset(available_timezones()) - {"localtime", "posixrules", "Factory"}


@lru_cache(1024)
def _read(expression: str) -> str:
    if len(expression) > LONGEST:
        raise _bad(
            f"the expression has {len(expression)} characters, {LONGEST} are the most", "make it shorter"
        )
    if not expression.isascii() or not expression.replace("\t", " ").isprintable():
        raise _bad(
            "the expression holds characters that no cron expression has", "type it in ASCII, on one line"
        )
    text = expression.strip(" \t").lower()
    if text.startswith("@"):
        raise _word(text)
    fields = text.split()
    if len(fields) != len(_FIELDS):
        raise _count(fields)
    for place in range(len(_FIELDS)):
        _values(place, fields)
    return " ".join(fields)


@lru_cache(1024)
def _plain(expression: str) -> str:
    """What croniter is given for an expression that was read: numbers, `*`, `l` and `#` only.

    By itself it takes `23-23` for every hour, and a step that is too large for the first of its range.
    """
    fields = expression.split()
    found = [_values(place, fields) for place in range(len(_FIELDS))]
    days = (found[_DAY_OF_MONTH], found[_DAY_OF_WEEK])
    if not any(_ALL & day for day in days) and (days[0] >= _EVERY_DAY or days[1] >= _EVERY_WEEKDAY):
        # With both said one of the two is enough, and one of them is every day.
        found[_DAY_OF_MONTH] = found[_DAY_OF_WEEK] = _ALL
    return " ".join("*" if _ALL & values else ",".join(sorted(values)) for values in found)


def _word(text: str) -> InvalidInput:
    if text == "@reboot":
        return _bad("@reboot is no time: a schedule belongs to the fleet, which does not boot", "name a time")
    same = _WORDS.get(text)
    said = f"{shown(text)} is short for five fields, and they are what is taken here" if same else ""
    return _bad(said or f"there is no {shown(text)}", f"write `{same or '0 0 * * *'}`")


def _count(fields: Sequence[str]) -> InvalidInput:
    names = ", ".join(field.name for field in _FIELDS)
    if len(fields) in (6, 7):
        return _bad(
            f"the expression has {len(fields)} fields; five are taken, none for seconds or years",
            f"leave out seconds and years: {names}",
        )
    return _bad(f"the expression has {len(fields)} fields, five are needed", names)


def _values(place: int, fields: Sequence[str]) -> frozenset[str]:
    """What a field of an expression takes, as croniter writes it. Raises InvalidInput."""
    found: set[str] = set()
    for item in fields[place].split(","):
        if (item == "l" and place == _DAY_OF_MONTH) or item in _ALL:
            found.add(item)
        elif place == _DAY_OF_WEEK and (nth := _NTH.fullmatch(item)):
            found.add(_nth(nth, item, fields))
        else:
            found.update(str(one % 7 if place == _DAY_OF_WEEK else one) for one in _range(place, item))
    return frozenset(found)


def _range(place: int, item: str) -> range:
    field = _FIELDS[place]
    found = _ITEM.fullmatch(item)
    if found is None or (found["first"] == "*" and found["last"]):
        raise _unreadable(field, item)
    if found["first"] == "*":
        first, last = field.least, 6 if place == _DAY_OF_WEEK else field.most
    else:
        first = _number(field, found["first"], item)
        last = _number(field, found["last"], item) if found["last"] else first
        if last < first:
            # Sunday is 0 and 7; written as a name it does not end a range.
            sunday = place == _DAY_OF_WEEK and found["last"] == "sun"
            hint = f"{found['first']}-7" if sunday else "write two of them, with a comma in between"
            raise _in(field, item, "a range goes up", hint)
        if found["step"] and not found["last"]:
            last = field.most
    step = int(found["step"] or 1)
    most = max(1, last - first)
    if not 1 <= step <= most:
        raise _in(field, item, f"a step is 1 to {most} here", "a larger one comes to one time only")
    return range(first, last + 1, step)


def _nth(nth: re.Match[str], item: str, fields: Sequence[str]) -> str:
    field = _FIELDS[_DAY_OF_WEEK]
    day = _number(field, nth["day"], item) % 7
    if not 1 <= int(nth["nth"]) <= 5:
        raise _in(field, item, "a month has five of a weekday at the most", "`1#1` is its first Monday")
    if fields[_DAY_OF_MONTH] != "*" or not all("#" in one for one in fields[_DAY_OF_WEEK].split(",")):
        reason = "`#` stands with `*` as the day of month, and among its like"
        raise _in(field, item, reason, "make two schedules")
    return f"{day}#{int(nth['nth'])}"


def _number(field: _Field, text: str, item: str) -> int:
    if text in field.names:
        return field.names.index(text) + field.least
    if not text.isdecimal():
        raise _unreadable(field, item)
    number = int(text)
    if not field.least <= number <= field.most:
        raise _in(field, item, f"{shown(text)} is out of range", f"{field.least} to {field.most}")
    return number


def _unreadable(field: _Field, item: str) -> InvalidInput:
    reason, hint = (
        "this is not understood",
        f"`*`, numbers {field.least} to {field.most}, `a-b`, `*/n`, commas",
    )
    if not item:
        reason = "there is nothing beside a comma"
    elif item == "?":
        reason, hint = "`?` is no cron", "write `*`"
    elif _CHANCE.fullmatch(item):
        reason = "times that are drawn by chance cannot be told beforehand"
        hint = "name a time, and spread schedules by `jitter`"
    elif field.name == "day of month" and "w" in item:
        reason, hint = (
            "the nearest weekday (`W`) is not known here",
            "run on weekdays, and look at the date there",
        )
    elif "l" in item and not item.isalpha():
        reason, hint = (
            "`L` stands alone, as the last day of a month",
            "`0 0 L * *`",
        )
    elif field.names:
        hint += f", names such as {field.names[1]}"
    return _in(field, item, reason, hint)


def _in(field: _Field, item: str, reason: str, hint: str) -> InvalidInput:
    return _bad(f"{shown(item[:40])} as the {field.name}: {reason}", hint)


def _bad(detail: str, hint: str) -> InvalidInput:
    errors = [{"pointer": "/cron", "detail": detail, "hint": hint}]
    return InvalidInput(detail, hint=hint, code="bad-cron", errors=errors)
