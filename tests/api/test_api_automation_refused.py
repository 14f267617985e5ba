"""What is refused about scripts on many nodes: a place in the request, and nothing is stored."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import script_shop
from api_world import World
from script_shop import EXECUTE, GOOD


@pytest.fixture
def fleet(world: World) -> World:
    return script_shop.stock(world)


WRONG: list[tuple[str, Any, int, str]] = [
    ("no hosts", {"host_ids": []}, 422, "/host_ids"),
    ("none said", {}, 422, "/host_ids"),
    ("both", {"host_ids": ["web-1"], "labels": {"role": "web"}}, 422, "/labels"),
    ("a text for a list", {"host_ids": "web-1"}, 422, "/host_ids"),
    ("a number for a host", {"host_ids": ["web-1", 7]}, 422, "/host_ids/1"),
    ("the same host twice", {"host_ids": ["web-1", "web-2", "web-1"]}, 422, "/host_ids/2"),
    ("a host that is none", {"host_ids": ["web-1", "web-9"]}, 422, "/host_ids/1"),
    ("only such hosts", {"host_ids": ["web-9"], "allow_unknown": True}, 422, "/host_ids/0"),
    ("10,000 hosts", {"host_ids": [f"n-{number}" for number in range(10_000)]}, 422, "/host_ids/0"),
    ("10,001 hosts", {"host_ids": [f"n-{number}" for number in range(10_001)]}, 422, "/host_ids"),
    ("not the name of a host", {"host_ids": ["Web_1"]}, 422, "/host_ids/0"),
    ("labels that none has", {"labels": {"role": "db"}}, 422, "/labels"),
    ("no labels", {"labels": {}}, 422, "/labels"),
    ("no such version", {"host_ids": ["web-1"], "version": 9}, 404, "/version"),
    ("version 0", {"host_ids": ["web-1"], "version": 0}, 422, "/version"),
    ("a text for a version", {"host_ids": ["web-1"], "version": "1"}, 422, "/version"),
    ("a value is missing", {"host_ids": ["web-1"], "parameter_values": {}}, 422, "/parameter_values/target"),
    (
        "a wrong type",
        {"host_ids": ["web-1"], "parameter_values": {"target": 7}},
        422,
        "/parameter_values/target",
    ),
    (
        "one that is not declared",
        {"host_ids": ["web-1"], "parameter_values": {"target": "a", "taget": "b"}},
        422,
        "/parameter_values/taget",
    ),
    ("values as a list", {"host_ids": ["web-1"], "parameter_values": []}, 422, "/parameter_values"),
    ("a batch of none", {"host_ids": ["web-1"], "batch": 0}, 422, "/batch"),
    ("failures below none", {"host_ids": ["web-1"], "max_failures": -1}, 422, "/max_failures"),
    ("a key that is none", {"host_ids": ["web-1"], "hosts": 1}, 422, "/hosts"),
    ("a reason that is none", {"host_ids": ["web-1"], "reason": 5}, 422, "/reason"),
]


@pytest.mark.parametrize(
    ("body", "status", "pointer"), [case[1:] for case in WRONG], ids=[c[0] for c in WRONG]
)
def test_bad_input_stores_nothing(fleet: World, body: Any, status: int, pointer: str) -> None:
    before = fleet.counts()
    given = {"parameter_values": {"target": "x"}, **body}
    answer = fleet.post(EXECUTE, given, "operator")
    assert answer.status_code == status, answer.text
    assert pointer in [one.get("pointer") for one in answer.get_json()["errors"]], answer.text
    assert fleet.counts() == before


BAD_BODIES = [
    ({"host_ids": ["web-1"]}, "/body"),
    ({"host_ids": ["web-1"], "body": "  "}, "/body"),
    ({"host_ids": ["web-1"], "body": "x" * 500_001}, "/body"),
    ({"host_ids": ["web-1"], "body": "x", "shell": "Bash"}, "/shell"),
    ({"host_ids": ["web-1"], "body": "x", "timeout": 0}, "/timeout"),
    ({"host_ids": ["web-1"], "body": "x", "timeout": "5"}, "/timeout"),
    ({"host_ids": ["nobody"], "body": "x"}, "/host_ids/0"),
]


@pytest.mark.parametrize(("body", "pointer"), BAD_BODIES)
def test_bad_bodies_store_nothing(fleet: World, body: dict[str, Any], pointer: str) -> None:
    before = fleet.counts()
    answer = fleet.post("/automation/execute", body, "operator")
    assert answer.status_code == 422, answer.text
    assert pointer in [one.get("pointer") for one in answer.get_json()["errors"]]
    assert fleet.counts() == before


def test_lists_refuse_what_is_no_word(fleet: World) -> None:
    for query in ("status=completed", "script=Not/a/name", "cursor=x", "limit=0"):
        assert fleet.ask("GET", f"/api/v1/automation/executions?{query}").status_code == 422
    assert fleet.ask("GET", f"/api/v1/automation/executions/{'0' * 26}").status_code == 404
    assert fleet.ask("GET", "/api/v1/automation/executions/x").status_code == 404


OFF = [
    ("POST", EXECUTE, GOOD),
    ("POST", "/automation/execute", {"host_ids": ["web-1"], "body": "true"}),
    ("GET", "/automation/executions", None),
    ("GET", f"/automation/executions/{'0' * 26}", None),
    ("POST", f"/automation/executions/{'0' * 26}/cancel", {}),
    ("POST", f"/automation/executions/{'0' * 26}/retry", {}),
]


def switch_off(world: World, feature: str) -> None:
    object.__setattr__(world.control, "settings", replace(world.control.settings, **{feature: False}))


@pytest.mark.parametrize(("method", "path", "body"), OFF)
def test_switched_off_is_402(fleet: World, method: str, path: str, body: Any) -> None:
    switch_off(fleet, "automation_script_exec")
    before = fleet.counts()
    answer = (
        fleet.ask(method, f"/api/v1{path}", json=body)
        if body is not None
        else fleet.ask(method, f"/api/v1{path}")
    )
    assert (answer.status_code, answer.get_json()["code"]) == (402, "automation_script_exec")
    assert fleet.counts() == before


def test_which_features_there_are(fleet: World) -> None:
    assert set(fleet.get("/features")["features"].values()) == {True}
    switch_off(fleet, "automation_script_approval")
    found = fleet.get("/features")["features"]
    assert [name for name, on in found.items() if not on] == ["automation_script_approval"]


def test_without_approvals_a_script_that_needs_one_is_402(fleet: World) -> None:
    script_shop.put(fleet, "wipe", "true\n", requires_approval=True, approval={"quorum": 2})
    switch_off(fleet, "automation_script_approval")
    before = fleet.counts()
    answer = fleet.post("/automation/scripts/wipe/execute", {"host_ids": ["web-1"]}, "operator")
    assert (answer.status_code, answer.get_json()["code"]) == (402, "automation_script_approval")
    assert fleet.counts() == before
