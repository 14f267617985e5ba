"""Stored workflows: revisions, ETags, what is run when one is executed."""

from __future__ import annotations

import threading

from api_world import HELLO, World

PACK = "/api/v1/packs/demo/workflows"
ONE = "/api/v1/workflows/demo.hello"


def stored(world: World, text: str = HELLO) -> dict[str, object]:
    answer = world.ask("POST", PACK, "author", data=text, content_type="application/yaml")
    assert answer.status_code in (200, 201), answer.text
    found: dict[str, object] = answer.get_json()
    return found


def test_a_workflow_is_stored_once_for_each_text(world: World) -> None:
    first = world.ask("POST", PACK, "author", data=HELLO, content_type="text/yaml")
    assert (first.status_code, first.headers["Location"]) == (201, ONE)
    body = first.get_json()
    assert (body["ref"], body["version"], body["revision"], body["author"]) == (
        "demo.hello",
        "1.0",
        1,
        "author",
    )
    again = world.ask("POST", PACK, "author", json={"definition": HELLO})
    assert (again.status_code, again.get_json()["revision"]) == (200, 1)
    assert again.headers["ETag"] == first.headers["ETag"]
    changed = stored(world, HELLO.replace("Hello", "Good day"))
    assert (changed["revision"], changed["label"]) == (2, "Good day")
    found = world.get("/workflows/demo.hello?revision=1")
    assert (found["source"], found["revision"]) == (HELLO, 1)
    versions = world.get("/workflows/demo.hello/versions")["items"]
    assert [one["revision"] for one in versions] == [2, 1]
    core, pack = world.get("/packs")["items"]
    assert (core["ref"], pack["ref"], pack["workflows"]) == ("core", "demo", 1)
    (listed,) = world.get("/packs/demo/workflows")["items"]
    assert listed["revision"] == 2
    assert "source" not in listed
    assert [one["name"] for one in listed["parameters"]] == ["name", "password"]


def test_an_object_is_as_good_as_a_text(world: World) -> None:
    definition = {"ref": "demo.object", "tasks": [{"name": "a", "action": "core.noop"}]}
    answer = world.ask("POST", PACK, "author", json={"definition": definition})
    assert answer.status_code == 201
    done = world.post("/workflows/demo.object/execute", None, "operator")
    assert (done.status_code, done.get_json()["status"]) == (201, "completed")


def test_etag(world: World) -> None:
    stored(world)
    read = world.ask("GET", ONE)
    tag = read.headers["ETag"]
    assert world.ask("GET", ONE, headers={"If-None-Match": tag}).status_code == 304
    assert world.ask("GET", ONE, headers={"If-None-Match": tag}).data == b""
    text = HELLO.replace("Hello", "Good day")
    put = {"data": text, "content_type": "application/yaml"}
    assert world.ask("PUT", ONE, "author", **put).status_code == 428
    assert world.ask("PUT", ONE, "author", headers={"If-Match": '"other"'}, **put).status_code == 412
    done = world.ask("PUT", ONE, "author", headers={"If-Match": tag}, **put)
    assert (done.status_code, done.get_json()["revision"]) == (200, 2)
    assert done.headers["ETag"] == world.ask("GET", ONE).headers["ETag"] != tag
    assert world.ask("PUT", ONE, "author", headers={"If-Match": tag}, **put).status_code == 412
    assert world.ask("GET", ONE, headers={"If-None-Match": tag}).status_code == 200
    assert world.ask("DELETE", ONE, "author", headers={"If-Match": tag}).status_code == 412
    other = world.ask("PUT", "/api/v1/workflows/demo.none", "author", headers={"If-Match": tag}, **put)
    assert other.status_code == 404


def test_a_text_of_another_name_is_refused_with_its_place(world: World) -> None:
    stored(world)
    tag = world.ask("GET", ONE).headers["ETag"]
    text = HELLO.replace("demo.hello", "demo.other")
    put = world.ask("PUT", ONE, "author", data=text, content_type="text/yaml", headers={"If-Match": tag})
    post = world.ask("POST", "/api/v1/packs/other/workflows", "author", data=HELLO, content_type="text/yaml")
    nameless = HELLO.replace("ref: demo.hello\n", "")
    without = world.ask("POST", PACK, "author", data=nameless, content_type="text/yaml")
    for answer in (put, post, without):
        assert answer.status_code == 422
        assert answer.get_json()["errors"][0]["pointer"] == "/definition/ref"


def test_problems_of_a_text_have_lines(world: World) -> None:
    text = HELLO.replace("action: core.noop", "action: core.nop", 1)
    for answer in (
        world.ask("POST", PACK, "author", data=text, content_type="application/yaml"),
        world.post("/workflow-executions", {"definition": text}),
    ):
        problem = answer.get_json()
        assert (answer.status_code, problem["code"]) == (422, "invalid-workflow")
        first = problem["errors"][0]
        assert (first["line"], first["severity"]) == (text[: text.index("core.nop")].count("\n") + 1, "error")
        assert first["column"] > 0
        assert first["pointer"].startswith("/tasks/1")
        assert "core.noop" in first["hint"]


def test_what_is_executed(world: World) -> None:
    stored(world)
    stored(world, HELLO.replace('"1.0"', '"1.1"').replace("Hello", "Again"))
    execute = "/workflows/demo.hello/execute"
    for version, revision in ((None, 2), ("1.0", 1), ("1.1", 2), (1, 1), (2, 2)):
        answer = world.post(execute, {"version": version}, "operator")
        assert (answer.status_code, answer.get_json()["revision"]) == (201, revision)
    for version in ("9", 9):
        assert world.post(execute, {"version": version}, "operator").status_code == 404
    bad = world.post(execute, {"parameters": {"nme": "x"}}, "operator").get_json()
    assert (bad["status"], bad["errors"][0]["pointer"]) == (422, "/parameters/nme")
    assert bad["errors"][0]["hint"] == "did you mean `name`?"


def test_a_workflow_is_not_deleted_under_its_executions(world: World) -> None:
    stored(world)
    execution = world.post("/workflows/demo.hello/execute", {}, "operator").get_json()["id"]
    refused = world.ask("DELETE", ONE, "author")
    assert (refused.status_code, refused.get_json()["code"]) == (409, "workflow-busy")
    world.end(execution, world.open_jobs(execution)[0])
    assert world.ask("DELETE", ONE, "author").status_code == 204
    assert world.ask("DELETE", ONE, "author").status_code == 404
    assert world.get(f"/workflow-executions/{execution}")["workflow"] == "demo.hello"
    assert stored(world)["revision"] == 1


def test_many_authors_at_once_lose_nothing(world: World) -> None:
    start = threading.Barrier(12)
    revisions: list[int] = []

    def store(number: int) -> None:
        start.wait()
        revisions.append(int(str(stored(world, HELLO.replace("Hello", f"Hello {number}"))["revision"])))

    threads = [threading.Thread(target=store, args=[number]) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(revisions) == list(range(1, 13))
    assert world.get("/workflows/demo.hello")["revision"] == 12


def test_the_workflows_of_a_pack_that_is_not_there(world: World) -> None:
    answer = world.ask("GET", "/api/v1/packs/none/workflows", "viewer")
    assert (answer.status_code, answer.get_json()["code"]) == (404, "unknown-pack")
    assert world.get("/packs/core/workflows")["items"] == []
    text = "ref: own.hello\ntasks: [{name: a, action: core.noop}]\n"
    assert world.post("/packs/own/workflows", {"definition": text}, "author").status_code == 201
    assert [one["ref"] for one in world.get("/packs/own/workflows")["items"]] == ["own.hello"]
