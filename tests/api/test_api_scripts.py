"""Saved scripts over the API: versions, races, what is refused, and what comes of features that are off."""

from __future__ import annotations

from typing import Any

import pytest
from api_world import World
from sqlalchemy import func, select
from test_api_automation_refused import switch_off
from werkzeug.test import TestResponse

from app.store.tables import Script, ScriptVersion, table

SCRIPTS = "/automation/scripts"
DEPLOY = {
    "name": "deploy",
    "shell": "bash",
    "body": 'echo "$target"\n',
    "parameters": [{"name": "target", "type": "string"}],
}


def save(world: World, **changes: Any) -> Any:
    answer = world.post(SCRIPTS, {**DEPLOY, **changes}, "author")
    assert answer.status_code in (200, 201), answer.text
    return answer.get_json()


def counts(world: World) -> tuple[int, ...]:
    with world.control.store.read() as connection:
        return tuple(
            connection.execute(select(func.count()).select_from(table(one))).scalar_one()
            for one in (Script, ScriptVersion)
        )


def test_what_a_script_does_makes_versions_and_how_it_is_run_makes_none(world: World) -> None:
    steps: list[tuple[dict[str, Any], str, int, int]] = [
        ({}, "created", 1, 1),
        ({}, "none", 1, 1),
        ({"timeout": 9}, "updated", 1, 2),
        ({"timeout": 9, "tags": ["web"], "description": "Deploys."}, "updated", 1, 3),
        ({"timeout": 9, "body": 'echo "to $target"\n'}, "version", 2, 4),
        ({"body": 'echo "to $target"\n', "shell": "sh"}, "version", 3, 5),
        ({"parameters": [{"name": "target", "type": "string", "required": True}]}, "version", 4, 6),
        (
            {
                "parameters": [{"name": "target", "type": "string", "required": True}],
                "requires_approval": True,
            },
            "updated",
            4,
            7,
        ),
    ]
    for changes, change, version, revision in steps:
        found = save(world, **changes)
        assert (found["change"], found["version"], found["revision"]) == (change, version, revision)
    items = world.get(f"{SCRIPTS}/deploy/versions")["items"]
    assert [one["version"] for one in items] == [4, 3, 2, 1]
    assert world.get(f"{SCRIPTS}/deploy/versions/1")["body"] == DEPLOY["body"]
    assert world.get(f"{SCRIPTS}/{found['id']}")["requires_approval"] is True


def test_a_version_comes_back_as_a_new_one(world: World) -> None:
    save(world)
    save(world, body="echo two\n", parameters=[])
    back = world.post(f"{SCRIPTS}/deploy/rollback", {"version": 1}, "author")
    assert (back.status_code, back.get_json()["version"], back.get_json()["change"]) == (200, 3, "version")
    assert back.get_json()["parameters"][0]["name"] == "target"
    again = world.post(f"{SCRIPTS}/deploy/rollback", {"version": 3}, "author").get_json()
    assert (again["version"], again["change"]) == (3, "none")
    refused = world.post(f"{SCRIPTS}/deploy/rollback", {"version": 9}, "author")
    assert (refused.status_code, refused.get_json()["code"]) == (404, "unknown-version")


def test_two_versions_are_compared(world: World) -> None:
    save(world)
    save(world, body="echo 2", shell="sh", parameters=[])
    found = world.get(f"{SCRIPTS}/deploy/versions/1/diff/2")
    assert found["diff"].splitlines() == [
        "--- deploy@1",
        "+++ deploy@2",
        "@@ -1 +1 @@",
        '-echo "$target"',
        "+echo 2",
        "\\ No newline at end",
    ]
    assert found["changed"]["shell"] == {"old": "bash", "new": "sh"}
    assert world.get(f"{SCRIPTS}/deploy/versions/2/diff/2")["diff"] == ""


def tag(world: World, script: str = "deploy") -> str:
    answer = world.ask("GET", f"/api/v1{SCRIPTS}/{script}", "viewer")
    return answer.headers["ETag"]


def put(world: World, headers: dict[str, str], **changes: Any) -> TestResponse:
    return world.ask("POST", f"/api/v1{SCRIPTS}", "author", json={**DEPLOY, **changes}, headers=headers)


def test_a_change_on_top_of_what_is_not_there_any_more_is_refused(world: World) -> None:
    assert put(world, {"If-Match": "*"}).status_code == 412
    assert put(world, {"If-None-Match": "*"}).status_code == 201
    assert put(world, {"If-None-Match": "*"}).status_code == 412
    first = tag(world)
    answer = put(world, {"If-Match": first}, body="echo mine\n")
    assert (answer.status_code, answer.headers["ETag"]) == (200, tag(world))
    assert put(world, {"If-Match": first}, body="echo yours\n").status_code == 412
    assert world.get(f"{SCRIPTS}/deploy")["body"] == "echo mine\n"
    back = world.ask(
        "POST",
        f"/api/v1{SCRIPTS}/deploy/rollback",
        "author",
        json={"version": 1},
        headers={"If-Match": first},
    )
    assert back.status_code == 412
    gone = world.ask("DELETE", f"/api/v1{SCRIPTS}/deploy", "author", headers={"If-Match": first})
    assert gone.status_code == 412
    answer = world.ask("GET", f"/api/v1{SCRIPTS}/deploy", "viewer", headers={"If-None-Match": tag(world)})
    assert answer.status_code == 304


def test_a_deleted_script_is_gone_with_its_versions_and_its_name_is_free(world: World) -> None:
    made = save(world)
    save(world, body="echo two\n")
    for path in (f"{SCRIPTS}/deploy", f"{SCRIPTS}/{made['id']}"):
        assert world.ask("DELETE", f"/api/v1{path}", "operator").status_code == 403
    assert world.ask("DELETE", f"/api/v1{SCRIPTS}/{made['id']}", "author").status_code == 204
    assert counts(world) == (0, 0)
    for path in ("", "/versions", "/versions/1"):
        answer = world.ask("GET", f"/api/v1{SCRIPTS}/deploy{path}", "viewer")
        assert (answer.status_code, answer.get_json()["code"]) == (404, "unknown-script")
    again = save(world)
    assert (again["version"], again["id"] != made["id"]) == (1, True)


def test_scripts_are_listed_by_name_and_narrowed_down(world: World) -> None:
    for name in ("web-a", "web_b", "db-a"):
        save(world, name=name, tags=[name[:3], "all"])
    page = world.get(f"{SCRIPTS}?limit=2")
    rest = world.get(f"{SCRIPTS}?limit=2&cursor={page['next_cursor']}")
    assert [one["name"] for one in page["items"] + rest["items"]] == ["db-a", "web-a", "web_b"]
    assert "body" not in page["items"][0]
    assert [one["name"] for one in world.get(f"{SCRIPTS}?prefix=web-")["items"]] == ["web-a"]
    assert [one["name"] for one in world.get(f"{SCRIPTS}?tag=web")["items"]] == ["web-a", "web_b"]
    assert world.get(f"{SCRIPTS}?tag=we")["items"] == []
    assert world.get(f"{SCRIPTS}?tag=%25")["items"] == []


REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("/name", {"name": "No Blanks"}),
    ("/name", {"name": ""}),
    ("/name", {"name": "x" * 65}),
    ("/name", {"name": 7}),
    ("/shell", {"shell": "fish"}),
    ("/shell", {"shell": None}),
    ("/body", {"body": ""}),
    ("/body", {"body": " \n"}),
    ("/body", {"body": "a" * 500_001}),
    ("/body", {"body": ["true"]}),
    ("/timeout", {"timeout": 0}),
    ("/timeout", {"timeout": 86_401}),
    ("/timeout", {"timeout": True}),
    ("/tags/1", {"tags": ["fine", "not fine"]}),
    ("/tags", {"tags": ["t"] * 51}),
    ("/parameters/0/name", {"parameters": [{"name": "a b"}]}),
    ("/parameters/0/name", {"parameters": [{"name": "PATH"}]}),
    ("/parameters/1/name", {"parameters": [{"name": "target"}, {"name": "TARGET"}]}),
    ("/parameters/0/type", {"parameters": [{"name": "a", "type": "list"}]}),
    ("/parameters/0/default", {"parameters": [{"name": "a", "type": "integer", "default": "x"}]}),
    ("/parameters/0/kind", {"parameters": [{"name": "a", "kind": "string"}]}),
    ("/parameters", {"parameters": "none"}),
    ("/parameters", {"parameters": [{"name": f"p{n}"} for n in range(101)]}),
    ("/requires_approval", {"requires_approval": "yes"}),
    ("/approval", {"approval": {"quorum": 2}}),
    ("/approval/quorum", {"requires_approval": True, "approval": {"quorum": 0}}),
    ("/approval/quorum", {"requires_approval": True, "approval": {"quorum": 3, "approvers": ["a", "b"]}}),
    ("/approval/approvers/0", {"requires_approval": True, "approval": {"approvers": ["Not A Login"]}}),
    ("/approval/on_expire", {"requires_approval": True, "approval": {"on_expire": "approve"}}),
    ("/approval/on_expire", {"requires_approval": True, "approval": {"expires_in": 9, "on_expire": "wait"}}),
    ("/substitution", {"substitution": "paste"}),
    ("/requires_approval", {"substitution": "text"}),
    ("/parameters/0/pattern", {"substitution": "text", "requires_approval": True}),
    ("/interpreter", {"interpreter": "bash"}),
    ("/body", {"body": 'eval "$target"\n'}),
    ("/body", {"body": "echo $((target + 1))\n"}),
]


@pytest.mark.parametrize(("pointer", "changes"), REFUSED, ids=lambda one: str(one)[:60])
@pytest.mark.parametrize("path", [SCRIPTS, f"{SCRIPTS}/check"], ids=["save", "check"])
def test_what_is_wrong_is_told_with_its_place_and_nothing_is_kept(
    world: World, path: str, pointer: str, changes: dict[str, Any]
) -> None:
    answer = world.post(path, {**DEPLOY, **changes}, "author")
    assert answer.status_code == 422, answer.text
    assert pointer in {one["pointer"] for one in answer.get_json()["errors"]}, answer.text
    assert counts(world) == (0, 0)


def test_a_body_of_ten_megabytes_is_413(world: World) -> None:
    answer = world.post(SCRIPTS, {**DEPLOY, "body": "a" * 10_000_000}, "author")
    assert answer.status_code == 413
    assert counts(world) == (0, 0)


def test_a_check_tells_what_is_doubtful_and_keeps_nothing(world: World) -> None:
    answer = world.post(f"{SCRIPTS}/check", {**DEPLOY, "body": "echo '${target}'\n"}, "author")
    assert answer.status_code == 200
    (warning,) = answer.get_json()["warnings"]
    assert (warning["pointer"], warning["line"], warning["column"]) == ("/body", 1, 7)
    assert counts(world) == (0, 0)


def test_with_the_library_switched_off_all_of_it_is_402(world: World) -> None:
    save(world)
    switch_off(world, "automation_script_library")
    asked = [
        ("GET", "", None),
        ("POST", "", DEPLOY),
        ("POST", "/check", DEPLOY),
        ("GET", "/deploy", None),
        ("GET", "/deploy/versions", None),
        ("GET", "/deploy/versions/1", None),
        ("GET", "/deploy/versions/1/diff/1", None),
        ("POST", "/deploy/rollback", {"version": 1}),
        ("DELETE", "/deploy", None),
    ]
    for method, path, body in asked:
        answer = world.ask(method, f"/api/v1{SCRIPTS}{path}", "author", json=body)
        assert (answer.status_code, answer.get_json()["code"]) == (402, "automation_script_library")
    assert world.get("/features")["features"]["automation_script_library"] is False


def test_a_script_that_needs_an_approval_is_saved_where_approvals_are_off(world: World) -> None:
    switch_off(world, "automation_script_approval")
    assert save(world, requires_approval=True)["requires_approval"] is True
    world.add_node("web-1")
    answer = world.post(f"{SCRIPTS}/deploy/execute", {"host_ids": ["web-1"]}, "operator")
    assert (answer.status_code, answer.get_json()["code"]) == (402, "automation_script_approval")
