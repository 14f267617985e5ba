"""Messages that are not as they must be raise BadMessage, and nothing else."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

import pytest

from app.transport import deploy, shapes
from app.transport.life import Heartbeat, Report
from app.transport.messages import BadMessage, Job, Order, Outcome

PLAN = deploy.of_script("sh", "echo", 5.0)
JOB = Job("e.t.0.1", "e", "t", 0, 1, "core.shell", PLAN.files, PLAN.commands, env={"A": "b"})
GOOD: list[Any] = [
    JOB,
    Order("o", "i", "n", "ep", "run", 1.0, 2.0, (JOB,), (), {"s": "v"}),
    Outcome("j", "d", "i", "n", "e", "succeeded", 0),
    Report("i", "n", "e", 1.0, (("j", "accepted", 1.0),)),
    Heartbeat("i", "n", "e", 1, 1.0, ("a",), 1, 1, ("sh",), {"a": "b"}, 1.0),
]
WRONG: list[Any] = [
    *(None, True, 0, -1, 1.5, 10**400, float("nan"), float("inf"), "", "a", "\ud800", "\0", "../x", [], {}),
    *([[]], [None], [1, 2, 3], ["rm", "-f", "script"], {"a": 1}, {"a": "\ud800"}, {"path": "script"}),
]
OLD = {
    **{name: value for name, value in JOB.to_json().items() if name not in ("files", "commands")},
    **{"argv": None, "script": "echo", "shell": "sh", "timeout": 5},
}


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of everything in a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, inner in items:
        yield (*path, step)
        yield from places(inner, (*path, step))


def replaced(value: Any, path: tuple[Any, ...], wrong: Any) -> Any:
    found = at = copy.deepcopy(value)
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = copy.deepcopy(wrong)
    return found


def refused_or_read(read: Any, data: Any) -> bool:
    """Whether it was refused."""
    if isinstance(data, dict) and "digests" in data:
        # As control signs what it sends: the digests are those of the jobs, if they have any.
        try:
            data["digests"] = [Job.from_json(job).digest for job in data["jobs"]]
        except (BadMessage, TypeError, KeyError):
            pass
    try:
        read(data)
    except BadMessage:
        return True
    return False


@pytest.mark.parametrize("good", GOOD, ids=lambda good: type(good).__name__)
def test_each_place_with_each_wrong_value(good: Any) -> None:
    data = json.loads(json.dumps(good.to_json()))
    assert not refused_or_read(type(good).from_json, data)
    answers = [
        refused_or_read(type(good).from_json, replaced(data, path, wrong))
        for path in places(data)
        for wrong in WRONG
    ]
    assert any(answers)


def test_a_job_of_version_1_with_each_wrong_value() -> None:
    answers = [
        refused_or_read(Job.from_version_1, replaced(OLD, path, wrong))
        for path in places(OLD)
        for wrong in WRONG
    ]
    assert any(answers)
    assert not refused_or_read(Job.from_version_1, OLD)


def test_several_places_at_once() -> None:
    chance = random.Random(2)
    for _ in range(3000):
        good = chance.choice(GOOD)
        data = json.loads(json.dumps(good.to_json()))
        for _ in range(chance.randrange(1, 4)):
            data = replaced(data, chance.choice(list(places(data))), chance.choice(WRONG))
        refused_or_read(type(good).from_json, data)


@pytest.mark.parametrize(
    "change",
    [{"env": []}, {"env": "A=b"}, {"task": "\ud800"}, {"input": {"a": "\udfff"}}],
    ids=["list", "text", "half", "deep"],
)
def test_what_has_no_digest_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(BadMessage):
        Job.from_json({**JOB.to_json(), **change})


@pytest.mark.parametrize(
    ("address", "is_taken"),
    [
        ("", True),
        ("web-1.example:50051", True),
        ("[::1]:50051", True),
        ("web-1", False),
        ("WEB-1:50051", False),
        ("web-1:", False),
        ("web 1:50051", False),
        ("web-1:50051\n", False),
        (f"{'a' * 250}:50051", False),
        (50051, False),
        (None, False),
    ],
)
def test_an_address_is_a_host_and_a_port(address: Any, is_taken: bool) -> None:
    beat = Heartbeat.from_json({**GOOD[4].to_json(), "address": address})
    if is_taken:
        shapes.heartbeat(beat)
    else:
        with pytest.raises(BadMessage):
            shapes.heartbeat(beat)
