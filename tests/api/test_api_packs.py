"""Packs over the API: registered whole or not at all, changed, configured, executed, deleted."""

from __future__ import annotations

from threading import Thread

import pytest
from api_world import World
from pack_shop import CONFIG, FILES, configure, job_of, register, without
from sqlalchemy import select

from app.store import executions as rows
from app.store.tables import Execution, table


def test_S4_27_the_tree_of_a_pack_is_registered_and_shown(world: World) -> None:
    answer = register(world)
    assert answer.status_code == 201, answer.text
    done = answer.get_json()
    assert (done["ref"], done["revision"], done["disabled"], done["files"]) == ("shop", 1, [], len(FILES))
    assert done["changed"] == ["shop.again", "shop.sell", "shop.day", "shop.night"]
    assert answer.headers["Location"] == "/api/v1/packs/shop"
    found = world.get("/packs/shop")
    assert (found["label"], found["version"], found["author"], found["tags"]) == (
        "Shop",
        "1.10",
        "ada",
        ["a"],
    )
    assert [one["ref"] for one in found["actions"]] == ["shop.again", "shop.sell"]
    assert [one["ref"] for one in found["workflows"]] == ["shop.day", "shop.night"]
    assert (found["rules"], found["sensors"]) == (["rules/on_push.yaml"], ["sensors/poll.py"])
    assert [one["path"] for one in found["files"]] == sorted(FILES)
    rule = world.ask("GET", "/api/v1/packs/shop/files/rules/on_push.yaml", "viewer")
    assert (rule.mimetype, rule.text) == ("text/plain", FILES["rules/on_push.yaml"])
    for path in ("rules/none.yaml", "../pack.yaml", "%2e%2e/x", "rules/on_push.yaml/"):
        assert world.ask("GET", f"/api/v1/packs/shop/files/{path}").status_code == 404
    codes = {
        pack: world.ask("GET", f"/api/v1/packs/{pack}/files/README.md").get_json()["code"]
        for pack in ("shop", "none", "core")
    }
    assert codes == {"shop": "unknown-file", "none": "unknown-pack", "core": "unknown-file"}
    core, shop = world.get("/packs")["items"]
    assert (core["ref"], shop["actions"], shop["workflows"]) == ("core", 2, 2)
    assert len(world.get("/packs/core")["actions"]) == core["actions"]


def test_S4_28_every_workflow_is_an_action(world: World) -> None:
    register(world)
    listed = world.get("/actions?pack=shop")["items"]
    assert [(one["ref"], one["is_workflow"]) for one in listed] == [
        ("shop.again", True),
        ("shop.day", True),
        ("shop.night", True),
        ("shop.sell", False),
    ]
    sell = world.get("/actions/shop.sell")
    assert (sell["runner"], sell["timeout"], sell["ok_codes"], sell["revision"]) == ("sh", 30, [0, 3], 1)
    assert [one["name"] for one in sell["parameters"]] == ["what", "count", "list"]
    assert "script" not in sell
    seen, cursor = [], ""
    while cursor is not None:
        page = world.get(f"/actions?limit=3{f'&cursor={cursor}' if cursor else ''}")
        seen += [one["ref"] for one in page["items"]]
        cursor = page["next_cursor"]
    assert seen == sorted(seen)
    assert {"core.shell", "shop.sell", "shop.day"} <= set(seen)
    assert world.ask("GET", "/api/v1/actions/shop.none").status_code == 404
    assert world.ask("GET", "/api/v1/packs/none").status_code == 404


def test_all_or_nothing(world: World) -> None:
    before = world.counts()
    answer = register(
        world, {"actions/sell.yaml": "runner: shh\n", "workflows/night.yaml": "ref: shop.night\n"}
    )
    problem = answer.get_json()
    assert (answer.status_code, problem["code"]) == (422, "invalid-pack")
    places = {(one["file"], one["line"], one["column"], one["code"]) for one in problem["errors"]}
    assert ("actions/sell.yaml", 1, 9, "bad-choice") in places
    assert ("workflows/night.yaml", 1, 1, "missing-key") in places
    assert world.counts() == before


@pytest.mark.parametrize(
    "path",
    ["../x", "/etc/passwd", "actions/../../x", "a\\b", "actions/\u2028.sh", "pack.yaml/", "~/x", "actions/ä"],
)
def test_paths_that_are_none(world: World, path: str) -> None:
    before = world.counts()
    answer = register(world, {path: "x"})
    assert answer.status_code == 422, answer.text
    assert world.counts() == before


def test_bodies_that_are_none(world: World) -> None:
    for body in ({}, {"files": []}, {"files": {"pack.yaml": 1}}, {"files": None}, {"files": {}, "more": 1}):
        assert world.post("/packs", body, "author").status_code == 422
    assert world.post("/packs", {"files": {}}, "author").get_json()["errors"][0]["code"] == "missing-file"
    assert register(world, role="operator").status_code == 403


def test_what_is_as_it_was_stays_and_what_is_gone_is_switched_off(world: World) -> None:
    register(world)
    again = register(world)
    assert (again.status_code, again.get_json()["changed"], again.get_json()["revision"]) == (200, [], 1)
    changed = register(world, {"actions/sell.sh": "echo sold\n"}).get_json()
    assert (changed["changed"], changed["revision"], changed["files"]) == (["shop.sell"], 2, 1)
    assert world.get("/actions/shop.sell")["revision"] == 2
    assert world.get("/workflows/shop.day")["revision"] == 1
    fewer = without("workflows/night.yaml", "actions/again.yaml")
    gone = world.post("/packs", {"files": fewer}, "author").get_json()
    assert gone["disabled"] == ["shop.again", "shop.night"]
    assert not world.get("/workflows/shop.night")["enabled"]
    assert not world.get("/actions/shop.again")["enabled"]
    assert "shop.again" not in {one["ref"] for one in world.get("/actions?pack=shop")["items"]}
    refused = world.post("/workflows/shop.night/execute", {}, "operator")
    assert (refused.status_code, refused.get_json()["code"]) == (409, "workflow-disabled")
    put = {"definition": FILES["workflows/night.yaml"]}
    assert world.post("/packs/shop/workflows", put, "author").status_code == 201, "who stores it wants it"
    assert world.get("/workflows/shop.night")["enabled"]
    world.post("/packs", {"files": {**fewer, "README.md": "x"}}, "author")
    assert world.get("/workflows/shop.night")["enabled"], "it stands by itself now"
    back = register(world).get_json()
    assert back["changed"] == ["shop.again"]
    assert world.get("/workflows/shop.night")["enabled"]
    assert world.post("/workflows/shop.night/execute", {}, "operator").status_code == 201


def test_a_name_may_go_from_a_script_to_a_workflow_and_back(world: World) -> None:
    register(world)
    caller = "ref: other.caller\ntasks: [{name: a, action: shop.sell, input: {what: x}}]\n"
    stored = world.post("/packs/other/workflows", {"definition": caller}, "author")
    assert stored.status_code == 201, stored.text

    def runs_on_a_node() -> bool:
        execution = world.post("/workflows/other.caller/execute", {}, "operator").get_json()["id"]
        with world.control.store.read() as connection:
            query = select(table(Execution).c.plan_digest).where(table(Execution).c.id == execution)
            plan = rows.plan(connection, connection.execute(query).scalar_one())
        return plan.tasks["a"].runs_on_nodes

    assert runs_on_a_node()
    files = without("actions/sell.yaml", "actions/sell.sh", "workflows/day.yaml", "actions/again.yaml")
    files["workflows/sell.yaml"] = (
        "ref: shop.sell\nparameters: {what: {}}\ntasks: [{name: a, action: core.noop}]\n"
    )
    answer = world.post("/packs", {"files": files}, "author")
    assert answer.status_code == 200, answer.text
    assert not runs_on_a_node()
    assert register(world).status_code == 200
    assert runs_on_a_node()


def test_names_that_are_taken(world: World) -> None:
    register(world)
    text = "ref: shop.sell\ntasks: [{name: a, action: core.noop}]\n"
    refused = world.post("/packs/shop/workflows", {"definition": text}, "author")
    assert (refused.status_code, refused.get_json()["code"]) == (409, "name-taken")
    text = text.replace("shop.sell", "shop.own")
    assert world.post("/packs/shop/workflows", {"definition": text}, "author").status_code == 201
    refused = register(world, {"actions/own.yaml": "runner: sh\nentry: sell.sh\n"})
    assert (refused.status_code, refused.get_json()["code"]) == (409, "name-taken")
    register(world, {"actions/sell.sh": "echo anew\n"})
    assert world.get("/workflows/shop.own")["enabled"], "it did not come with the folder"
    refused = world.post("/packs", {"files": {"pack.yaml": "ref: core\n"}}, "author")
    assert (refused.status_code, refused.get_json()["code"]) == (422, "built-in-pack")
    assert world.ask("DELETE", "/api/v1/packs/core", "author").status_code == 403


def test_a_job_has_its_input_twice_and_the_actions_settings(world: World) -> None:
    register(world)
    execution = world.post("/workflows/shop.day/execute", {"parameters": {"what": "; reboot"}}).get_json()[
        "id"
    ]
    job = job_of(world, execution)
    assert (job.script, job.shell, job.timeout, job.ok_codes) == ('echo "$what"\n', "sh", 30, (0, 3))
    assert job.env == {"what": "; reboot here", "count": "1", "list": ""}
    assert job.input == {"what": "; reboot here", "count": 1, "list": None}
    assert job.action == "shop.sell"
    with world.control.store.read() as connection:
        query = select(table(Execution).c.plan_digest).where(table(Execution).c.id == execution)
        plan = rows.plan(connection, connection.execute(query).scalar_one())
    assert plan.actions["shop.sell"]["revision"] == 1


def test_an_unknown_action_names_the_nearest(world: World) -> None:
    register(world)
    text = "tasks: [{name: a, action: shop.sel}]"
    problem = world.post("/workflow-executions", {"definition": text}).get_json()
    assert problem["errors"][0]["code"] == "unknown-action"
    assert problem["errors"][0]["hint"] == "did you mean `shop.sell`?"
    assert (problem["errors"][0]["line"], problem["errors"][0]["column"]) == (1, 27)


def test_a_workflow_that_no_longer_fits_its_action_is_refused_at_submission(world: World) -> None:
    register(world)
    caller = "ref: other.caller\ntasks: [{name: a, action: shop.sell, input: {what: x}}]\n"
    world.post("/packs/other/workflows", {"definition": caller}, "author")
    metadata = FILES["actions/sell.yaml"].replace("what: {", "which: {")
    day = FILES["workflows/day.yaml"].replace("{what: '", "{which: '")
    assert register(world, {"actions/sell.yaml": metadata, "workflows/day.yaml": day}).status_code == 200
    before = world.counts()
    answer = world.post("/workflows/other.caller/execute", {}, "operator")
    assert (answer.status_code, answer.get_json()["code"]) == (422, "invalid-workflow")
    assert {one["code"] for one in answer.get_json()["errors"]} == {"unknown-key", "missing-key"}
    assert world.counts() == before


# configuration


def test_a_pack_is_deleted_with_what_came_with_it(world: World) -> None:
    empty = world.counts()
    register(world)
    execution = world.post("/workflows/shop.day/execute", {}, "operator").get_json()["id"]
    answer = world.ask("DELETE", "/api/v1/packs/shop", "author")
    problem = answer.get_json()
    assert (answer.status_code, problem["code"]) == (409, "pack-busy")
    assert execution in problem["detail"]
    assert world.ask("DELETE", "/api/v1/packs/shop", "operator").status_code == 403
    world.hold(world.open_jobs(execution)[0])
    world.end(execution, world.open_jobs(execution)[0])
    assert world.ask("DELETE", "/api/v1/packs/shop", "author").status_code == 204
    for path in ("/packs/shop", "/actions/shop.sell", "/workflows/shop.day", CONFIG):
        assert world.ask("GET", f"/api/v1{path}").status_code == 404
    left = world.counts()
    for name in ("packs", "pack_actions", "pack_files", "workflow_definitions", "workflow_versions"):
        assert left[name] == empty[name]
    assert world.get(f"/workflow-executions/{execution}")["status"] == "completed"
    assert job_of(world, execution).script == FILES["actions/sell.sh"]


def test_the_trail_tells_of_packs(world: World) -> None:
    register(world)
    configure(world, {"place": "there"})
    world.ask("DELETE", "/api/v1/packs/core", "author")
    world.ask("DELETE", "/api/v1/packs/shop", "author")
    told = [(one["action"], one["outcome"]) for one in world.get("/audit", "admin")["items"]]
    assert told[:4] == [
        ("pack.delete", "accepted"),
        ("pack.delete", "refused"),
        ("pack.configure", "accepted"),
        ("pack.register", "accepted"),
    ]
    assert "there" not in str(world.get("/audit?action=pack.configure", "admin"))


def test_registering_storing_and_deleting_at_once_is_never_an_error_of_ours(world: World) -> None:
    """Each answer is one that a single caller could get, and what is left can be registered whole.

    What was stored may be deleted before the answer is made of it.
    """
    own = "ref: shop.own\ntasks: [{name: a, action: core.noop}]\n"
    answers: list[tuple[str, int]] = []

    def work(verb: str) -> None:
        for _ in range(6):
            if verb == "register":
                answer = register(world)
            elif verb == "store":
                answer = world.post("/packs/shop/workflows", {"definition": own}, "author")
            else:
                answer = world.ask("DELETE", "/api/v1/packs/shop", "author")
            answers.append((verb, answer.status_code))

    threads = [
        Thread(target=work, args=[verb]) for verb in ("register", "register", "store", "store", "delete")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 30
    allowed = {"register": {200, 201}, "store": {200, 201, 404}, "delete": {204, 404}}
    assert [one for one in answers if one[1] not in allowed[one[0]]] == []
    assert register(world).status_code in (200, 201)
    listed = {one["ref"] for one in world.get("/actions?pack=shop")["items"]}
    assert {"shop.again", "shop.day", "shop.night", "shop.sell"} <= listed
