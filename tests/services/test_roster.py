"""The roster is read anew for a submission, and made anew only where something of a node has changed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from desk import BOTH, Office, nodes, office_on

from app.engine.state import Node
from app.services.roster import Roster


@pytest.fixture(params=BOTH)
def office(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Office]:
    with office_on(request.param, tmp_path, ["web-2", "web-1"]) as made:
        yield made


def read(office: Office, roster: Roster) -> dict[str, Node]:
    with office.store.read() as connection:
        return roster.nodes(connection, anew=True)


@pytest.mark.parametrize(
    ("columns", "seen"),
    [
        ({"shells": ["ksh"]}, {"shells": ("ksh",)}),
        ({"labels": {"role": "a;b|c"}}, {"labels": {"role": "a;b|c"}}),
        ({"address": "10.0.0.1:22"}, {"address": "10.0.0.1:22"}),
        ({"state": "draining"}, {"state": "draining"}),
    ],
)
def test_a_change_is_seen_at_once(office: Office, columns: dict[str, Any], seen: dict[str, Any]) -> None:
    roster = Roster()
    before = read(office, roster)
    assert sorted(before) == ["web-1", "web-2"]
    office.hear("web-1", **columns)
    after = read(office, roster)
    assert {name: getattr(after["web-1"], name) for name in seen} == seen
    assert after["web-2"] == before["web-2"]


def test_nodes_that_come_and_go_are_seen_at_once(office: Office) -> None:
    roster = Roster()
    assert sorted(read(office, roster)) == ["web-1", "web-2"]
    with office.store.write() as connection:
        connection.execute(nodes.delete())
    assert read(office, roster) == {}


def test_what_is_no_matter_of_the_engine_changes_nothing(office: Office) -> None:
    roster = Roster()
    before = read(office, roster)
    office.hear("web-1", last_seen=office.clock.now)
    assert read(office, roster) is before
