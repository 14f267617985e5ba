"""People with a role or with grants, changed and switched off; and what everybody may do about themselves."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from api_world import ROLES, World

from app.services import people, roles
from app.services.people import Change

GRANTS = [
    {"role": "operator", "packs": ["shop", "web"], "labels": {"site": "north"}},
    {"role": "viewer"},
]


def token(world: World, login: str) -> dict[str, str]:
    made = world.post("/tokens", {"login": login}).get_json()["token"]
    return {"Authorization": f"Bearer {made}"}


def patch(world: World, login: str, body: Any, role: str = "admin") -> Any:
    return world.ask("PATCH", f"/api/v1/users/{login}", role, json=body)


def test_a_person_has_a_role_or_grants(world: World) -> None:
    plain = world.post("/users", {"login": "ada", "role": "approver"})
    assert (plain.status_code, plain.get_json()["grants"]) == (201, [{"role": "approver"}])
    bound = world.post("/users", {"login": "bob", "grants": GRANTS}).get_json()
    assert (bound["role"], bound["grants"], bound["enabled"]) == ("", GRANTS, True)
    assert world.get("/users/bob", "admin") == bound
    assert bound in world.get("/users", "admin")["items"]
    assert world.ask("GET", "/api/v1/users/nobody").get_json()["code"] == "unknown-user"
    assert patch(world, "nobody", {"enabled": False}).status_code == 404


@pytest.mark.parametrize(
    ("grants", "role"),
    [
        ([{"role": "operator"}], "operator"),
        ([{"role": "operator"}, {"role": "operator"}], "operator"),
        ([{"role": "viewer", "packs": ["web"]}, {"role": "admin"}], "admin"),
        ([{"role": "viewer", "packs": ["web"]}], ""),
        ([{"role": "viewer"}, {"role": "approver"}], ""),
    ],
)
def test_grants_that_are_one_role_are_that_role(world: World, grants: list[Any], role: str) -> None:
    assert world.post("/users", {"login": "ada", "grants": grants}).get_json()["role"] == role


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/role"),
        ({"role": "root"}, "/role"),
        ({"role": "viewer", "grants": [{"role": "viewer"}]}, "/grants"),
        ({"grants": []}, "/grants"),
        ({"grants": [{"role": "viewer"}] * 21}, "/grants"),
        ({"grants": "viewer"}, "/grants"),
        ({"grants": ["viewer"]}, "/grants/0"),
        ({"grants": [{}]}, "/grants/0/role"),
        ({"grants": [{"role": []}]}, "/grants/0/role"),
        ({"grants": [{"role": "viewer", "pack": ["web"]}]}, "/grants/0/pack"),
        ({"grants": [{"role": "viewer"}, {"role": "viewer", "packs": "web"}]}, "/grants/1/packs"),
        ({"grants": [{"role": "viewer", "packs": []}]}, "/grants/0/packs"),
        ({"grants": [{"role": "viewer", "packs": ["web"] * 201}]}, "/grants/0/packs"),
        ({"grants": [{"role": "viewer", "packs": ["web", "We b"]}]}, "/grants/0/packs/1"),
        ({"grants": [{"role": "viewer", "packs": [1]}]}, "/grants/0/packs/0"),
        ({"grants": [{"role": "viewer", "labels": {}}]}, "/grants/0/labels"),
        ({"grants": [{"role": "viewer", "labels": ["web"]}]}, "/grants/0/labels"),
        ({"grants": [{"role": "viewer", "labels": {"kind": 1}}]}, "/grants/0/labels"),
        ({"grants": [{"role": "viewer", "labels": {"k d": "x"}}]}, "/grants/0/labels"),
        ({"grants": [{"role": "viewer", "labels": {"kind": "a b"}}]}, "/grants/0/labels"),
        ({"grants": [{"role": "admin", "packs": ["web"]}]}, "/grants/0"),
        ({"grants": [{"role": "admin", "labels": {"kind": "web"}}]}, "/grants/0"),
    ],
)
def test_bad_grants(world: World, body: dict[str, Any], pointer: str) -> None:
    before = world.counts()
    for answer in (world.post("/users", {"login": "ada", **body}), patch(world, "viewer", body)):
        assert answer.status_code == 422, answer.text
        assert answer.get_json()["errors"][0]["pointer"] == pointer
    assert world.counts() == before
    assert world.get("/users/viewer", "admin")["role"] == "viewer"


def test_a_change_counts_from_the_next_request_on(world: World) -> None:
    world.post("/users", {"login": "ada", "role": "viewer"})
    headers = token(world, "ada")

    def status(method: str, path: str) -> int:
        return world.ask(method, f"/api/v1{path}", "", headers=headers, json={}).status_code

    assert status("GET", "/kv") == 200
    assert status("POST", "/prune") == 403
    assert patch(world, "ada", {"role": "admin"}).status_code == 200
    assert status("POST", "/prune") == 200
    assert patch(world, "ada", {"grants": [{"role": "viewer", "packs": ["web"]}]}).status_code == 200
    assert (status("GET", "/kv"), status("GET", "/packs")) == (403, 200)
    assert patch(world, "ada", {"enabled": False}).get_json()["enabled"] is False
    assert (status("GET", "/packs"), status("GET", "/me")) == (401, 401)
    assert patch(world, "ada", {"enabled": True, "role": "viewer"}).status_code == 200
    assert status("GET", "/kv") == 200


@pytest.mark.parametrize("body", [{"enabled": False}, {"role": "author"}, {"grants": [{"role": "viewer"}]}])
def test_the_last_administrator_stays_one(world: World, body: dict[str, Any]) -> None:
    refused = patch(world, "admin", body)
    assert (refused.status_code, refused.get_json()["code"]) == (409, "last-admin")
    world.post("/users", {"login": "other", "role": "admin"})
    patch(world, "other", {"enabled": False})
    assert patch(world, "admin", body).status_code == 409, "one who is switched off does not count"
    patch(world, "other", {"enabled": True})
    assert patch(world, "admin", body).status_code == 200
    with world.control.store.read() as connection:
        row = people.get_user(connection, "admin")
    assert (row["role"] == "admin" and row["enabled"]) is False


def test_administrators_do_not_all_go_at_once(world: World) -> None:
    """Each takes the role from another one in the same moment."""
    logins = ["admin", *(f"root-{number}" for number in range(5))]
    for login in logins[1:]:
        world.post("/users", {"login": login, "role": "admin"})
    found: list[str] = []

    def demote(login: str) -> None:
        try:
            people.change_user(world.control, login, Change(role="viewer"), "somebody")
        except people.Conflict as error:
            found.append(error.code)

    threads = [threading.Thread(target=demote, args=(login,)) for login in logins]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["last-admin"]
    with world.control.store.read() as connection:
        left = [one["login"] for one in people.list_users(connection) if one["role"] == "admin"]
    assert len(left) == 1


@pytest.mark.parametrize("role", ROLES)
def test_everybody_sees_who_they_are(world: World, role: str) -> None:
    found = world.get("/me", role)
    assert (found["login"], found["role"], found["grants"]) == (role, role, [{"role": role}])
    (mine,) = world.get("/me/tokens", role)["items"]
    assert (mine["id"], mine["login"]) == (found["token"], role)


def test_everybody_revokes_their_own_tokens_and_no_others(world: World) -> None:
    made = world.post("/tokens", {"login": "viewer", "name": "old"}).get_json()
    others = world.get("/me", "operator")["token"]
    assert [one["id"] for one in world.get("/me/tokens")["items"]] == [made["id"], world.get("/me")["token"]]
    refused = world.ask("DELETE", f"/api/v1/me/tokens/{others}", "viewer")
    nothing = world.ask("DELETE", "/api/v1/me/tokens/01J0000000000000000000000A", "viewer")
    assert (refused.status_code, refused.get_json()["code"]) == (404, "unknown-token")
    assert refused.text.replace(others, "…") == nothing.text.replace("01J0000000000000000000000A", "…")
    assert world.ask("DELETE", f"/api/v1/me/tokens/{made['id']}", "viewer").status_code == 204
    old = {"Authorization": f"Bearer {made['token']}"}
    assert world.ask("GET", "/version", "", headers=old).status_code == 401
    assert world.ask("GET", "/version", "operator").status_code == 200


def test_columns_that_make_no_sense_let_nobody_in() -> None:
    """Somebody wrote the database: what cannot be read gives nothing."""
    broken: list[Any] = [
        ("root", None), ("", None), ("viewer", []), ("", "viewer"), ("", {"role": "viewer"}), ("", [["viewer"]]),
        ("", [{"role": "root"}]), ("", [{"role": "viewer", "packs": 3}]), ("", 3),
    ]  # fmt: skip
    for role, grants in broken:
        assert roles.kept(role, grants) == (), (role, grants)
    assert roles.kept("viewer", None) == (roles.Grant("viewer"),)
