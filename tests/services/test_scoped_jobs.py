"""No job goes to a node outside of the bounds of whoever asked for it, wherever the node came from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from desk import BOTH, Office, office_on
from sqlalchemy import select

from app.services import collect, people, vault
from app.services.people import Change
from app.store.tables import AuditEntry, Job, Task, table

entries, jobs, tasks = table(AuditEntry), table(Job), table(Task)

WEB = {"role": "operator", "packs": ["test"], "labels": {"kind": "web"}}


@pytest.fixture(params=BOTH)
def office(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Office]:
    with office_on(request.param, tmp_path, ["web-1", "web-2", "db-1"]) as made:
        for name, labels in (
            ("web-1", {"kind": "web", "all": "1"}),
            ("web-2", {"kind": "web"}),
            ("db-1", {"kind": "db", "all": "1"}),
        ):
            made.hear(name, labels=labels)
        people.create_user(made.control, "ada", None, "admin", grants=[WEB])
        yield made


def ended(office: Office, execution: str) -> dict[str, Any]:
    """How each job went: sent, or the type of its error."""
    query = select(jobs.c.node, jobs.c.status, jobs.c.error).where(jobs.c.execution == execution)
    with office.store.read() as connection:
        return {row.node: row.error["type"] if row.error else row.status for row in connection.execute(query)}


BY_LABELS = """\
ref: test.spread
tasks:
  - {name: go, type: distributed_shell, input: {command: [id], nodes: {labels: {all: "1"}}, max_failures: 5}}
"""
BY_TEMPLATE = """\
ref: test.there
parameters: {where: {type: string}}
tasks:
  - {name: go, action: core.shell, delegate_to: "{{ parameters.where }}", input: {command: [id]}}
"""
IN_A_LOOP = """\
ref: test.loop
tasks:
  - name: go
    action: core.shell
    with_items: [web-1, db-1, web-2]
    concurrency: 3
    delegate_to: "{{ item }}"
    input: {command: [id]}
"""
IN_A_LINE = """\
ref: test.line
parameters: {where: {type: string}}
tasks:
  - {name: first, action: core.shell, delegate_to: web-1, input: {command: [id]}, on_success: then}
  - {name: then, action: core.shell, delegate_to: "{{ parameters.where }}", input: {command: [id]}}
"""


@pytest.mark.parametrize(
    ("source", "given", "expected"),
    [
        (BY_LABELS, {}, {"web-1": "dispatched", "db-1": "not_allowed"}),
        (BY_TEMPLATE, {"where": "web-2"}, {"web-2": "dispatched"}),
        (BY_TEMPLATE, {"where": "db-1"}, {"db-1": "not_allowed"}),
        (IN_A_LOOP, {}, {"web-1": "dispatched", "web-2": "dispatched", "db-1": "not_allowed"}),
    ],
)
def test_a_job_is_not_handed_to_a_node_out_of_bounds(
    office: Office, source: str, given: Mapping[str, str], expected: Mapping[str, str]
) -> None:
    execution = office.submit(source, **given)
    assert ended(office, execution) == expected
    sent = {str(member.order["options"]["queue"]) for member, _ in office.sent}
    assert sent == {f"node.{node}" for node, status in expected.items() if status == "dispatched"}
    refused = [node for node, status in expected.items() if status == "not_allowed"]
    with office.store.read() as connection:
        query = select(entries.c.person, entries.c.detail).where(entries.c.action == "job.check")
        told = connection.execute(query).all()
    assert [row.person for row in told] == ["ada"] * len(refused)
    assert all(row.detail["code"] == "out-of-scope" for row in told)


def test_nor_does_a_chain_go_on_there(office: Office) -> None:
    execution = office.submit(IN_A_LINE, where="db-1")
    step = office.take_in(office.sent[0])
    assert step.token == ""
    collect.settle(office.desk, execution)
    assert ended(office, execution) == {"web-1": "succeeded", "db-1": "not_allowed"}


def test_nor_when_room_comes_on_a_node_that_was_full(office: Office) -> None:
    """`promote` hands over jobs of any execution: it asks as well."""
    office.hear("web-2", last_seen=office.clock.now - 3600)
    execution = office.submit(BY_TEMPLATE, where="web-2")
    assert ended(office, execution) == {"web-2": "queued"}
    grants = [{**WEB, "labels": {"all": "1"}}]
    people.change_user(office.control, "ada", Change(grants=grants), "admin")
    office.hear("web-2", last_seen=office.clock.now)
    collect.make_room(office.desk, "web-2")
    # What it leaves is nudged, and a settle tells why.
    collect.settle(office.desk, execution)
    assert ended(office, execution) == {"web-2": "not_allowed"}
    assert office.sent == []


@pytest.mark.parametrize(
    ("grants", "status"),
    [
        ([{"role": "operator"}, {"role": "viewer", "labels": {"kind": "db"}}], "dispatched"),
        ([{"role": "operator", "labels": {"kind": "db"}}], "dispatched"),
        ([WEB, {"role": "operator", "packs": ["test"], "labels": {"kind": "db", "all": "1"}}], "dispatched"),
        ([WEB, {"role": "viewer", "labels": {"kind": "db"}}], "not_allowed"),
        ([WEB, {"role": "operator", "packs": ["other"], "labels": {"kind": "db"}}], "not_allowed"),
        ([WEB, {"role": "approver", "packs": ["test"]}], "not_allowed"),
        ([WEB, {"role": "operator", "packs": ["test"], "labels": {"kind": "db", "all": "2"}}], "not_allowed"),
    ],
)
def test_what_several_grants_amount_to(office: Office, grants: list[Any], status: str) -> None:
    people.change_user(office.control, "ada", Change(grants=grants), "admin")
    assert ended(office, office.submit(BY_TEMPLATE, where="db-1")) == {"db-1": status}


def test_a_role_that_holds_everywhere_asks_the_database_nothing(office: Office) -> None:
    """But once a second for the list of those who are bound."""
    people.change_user(office.control, "ada", Change(role="operator"), "admin")
    office.submit(BY_TEMPLATE, where="web-1")
    with office.statements() as found:
        for _ in range(5):
            office.submit(BY_TEMPLATE, where="db-1")
    assert found["SELECT users"] <= 2


def test_a_secret_is_for_bounded_people_only_by_login(office: Office) -> None:
    """A role for one pack would reach every secret by a workflow of that pack."""
    for login in ("operator", "approver"):
        people.create_user(office.control, login, login, "admin")
    cases: list[tuple[str, list[str], bool]] = [
        ("ada", [], False),
        ("ada", ["operator"], False),
        ("ada", ["viewer", "admin"], False),
        ("ada", ["ada"], True),
        ("operator", [], True),
        ("operator", ["viewer"], True),
        ("operator", ["author", "approver"], False),
        ("approver", [], False),
        ("approver", ["approver"], True),
        ("nobody", [], False),
    ]
    with office.store.read() as connection:
        for login, allowed, may in cases:
            assert vault.may_use(connection, login, allowed) is may, (login, allowed)
