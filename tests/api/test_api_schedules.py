"""Schedules over HTTP: what may be kept, and what it starts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import script_shop
from api_world import World
from schedule_shop import NIGHTLY, SCRIPT, fire, furnish, made
from sqlalchemy import select, update

from app.services import secrets
from app.store.tables import Execution, Schedule, Script, SecretParameter, WorkflowDefinition, table

schedules, executions, kept = table(Schedule), table(Execution), table(SecretParameter)


@pytest.fixture
def shop(world: World) -> World:
    return furnish(world)


def test_what_is_kept_is_what_was_sent_with_its_defaults(shop: World) -> None:
    found = made(shop)
    expected = {
        **NIGHTLY,
        "enabled": True,
        "misfire": "once",
        "misfire_grace": 3600.0,
        "overlap": "skip",
        "jitter": 0.0,
        "owner": "operator",
        "last_run": None,
        "last_status": "",
        "last_execution": None,
        "parameters": {},
        "script": None,
        "revision": 1,
    }
    assert {name: found[name] for name in expected} == expected
    assert shop.get(f"/automation/schedules/{found['id']}") == found
    assert shop.get("/automation/schedules/nightly") == found
    assert shop.get("/automation/schedules")["items"] == [found]
    due = datetime.fromisoformat(found["next_run"])
    assert timedelta(0) < due - datetime.now(UTC) <= timedelta(days=1)


def test_the_next_times_are_told_with_their_offsets(shop: World) -> None:
    made(shop)
    told = shop.get("/automation/schedules/nightly/next")
    assert (told["cron"], told["zone"], len(told["items"])) == ("0 3 * * *", "Europe/Berlin", 5)
    for one in told["items"]:
        local = datetime.fromisoformat(one["local"])
        assert (local.hour, local.minute) == (3, 0)
        assert local.utcoffset() in (timedelta(hours=1), timedelta(hours=2))
        assert local == datetime.fromisoformat(one["at"])
    assert len(shop.get("/automation/schedules/nightly/next?count=50")["items"]) == 50
    checked = shop.post(
        "/automation/schedules/check", {"cron": "0 3 * * *", "zone": "Europe/Berlin"}, "viewer"
    )
    assert checked.get_json() == told


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"cron": "0 0 30 2 *"}, "/cron", "bad-cron"),
    ({"cron": "@reboot"}, "/cron", "bad-cron"),
    ({"cron": "R * * * *"}, "/cron", "bad-cron"),
    ({"cron": "0 0 1 1 * 2030"}, "/cron", "bad-cron"),
    ({"cron": "x" * 9999}, "/cron", "bad-cron"),
    ({"cron": 5}, "/cron", "invalid-request"),
    ({"cron": "x" * 100_000}, "/cron", "invalid-request"),
    ({"zone": "Europe/Nowhere"}, "/zone", "bad-zone"),
    ({"zone": "/etc/passwd"}, "/zone", "bad-zone"),
    ({"name": "Nightly"}, "/name", "invalid-request"),
    ({"name": "n" * 65}, "/name", "invalid-request"),
    ({"name": "a\n"}, "/name", "invalid-request"),
    ({"workflow": "demo.nothing"}, "/workflow", "unknown-workflow"),
    ({"version": 77}, "/workflow", "unknown-workflow"),
    ({"workflow": "nothing"}, "/workflow", "invalid-request"),
    ({"script": "restart"}, "/script", "invalid-request"),
    ({"host_ids": ["web-1"]}, "/host_ids", "no-nodes-here"),
    ({"labels": {"role": "web"}}, "/labels", "no-nodes-here"),
    ({"parameters": {"nam": "x"}}, "/parameters/nam", "invalid-parameters"),
    ({"parameters": {"name": 5}}, "/parameters/name", "invalid-parameters"),
    ({"parameters": {"password": "hunter22"}}, "/parameters/password", "secret"),
    ({"parameters": {"password": {"secret": "none"}}}, "/parameters/password/secret", "unknown-secret"),
    ({"parameters": {"password": {"secret": 5}}}, "/parameters/password", "secret"),
    ({"parameters": {"name": {"secret": "x"}}}, "/parameters/name", "invalid-parameters"),
    ({"misfire": "never"}, "/misfire", "invalid-request"),
    ({"misfire_most": 0}, "/misfire_most", "invalid-request"),
    ({"misfire_most": 101}, "/misfire_most", "invalid-request"),
    ({"misfire_grace": -1}, "/misfire_grace", "invalid-request"),
    ({"misfire_grace": 86401}, "/misfire_grace", "invalid-request"),
    ({"misfire_grace": "3600"}, "/misfire_grace", "invalid-request"),
    ({"overlap": "wait"}, "/overlap", "invalid-request"),
    ({"jitter": -1}, "/jitter", "invalid-request"),
    ({"jitter": 3601}, "/jitter", "invalid-request"),
    ({"jitter": True}, "/jitter", "invalid-request"),
    ({"enabled": "yes"}, "/enabled", "invalid-request"),
    ({"owner": "admin"}, "/owner", "invalid-request"),
    ({"description": "x" * 1001}, "/description", "invalid-request"),
]
WRONG_SCRIPT: list[tuple[dict[str, Any], str, str]] = [
    ({"script": "nothing"}, "/script", "unknown-script"),
    ({"script": "01J0000000000000000000000A"}, "/script", "unknown-script"),
    ({"version": 9}, "/version", "unknown-version"),
    ({"version": "1"}, "/version", "invalid-request"),
    ({"parameters": {}}, "/parameters/service", "invalid-parameters"),
    ({"parameters": {"service": "x", "more": 1}}, "/parameters/more", "invalid-parameters"),
    ({"parameters": {"service": {"secret": "x"}}}, "/parameters/service", "invalid-parameters"),
    ({"parameters": {"service": "x", "password": "abcdefgh"}}, "/parameters/password", "secret"),
    ({"labels": {"role": "nothing"}}, "/labels", "no-nodes"),
    ({"labels": {}}, "/labels", "invalid-request"),
    ({"host_ids": ["web-1"]}, "/labels", "invalid-request"),
    ({"batch": 0}, "/batch", "invalid-request"),
    ({"max_failures": -1}, "/max_failures", "invalid-request"),
]
NAMED = {"parameters": {"password": {"secret": "db/password"}}}
WRONG_HOSTS: list[tuple[Any, str]] = [
    ([], "/host_ids"),
    (["web-1", "web-1"], "/host_ids/1"),
    (["web-1", "web-9"], "/host_ids/1"),
    ([f"n{number}" for number in range(10_001)], "/host_ids"),
    ("web-1", "/host_ids"),
]


def refused(world: World, body: Any) -> tuple[int, str, list[str]]:
    before = world.counts()
    answer = world.post("/automation/schedules", body, "operator")
    assert 400 <= answer.status_code < 500, answer.text
    assert world.counts() == before
    problem = answer.get_json()
    assert "hunter22" not in answer.text
    assert "abcdefgh" not in answer.text
    return answer.status_code, problem["code"], [one["pointer"] for one in problem["errors"]]


@pytest.mark.parametrize(("change", "pointer", "code"), WRONG, ids=lambda value: str(value)[:40])
def test_what_is_wrong_is_told_with_its_place_and_nothing_is_kept(
    shop: World, change: dict[str, Any], pointer: str, code: str
) -> None:
    assert refused(shop, {**NIGHTLY, **change}) == (422, code, [pointer])


@pytest.mark.parametrize(("change", "pointer", "code"), WRONG_SCRIPT, ids=lambda value: str(value)[:40])
def test_what_is_wrong_with_a_script_as_well(
    shop: World, change: dict[str, Any], pointer: str, code: str
) -> None:
    assert refused(shop, {**SCRIPT, **change}) == (422, code, [pointer])


@pytest.mark.parametrize(("hosts", "pointer"), WRONG_HOSTS, ids=["none", "twice", "unknown", "many", "text"])
def test_and_with_its_nodes(shop: World, hosts: Any, pointer: str) -> None:
    body = {**{name: value for name, value in SCRIPT.items() if name != "labels"}, "host_ids": hosts}
    status, _, pointers = refused(shop, body)
    assert (status, pointers) == (422, [pointer])


def test_a_kept_secret_is_never_put_into_a_text(shop: World) -> None:
    declared = [{"name": "password", "type": "secret", "required": False}]
    script_shop.put(shop, "pasted", "echo ${password}", declared, substitution="text")
    told = refused(shop, {**SCRIPT, "script": "pasted", **NAMED})
    assert told == (422, "invalid-parameters", ["/parameters/password"])


def test_no_body_and_no_target(shop: World) -> None:
    assert refused(shop, {})[0] == 422
    assert refused(shop, {"name": "a", "cron": "* * * * *"})[2] == ["/workflow"]
    assert refused(shop, {**{k: v for k, v in SCRIPT.items() if k != "labels"}})[2] == ["/host_ids"]


def test_a_name_is_taken_once(shop: World) -> None:
    made(shop)
    status, code, pointers = refused(shop, NIGHTLY)
    assert (status, code, pointers) == (409, "schedule-exists", ["/name"])
    other = made(shop, {**NIGHTLY, "name": "other"})
    answer = shop.ask("PUT", f"/api/v1/automation/schedules/{other['id']}", "operator", json=NIGHTLY)
    assert (answer.status_code, answer.get_json()["code"]) == (409, "schedule-exists")


def test_a_switched_off_workflow_is_not_scheduled(shop: World) -> None:
    with shop.control.store.write() as connection:
        connection.execute(update(WorkflowDefinition).values(enabled=False))
    assert refused_code(shop, NIGHTLY) == (409, "workflow-disabled")


def refused_code(world: World, body: Any) -> tuple[int, str]:
    answer = world.post("/automation/schedules", body, "operator")
    return answer.status_code, answer.get_json()["code"]


def test_a_secret_reaches_the_execution_by_its_name_alone(shop: World) -> None:
    secrets.put(shop.control, "db/password", "hunter22", [], "author")
    made(shop, {**NIGHTLY, "parameters": {"name": "bob", "password": {"secret": "db/password"}}})
    found = fire(shop, "nightly")
    with shop.control.store.read() as connection:
        row = connection.execute(select(executions)).one()
        secret = connection.execute(select(kept)).one()
        stored = str(connection.execute(select(schedules)).one())
    assert (row.id, row.requester, row.schedule) == (found["last_execution"], "operator", found["id"])
    assert (secret.name, secret.secret, secret.ciphertext) == ("password", "db/password", "")
    assert "hunter22" not in stored
    assert shop.get(f"/workflow-executions/{row.id}")["parameters"]["name"] == "bob"


def test_a_secret_of_a_script_too_whatever_its_pattern(shop: World) -> None:
    secrets.put(shop.control, "db/password", "hunter22", [], "author")
    parameters = {"service": "nginx", "password": {"secret": "db/password"}}
    schedule = made(shop, {**SCRIPT, "parameters": parameters})
    assert (schedule["script_name"], schedule["workflow"]) == ("restart", None)
    found = fire(shop, "restarts")
    with shop.control.store.read() as connection:
        row = connection.execute(select(executions)).one()
        secret = connection.execute(select(kept)).one()
    assert (row.kind, row.script, row.script_version, row.schedule) == (
        "script",
        schedule["script"],
        1,
        found["id"],
    )
    assert (secret.name, secret.secret) == ("password", "db/password")
    result = shop.get(f"/automation/executions/{row.id}")
    assert sorted(one["host_id"] for one in result["hosts"]) == ["web-1", "web-2"]
    assert found["last_status"] in ("queued", "scheduling")


def test_a_deleted_script_is_said_to_be_gone(shop: World) -> None:
    made(shop, SCRIPT)
    with shop.control.store.write() as connection:
        connection.execute(table(Script).delete())
    found = fire(shop, "restarts")
    assert (found["last_status"], found["last_reason"], found["script_name"]) == (
        "skipped",
        "unknown-script",
        None,
    )
    told = shop.get("/automation/schedules/restarts/history")["items"]
    assert [(one["status"], one["reason"], one["execution"]) for one in told] == [
        ("skipped", "unknown-script", None)
    ]


def test_a_pinned_version_stays_and_the_newest_moves_on(shop: World) -> None:
    made(shop, {**SCRIPT, "name": "pinned", "version": 1})
    made(shop, SCRIPT)
    script_shop.put(shop, "restart", "echo 2 ${service}", [{"name": "service", "type": "string"}], version=2)
    fire(shop, "pinned")
    fire(shop, "restarts")
    with shop.control.store.read() as connection:
        found = connection.execute(select(executions.c.script_version).order_by(executions.c.id))
        assert list(found.scalars()) == [1, 2]
