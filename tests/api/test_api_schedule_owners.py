"""Schedules over HTTP: who may change them, and how they are looked through."""

from __future__ import annotations

from dataclasses import replace

import api_world
import pytest
from api_world import World
from schedule_shop import NIGHTLY, SCRIPT, fire, furnish, made
from sqlalchemy import insert, select, update

from app.api import paging
from app.services import people
from app.store.tables import AuditEntry, ScheduleTick, Script, table

audit = table(AuditEntry)


@pytest.fixture
def shop(world: World) -> World:
    return furnish(world)


def test_only_the_owner_or_an_administrator_changes_it(shop: World) -> None:
    made(shop, role="operator")
    for method, path in (("PUT", ""), ("DELETE", ""), ("POST", "/enable"), ("POST", "/disable")):
        body = {"json": NIGHTLY} if method == "PUT" else {}
        answer = shop.ask(method, f"/api/v1/automation/schedules/nightly{path}", "author", **body)
        assert (answer.status_code, answer.get_json()["code"]) == (403, "not-owner"), (method, path)
    with shop.control.store.read() as connection:
        entries = connection.execute(select(audit).where(audit.c.outcome == "refused")).all()
    assert {row.action for row in entries} == {
        f"schedule.{verb}" for verb in ("change", "delete", "enable", "disable")
    }
    assert {row.person for row in entries} == {"author"}
    answer = shop.ask("POST", "/api/v1/automation/schedules/nightly/disable", "admin")
    assert (answer.status_code, answer.get_json()["enabled"]) == (200, False)
    assert answer.get_json()["owner"] == "operator"


def test_a_change_is_for_what_was_looked_at(shop: World) -> None:
    made(shop)
    path = "/api/v1/automation/schedules/nightly"
    tag = shop.ask("GET", path, "viewer").headers["ETag"]
    changed = {**NIGHTLY, "cron": "30 3 * * *"}
    first = shop.ask("PUT", path, "operator", json=changed, headers={"If-Match": tag})
    assert (first.status_code, first.get_json()["revision"]) == (200, 2)
    for method, body in (("PUT", {"json": changed}), ("DELETE", {})):
        answer = shop.ask(method, path, "operator", headers={"If-Match": tag}, **body)
        assert answer.status_code == 412, method
    assert (
        shop.ask("DELETE", path, "operator", headers={"If-Match": first.headers["ETag"]}).status_code == 204
    )
    assert shop.ask("GET", path, "viewer").status_code == 404


def test_the_etag_is_not_moved_by_a_time_that_fires(shop: World) -> None:
    made(shop)
    path = "/api/v1/automation/schedules/nightly"
    tag = shop.ask("GET", path, "viewer").headers["ETag"]
    assert fire(shop, "nightly")["last_execution"]
    assert shop.ask("GET", path, "viewer").headers["ETag"] == tag


def test_disabled_and_enabled_in_place(shop: World) -> None:
    schedule = made(shop, {**NIGHTLY, "enabled": False})
    assert (schedule["enabled"], schedule["next_run"]) == (False, None)
    again = shop.ask("PUT", "/api/v1/automation/schedules/nightly", "operator", json=NIGHTLY).get_json()
    assert (again["enabled"], again["next_run"]) == (False, None)
    on = shop.ask("POST", "/api/v1/automation/schedules/nightly/enable", "operator").get_json()
    assert (on["enabled"], on["next_run"] is not None) == (True, True)
    assert [one["name"] for one in shop.get("/automation/schedules?enabled=true")["items"]] == ["nightly"]
    assert shop.get("/automation/schedules?enabled=false")["items"] == []


def test_who_rewrote_a_schedule_does_not_approve_what_it_starts(shop: World) -> None:
    """Not even where another administrator has switched it off and on since, or written its description."""
    people.create_user(shop.control, "second", "admin", "admin")
    shop.tokens["second"] = people.create_token(shop.control, "second", "", None, "admin").token
    with shop.control.store.write() as connection:
        connection.execute(update(Script).values(requires_approval=True, approval={}))
    made(shop, SCRIPT)
    path = "/api/v1/automation/schedules/restarts"
    rewritten = {**SCRIPT, "parameters": {"service": "sshd"}}
    assert shop.ask("PUT", path, "admin", json=rewritten).status_code == 200
    for verb in ("disable", "enable"):
        assert shop.ask("POST", f"{path}/{verb}", "second").status_code == 200
    described = {**rewritten, "description": "every ten minutes"}
    assert shop.ask("PUT", path, "second", json=described).get_json()["updated_by"] == "second"
    fire(shop, "restarts")
    (asked,) = shop.get("/automation/approvals?status=pending")["items"]
    assert asked["requester"] == "admin"
    approve = f"/automation/approvals/{asked['id']}/approve"
    assert shop.post(approve, {}, "admin").get_json()["code"] == "own-request"
    assert shop.post(approve, {}, "second").status_code == 200


def test_lists_come_in_pages(shop: World) -> None:
    names = [f"s{number}" for number in range(5)]
    for name in names:
        made(shop, {**NIGHTLY, "name": name})
    found, cursor = [], ""
    while cursor is not None:
        page = shop.get(f"/automation/schedules?limit=2{cursor and '&cursor=' + cursor}")
        found += [one["name"] for one in page["items"]]
        cursor = page["next_cursor"]
    assert found == names


def test_the_history_comes_in_pages_the_newest_first(shop: World) -> None:
    id_ = made(shop)["id"]
    rows = [
        {"schedule": id_, "fire_time": 1_900_000_020.0 + 60 * n, "status": "missed", "at": 1_900_000_000.0}
        for n in range(7)
    ]
    with shop.control.store.write() as connection:
        connection.execute(insert(ScheduleTick), rows)
    found, cursor = [], ""
    while cursor is not None:
        page = shop.get(f"/automation/schedules/{id_}/history?limit=3{cursor and '&cursor=' + cursor}")
        found += [one["fire_time"] for one in page["items"]]
        cursor = page["next_cursor"]
    assert len(found) == 7
    assert found == sorted(found, reverse=True)


@pytest.mark.parametrize("place", [[2147483647, 0], [-5, 3], [0, 0], [1, 2147483647]], ids=str)
def test_odd_cursors_are_no_more_than_odd(shop: World, place: list[int]) -> None:
    made(shop)
    answer = shop.ask(
        "GET", f"/api/v1/automation/schedules/nightly/history?cursor={paging.encode(place)}", "viewer"
    )
    assert answer.status_code == 200


def test_who_is_not_there(shop: World) -> None:
    for method, path in (
        ("GET", ""),
        ("GET", "/next"),
        ("GET", "/history"),
        ("POST", "/enable"),
        ("DELETE", ""),
    ):
        answer = shop.ask(method, f"/api/v1/automation/schedules/nothing{path}", "admin")
        assert (answer.status_code, answer.get_json()["code"]) == (404, "unknown-schedule"), path
    answer = shop.ask("PUT", "/api/v1/automation/schedules/nothing", "admin", json=NIGHTLY)
    assert answer.status_code == 404


def test_with_the_feature_off_every_route_answers_402(shop: World) -> None:
    made(shop)
    settings = replace(shop.control.settings, automation_script_schedule=False)
    off = replace(shop, app=api_world.create_app(control=replace(shop.control, settings=settings)))
    for method, path, body in (
        ("GET", "", None),
        ("POST", "", NIGHTLY),
        ("POST", "/check", {"cron": "* * * * *"}),
        ("GET", "/nightly", None),
        ("PUT", "/nightly", NIGHTLY),
        ("DELETE", "/nightly", None),
        ("POST", "/nightly/enable", None),
        ("POST", "/nightly/disable", None),
        ("GET", "/nightly/next", None),
        ("GET", "/nightly/history", None),
    ):
        options = {} if body is None else {"json": body}
        answer = off.ask(method, f"/api/v1/automation/schedules{path}", "admin", **options)
        assert answer.status_code == 402, (method, path)
        assert answer.get_json()["code"] == "automation_script_schedule"
        assert off.ask(method, f"/api/v1/automation/schedules{path}", "", **options).status_code == 401


def test_every_change_is_in_the_audit_trail(shop: World) -> None:
    id_ = made(shop)["id"]
    shop.ask("PUT", "/api/v1/automation/schedules/nightly", "operator", json=NIGHTLY)
    shop.ask("POST", "/api/v1/automation/schedules/nightly/disable", "operator")
    shop.ask("POST", "/api/v1/automation/schedules/nightly/enable", "operator")
    fire(shop, "nightly")
    shop.ask("DELETE", "/api/v1/automation/schedules/nightly", "operator")
    with shop.control.store.read() as connection:
        query = select(audit).where(audit.c.person == "operator").order_by(audit.c.id)
        found = connection.execute(query).all()
    actions = [row.action for row in found]
    assert actions == [
        "schedule.create",
        "schedule.change",
        "schedule.disable",
        "schedule.enable",
        "execution.submit",
        "schedule.delete",
    ]
    assert found[4].detail["schedule"] == id_
