"""Saved scripts over the API: versions, ETags, differences, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import api_world
import pytest
import yaml
from api_world import World
from werkzeug.test import TestResponse

SCRIPTS = "/automation/scripts"
PATH = f"/api/v1{SCRIPTS}"
DEPLOY: dict[str, Any] = {
    "name": "deploy",
    "shell": "bash",
    "body": 'echo "to ${target}"\n',
    "parameters": [
        {"name": "target", "required": True},
        {"name": "dry", "type": "boolean", "default": False},
    ],
    "tags": ["web", "prod"],
    "timeout": 60,
}
BAD = yaml.safe_load((Path(__file__).parent.parent / "cases" / "scripts" / "bad.yaml").read_text())


def save(
    world: World, role: str = "author", headers: dict[str, str] | None = None, **changes: Any
) -> TestResponse:
    return world.post(SCRIPTS, {**DEPLOY, **changes}, role, headers=headers or {})


def saved(world: World, **changes: Any) -> dict[str, Any]:
    answer = save(world, **changes)
    assert answer.status_code in (200, 201), answer.text
    found: dict[str, Any] = answer.get_json()
    return found


def test_a_script_is_made_changed_and_left_as_it_is(world: World) -> None:
    answer = save(world)
    first = answer.get_json()
    assert (answer.status_code, first["result"], first["version"], first["revision"]) == (
        201,
        "created",
        1,
        1,
    )
    assert answer.headers["Location"] == f"{PATH}/{first['id']}"
    again = save(world)
    assert (again.status_code, again.get_json()["result"], again.get_json()["changed"]) == (
        200,
        "unchanged",
        [],
    )
    assert again.headers["ETag"] == answer.headers["ETag"]
    beside = saved(world, description="Puts it there", tags=["web"], timeout=61)
    assert (beside["result"], beside["version"], beside["revision"]) == ("updated", 1, 2)
    assert beside["changed"] == ["description", "tags", "timeout"]
    for number, changes in enumerate(
        ({"body": "true\n"}, {"shell": "sh"}, {"parameters": []}, {"body": "true"}), start=2
    ):
        changed = saved(world, **{**DEPLOY, "body": "true\n", **_until(number), **changes})
        assert (changed["result"], changed["version"]) == ("updated", number), changed
    listed = world.get(f"{SCRIPTS}/deploy/versions")["items"]
    assert [one["version"] for one in listed] == [5, 4, 3, 2, 1]
    old = world.get(f"{SCRIPTS}/{first['id']}/versions/1")
    assert (old["body"], old["shell"], old["author"]) == (DEPLOY["body"], "bash", "author")
    assert world.get(f"{SCRIPTS}/deploy")["version"] == 5
    assert old["digest"] == first["digest"] != listed[0]["digest"]


def _until(number: int) -> dict[str, Any]:
    """What the versions before had changed."""
    changes: list[dict[str, Any]] = [{}, {"shell": "sh"}, {"parameters": []}]
    found: dict[str, Any] = {}
    for one in changes[: number - 1]:
        found |= one
    return found


def test_a_script_is_renamed_by_its_id(world: World) -> None:
    first = saved(world)
    saved(world, name="other")
    renamed = saved(world, id=first["id"], name="roll-out")
    assert (renamed["id"], renamed["name"], renamed["version"], renamed["changed"]) == (
        first["id"],
        "roll-out",
        1,
        ["name"],
    )
    assert world.ask("GET", f"{PATH}/deploy").status_code == 404
    taken = save(world, id=first["id"], name="other")
    assert (taken.status_code, taken.get_json()["code"]) == (409, "name-taken")
    nobody = save(world, id="01J0000000000000000000000A")
    assert (nobody.status_code, nobody.get_json()["code"]) == (404, "unknown-script")


def test_a_list_has_pages_and_filters(world: World) -> None:
    for name in ("web-a", "web-b", "db", "web_c"):
        saved(world, name=name, tags=["db"] if name == "db" else ["web", name])
    seen: list[str] = []
    cursor = ""
    while cursor is not None:
        page = world.get(f"{SCRIPTS}?limit=2{f'&cursor={cursor}' if cursor else ''}")
        seen += [one["name"] for one in page["items"]]
        cursor = page["next_cursor"]
    assert seen == sorted(seen)
    assert len(seen) == 4
    assert "body" not in page["items"][0]
    assert [one["name"] for one in world.get(f"{SCRIPTS}?prefix=web-")["items"]] == ["web-a", "web-b"]
    assert [one["name"] for one in world.get(f"{SCRIPTS}?tag=db")["items"]] == ["db"]
    assert [one["name"] for one in world.get(f"{SCRIPTS}?tag=web&prefix=web_")["items"]] == ["web_c"]
    assert world.get(f"{SCRIPTS}?tag=we")["items"] == []
    page = world.get(f"{SCRIPTS}?tag=web&limit=1")
    assert [one["name"] for one in world.get(f"{SCRIPTS}?tag=web&cursor={page['next_cursor']}")["items"]] == [
        "web-b",
        "web_c",
    ]


def test_who_read_another_state_changes_nothing(world: World) -> None:
    tag = save(world).headers["ETag"]
    assert world.ask("GET", f"{PATH}/deploy", headers={"If-None-Match": tag}).status_code == 304
    assert save(world, headers={"If-Match": tag}, timeout=61).status_code == 200
    before = world.get(f"{SCRIPTS}/deploy")
    assert save(world, headers={"If-Match": tag}, timeout=62).status_code == 412
    assert save(world, headers={"If-None-Match": "*"}).status_code == 412
    for method, path in (("DELETE", f"{PATH}/deploy"), ("POST", f"{PATH}/deploy/rollback")):
        answer = world.ask(method, path, "author", json={"version": 1}, headers={"If-Match": tag})
        assert answer.status_code == 412, (method, answer.text)
    assert world.get(f"{SCRIPTS}/deploy") == before
    assert save(world, headers={"If-Match": tag}, name="new").status_code == 412
    assert save(world, headers={"If-None-Match": "*"}, name="new").status_code == 201
    again = world.ask("GET", f"{PATH}/deploy").headers["ETag"]
    assert world.ask("DELETE", f"{PATH}/deploy", "author", headers={"If-Match": again}).status_code == 204
    assert save(world).headers["ETag"] not in (tag, again)


def test_one_of_many_with_the_same_etag_wins(world: World) -> None:
    tag = save(world).headers["ETag"]
    answers: list[int] = []

    def work(number: int) -> None:
        answers.append(save(world, headers={"If-Match": tag}, body=f"echo {number}\n").status_code)

    _at_once(work, 12)
    assert sorted(answers) == [200] + [412] * 11
    assert [one["version"] for one in world.get(f"{SCRIPTS}/deploy/versions")["items"]] == [2, 1]


def test_saving_at_once_loses_no_version(world: World) -> None:
    answers: list[int] = []

    def work(number: int) -> None:
        answers.append(save(world, body=f"echo {number}\n").status_code)

    _at_once(work, 12)
    assert sorted(answers) == [200] * 11 + [201]
    found = world.get(f"{SCRIPTS}/deploy/versions?limit=50")["items"]
    assert [one["version"] for one in found] == list(range(12, 0, -1))
    bodies = {world.get(f"{SCRIPTS}/deploy/versions/{number}")["body"] for number in range(1, 13)}
    assert bodies == {f"echo {number}\n" for number in range(12)}


def _at_once(work: Any, count: int) -> None:
    threads = [Thread(target=work, args=[number]) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_two_versions_are_compared(world: World) -> None:
    saved(world, body="a\nb\nc\n")
    saved(world, body="a\nB\nc\nd", shell="sh")
    found = world.get(f"{SCRIPTS}/deploy/versions/1/diff/2")
    assert found["changed"] == ["shell", "body"]
    assert found["fields"] == {"shell": {"old": "bash", "new": "sh"}}
    assert found["diff"].splitlines() == [
        "--- deploy version 1",
        "+++ deploy version 2",
        "@@ -1,3 +1,4 @@",
        " a",
        "-b",
        "+B",
        " c",
        "+d",
        "\\ No newline at end of file",
    ]
    same = world.get(f"{SCRIPTS}/deploy/versions/2/diff/2")
    assert (same["changed"], same["fields"], same["diff"]) == ([], {}, "")
    missing = world.ask("GET", f"{PATH}/deploy/versions/1/diff/3")
    assert (missing.status_code, missing.get_json()["code"]) == (404, "unknown-version")


def test_a_rollback_is_a_new_version(world: World) -> None:
    first = saved(world)
    saved(world, body="true\n", description="kept")
    answer = world.post(f"{SCRIPTS}/deploy/rollback", {"version": 1}, "author")
    back = answer.get_json()
    assert (answer.status_code, back["version"], back["body"], back["digest"]) == (
        200,
        3,
        DEPLOY["body"],
        first["digest"],
    )
    assert (back["changed"], back["description"]) == (["body"], "kept")
    same = world.post(f"{SCRIPTS}/deploy/rollback", {"version": 1}, "author").get_json()
    assert (same["result"], same["version"]) == ("unchanged", 3)
    for path, body, status, code in (
        ("deploy", {"version": 9}, 404, "unknown-version"),
        ("nothing", {"version": 1}, 404, "unknown-script"),
        ("deploy", {}, 422, "invalid-request"),
        ("deploy", {"version": "1"}, 422, "invalid-request"),
    ):
        refused = world.post(f"{SCRIPTS}/{path}/rollback", body, "author")
        assert (refused.status_code, refused.get_json()["code"]) == (status, code)


def test_a_rollback_is_held_to_what_holds_now(world: World) -> None:
    listed = [{"name": "what", "choices": ["a", "b"]}]
    pasted = {"body": "echo ${what}\n", "substitution": "text", "parameters": listed}
    saved(world, **pasted, requires_approval=True)
    saved(world)
    refused = world.post(f"{SCRIPTS}/deploy/rollback", {"version": 1}, "author")
    assert refused.status_code == 422
    assert [one["pointer"] for one in refused.get_json()["errors"]] == ["/requires_approval"]


def test_what_is_deleted_is_gone_with_its_history(world: World) -> None:
    before = world.counts()
    saved(world)
    saved(world, body="true\n")
    assert world.ask("DELETE", f"{PATH}/deploy", "operator").status_code == 403
    assert world.ask("DELETE", f"{PATH}/deploy", "author").status_code == 204
    assert world.counts() == before
    for path in ("deploy", "deploy/versions", "deploy/versions/1"):
        assert world.ask("GET", f"{PATH}/{path}").status_code == 404
    assert world.ask("DELETE", f"{PATH}/deploy", "author").status_code == 404


def test_an_execution_keeps_the_body_of_a_script_that_is_gone(world: World) -> None:
    world.add_node("web-1", shells=["bash"])
    saved(world)
    execute = {"host_ids": ["web-1"], "parameter_values": {"target": "/srv"}}
    answer = world.post(f"{SCRIPTS}/deploy/execute", execute, "operator")
    assert answer.status_code == 201, answer.text
    assert world.ask("DELETE", f"{PATH}/deploy", "author").status_code == 204
    found = world.get(f"/automation/executions/{answer.get_json()['id']}")
    assert found["id"] == answer.get_json()["id"]


@pytest.mark.parametrize("case", [pytest.param(case, id=str(number)) for number, case in enumerate(BAD, 1)])
def test_a_bad_script_is_refused_whole(world: World, case: dict[str, Any]) -> None:
    before = world.counts()
    for path in (SCRIPTS, f"{SCRIPTS}/check"):
        answer = world.post(path, {**DEPLOY, **case["given"]}, "author")
        assert answer.status_code == 422, answer.text
        errors = answer.get_json()["errors"]
        assert [one["pointer"] for one in errors] == case["pointers"]
        assert case.get("says", "") in errors[0]["detail"]
    assert world.counts() == before


@pytest.mark.parametrize("name", ["name", "shell", "body"])
def test_what_a_script_must_have(world: World, name: str) -> None:
    given = {key: value for key, value in DEPLOY.items() if key != name}
    answer = world.post(SCRIPTS, given, "author")
    assert (answer.status_code, answer.get_json()["errors"][0]["pointer"]) == (422, f"/{name}")


def test_bodies_that_are_too_large(world: World) -> None:
    before = world.counts()
    assert save(world, body="#" * 10_000_000).status_code == 413
    answer = save(world, body="#" * 500_001)
    assert (answer.status_code, answer.get_json()["errors"][0]["pointer"]) == (422, "/body")
    assert world.counts() == before
    assert save(world, body="#" * 500_000, parameters=[]).status_code == 201


def test_the_lint_warns_where_it_does_not_refuse(world: World) -> None:
    before = world.counts()
    body = "echo '${target}'\nrm -f $target\n"
    checked = world.post(f"{SCRIPTS}/check", {**DEPLOY, "body": body}, "viewer").get_json()
    assert [(one["code"], one["line"], one["column"]) for one in checked["warnings"]] == [
        ("lint-single-quotes", 1, 7),
        ("lint-unquoted", 2, 7),
    ]
    assert world.counts() == before
    assert saved(world, body=body)["warnings"] == checked["warnings"]
    refused = save(world, body='true\neval "$target"\n')
    (error,) = refused.get_json()["errors"]
    assert (error["code"], error["line"], error["column"], error["pointer"]) == ("lint-code", 2, 7, "/body")


def test_an_approval_is_kept_with_the_script(world: World) -> None:
    approval = {"quorum": 2, "approvers": ["ada", "bob"], "expires_in": 60.0, "on_expire": "reject"}
    found = saved(world, requires_approval=True, approval=approval)
    assert (found["requires_approval"], found["approval"]) == (True, approval)


@pytest.fixture
def off(database_url: str, tmp_path: Path) -> Iterator[World]:
    made = api_world.build(database_url, tmp_path, automation_script_library=False)
    yield made
    made.control.store.close()


def test_the_library_may_be_switched_off(off: World) -> None:
    for method, path, body in (
        ("GET", "", None),
        ("POST", "", DEPLOY),
        ("POST", "/check", DEPLOY),
        ("GET", "/deploy", None),
        ("GET", "/deploy/versions", None),
        ("GET", "/deploy/versions/1", None),
        ("GET", "/deploy/versions/1/diff/2", None),
        ("POST", "/deploy/rollback", {"version": 1}),
        ("DELETE", "/deploy", None),
    ):
        answer = off.ask(method, PATH + path, "author", json=body)
        assert (answer.status_code, answer.get_json()["code"]) == (402, "automation_script_library"), path


def test_a_script_that_requires_an_approval_is_saved_with_approvals_off(
    database_url: str, tmp_path: Path
) -> None:
    made = api_world.build(database_url, tmp_path, automation_script_approval=False)
    assert save(made, requires_approval=True).status_code == 201
    made.control.store.close()


def test_the_trail_tells_of_scripts(world: World) -> None:
    tag = save(world).headers["ETag"]
    saved(world, body="true\n")
    save(world, headers={"If-Match": "*", "If-None-Match": tag}, body="true\n", timeout=61)
    world.post(f"{SCRIPTS}/deploy/rollback", {"version": 1}, "author")
    save(world, "operator")
    world.ask("DELETE", f"{PATH}/deploy", "author")
    told = [(one["action"], one["outcome"]) for one in world.get("/audit", "admin")["items"]]
    assert told[:4] == [
        ("script.delete", "accepted"),
        ("api.scripts.save_script", "refused"),
        ("script.rollback", "accepted"),
        ("script.save", "accepted"),
    ]
    detail = world.get("/audit?action=script.rollback", "admin")["items"][0]["detail"]
    assert (detail["to"], detail["version"], detail["changed"]) == (1, 3, ["body"])
