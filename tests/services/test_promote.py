"""What waits for room on a node goes when there is room, whatever waits before it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from desk import BOTH, Office, jobs, office_on

from app.services import collect

LOOP = """
tasks:
  - name: long
    action: core.shell
    delegate_to: web-1
    with_items: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20]
    concurrency: 1
    input: {command: ['true']}
"""
ONE = """
tasks:
  - {name: a, action: core.shell, delegate_to: web-1, input: {command: ['true']}}
"""


@pytest.fixture(params=BOTH)
def office(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Office]:
    """Its node has room for eight orders."""
    with office_on(request.param, tmp_path, ["web-1"], slots=4) as made:
        yield made


def returns(office: Office) -> None:
    """The node is here again, and what waits for it is handed over."""
    office.hear("web-1", last_seen=office.clock.now)
    collect.make_room(office.desk, "web-1")


def test_a_loop_that_may_not_have_more_holds_up_nobody_behind_it(office: Office) -> None:
    loops = [office.submit(LOOP) for _ in range(3)]
    office.hear("web-1", last_seen=None)
    behind = [office.submit(ONE) for _ in range(9)]
    returns(office)
    went = [office.statuses(jobs, one)["a.0"] for one in behind]
    assert sorted(went) == ["dispatched"] * 5 + ["queued"] * 4, "three places are the loops'"
    for loop in loops:
        assert list(office.statuses(jobs, loop).values()).count("dispatched") == 1


LATER = """
tasks:
  - name: long
    action: core.shell
    delegate_to: "{{ item }}"
    with_items: [web-1, web-1, web-2, web-2, web-2, web-2]
    concurrency: 1
    input: {command: ['true']}
"""


def test_a_loop_that_is_busy_elsewhere_holds_up_nobody_behind_it(tmp_path: Path) -> None:
    """All of its units on the node are before their turn, and older than what waits there of others."""
    with office_on("sqlite", tmp_path, ["web-1", "web-2"], slots=1) as office:
        on_web_2 = ONE.replace("web-1", "web-2")
        loop, (first, second) = office.submit(LATER), [office.submit(on_web_2) for _ in range(2)]
        office.clock.now += 1
        behind = [office.submit(on_web_2) for _ in range(2)]
        assert [office.statuses(jobs, one)["a.0"] for one in behind] == ["queued"] * 2
        for step in [one for one in office.sent if one[0].job.startswith((first, second))]:
            office.take_in(step)
        collect.make_room(office.desk, "web-2")
        assert [office.statuses(jobs, one)["a.0"] for one in behind] == ["dispatched"] * 2
        assert list(office.statuses(jobs, loop).values()).count("dispatched") == 1


def test_the_oldest_go_first(office: Office) -> None:
    office.hear("web-1", last_seen=None)
    waiting = []
    for _ in range(10):
        waiting.append(office.submit(ONE))
        office.clock.now += 1
    returns(office)
    went = [office.statuses(jobs, one)["a.0"] == "dispatched" for one in waiting]
    assert went == [True] * 8 + [False] * 2


IN_TURN = """
tasks:
  - name: long
    action: core.shell
    delegate_to: "{{ item }}"
    with_items: [web-1, web-2, web-3]
    concurrency: 1
    input: {command: ['true']}
"""


@pytest.mark.parametrize("database", BOTH)
def test_who_has_room_first_does_not_go_before_its_turn(database: str, tmp_path: Path) -> None:
    """A slot may come free before anybody has settled the execution whose units have just been born."""
    with office_on(database, tmp_path, ["web-1", "web-2", "web-3"]) as office:
        execution = office.hand_in(IN_TURN)
        collect.make_room(office.desk, "web-2")
        assert set(office.statuses(jobs, execution).values()) == {"queued"}
        collect.settle(office.desk, execution)
        found = {"long.0": "dispatched", "long.1": "queued", "long.2": "queued"}
        assert office.statuses(jobs, execution) == found
