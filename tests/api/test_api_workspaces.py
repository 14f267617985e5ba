"""Snapshots, executions that start from one, what jobs did to the files, and artifacts: for whom they are there."""

from __future__ import annotations

from typing import Any

import pytest
from api_world import World
from file_cabinet import HELLO_BYTES, HELLO_DIGEST, TASK, bounded, job_of, kept, sha256, stepped, tree, upload
from sqlalchemy import select

from app.files.manifest import EMPTY
from app.services import workspace_steps
from app.store.tables import Snapshot, table

OPERATOR = "operator"
BEFORE = {"app.py": b"print(1)\n", "conf/a.ini": b"a\n", "old.txt": b"old\n"}
AFTER = {"app.py": b"print(2)\n", "conf/a.ini": b"a\n", "new.txt": b"new\n", "out/log": b"x" * 100}
UNKNOWN = "ab" * 32


def executed(world: World, workspace: str, role: str = "author", **options: Any) -> Any:
    body = {"definition": TASK, "workspace": workspace}
    return world.ask("POST", "/api/v1/workflow-executions", role, json=body, **options)


def test_a_snapshot_is_posted_once_and_read(world: World) -> None:
    manifest = tree(BEFORE)
    first = world.ask("POST", "/api/v1/snapshots", OPERATOR, data=manifest.to_bytes()).get_json()
    assert first["digest"] == manifest.digest
    assert sorted(first["missing"]) == sorted(sha256(one) for one in BEFORE.values())
    upload(world, BEFORE)
    again = world.ask("POST", "/api/v1/snapshots", OPERATOR, data=manifest.to_bytes()).get_json()
    assert again == {"digest": manifest.digest, "missing": []}
    got = world.ask("GET", f"/api/v1/snapshots/{manifest.digest}", "viewer")
    assert (got.data, got.mimetype) == (manifest.to_bytes(), "application/json")
    tag = {"If-None-Match": got.headers["ETag"]}
    assert world.ask("GET", f"/api/v1/snapshots/{manifest.digest}", "viewer", headers=tag).status_code == 304
    unknown = world.ask("GET", f"/api/v1/snapshots/{UNKNOWN}", "viewer")
    assert (unknown.status_code, unknown.get_json()["code"]) == (404, "unknown-snapshot")


def test_one_file_of_many_that_changed_is_all_that_is_missing(world: World) -> None:
    files = {f"d{number % 10}/{number}": str(number).encode() for number in range(300)}
    upload(world, files)
    files["d3/3"] = b"changed"
    answer = world.ask("POST", "/api/v1/snapshots", OPERATOR, data=tree(files).to_bytes())
    assert answer.get_json()["missing"] == [sha256(b"changed")]


BAD_MANIFESTS: dict[str, bytes] = {
    "nothing": b"",
    "no JSON": b"{",
    "another thing": b"[]",
    "deep": b"[" * 50_000,
    "out of the tree": tree({"a": b""}).to_bytes().replace(b'"a"', b'"../a"'),
    "absolute": tree({"a": b""}).to_bytes().replace(b'"a"', b'"/a"'),
    "setuid": tree({"a": b""}).to_bytes().replace(b"420", b"2541"),
    "spaces": tree({"a": b""}).to_bytes() + b"\n",
    "not UTF-8": tree({"a": b""}).to_bytes().replace(b'"a"', b'"\xff"'),
}


@pytest.mark.parametrize("why", BAD_MANIFESTS)
def test_a_bad_manifest_stores_nothing(world: World, why: str) -> None:
    before = world.counts()
    answer = world.ask("POST", "/api/v1/snapshots", OPERATOR, data=BAD_MANIFESTS[why])
    assert (answer.status_code, answer.get_json()["code"]) == (422, "bad-tree")
    assert world.counts() == before


def test_a_file_that_is_too_large_is_said_at_once(world: World) -> None:
    object.__setattr__(world.control.settings, "blob_limit", 5)
    answer = world.ask("POST", "/api/v1/snapshots", OPERATOR, data=tree({"a": HELLO_BYTES}).to_bytes())
    assert (answer.status_code, answer.get_json()["code"]) == (413, "blob-too-large")


def test_an_execution_starts_from_a_snapshot(world: World) -> None:
    digest = upload(world, BEFORE)
    answer = executed(world, f"sha256:{digest}")
    assert answer.status_code == 201, answer.text
    found = world.get(f"/workflow-executions/{answer.get_json()['id']}/workspace")
    assert found == {
        "snapshot": digest,
        "start": digest,
        "files": 3,
        "bytes": sum(map(len, BEFORE.values())),
        "steps": [],
        "next_cursor": None,
    }
    assert world.post("/packs/demo/workflows", {"definition": f"ref: demo.go\n{TASK}"}).status_code == 201
    stored = world.post("/workflows/demo.go/execute", {"workspace": digest}, OPERATOR)
    assert stored.status_code == 201
    assert world.get(f"/workflow-executions/{stored.get_json()['id']}/workspace")["snapshot"] == digest
    assert executed(world, "").status_code == 201


def test_one_that_lacks_blobs_or_is_unknown_is_refused(world: World) -> None:
    manifest = tree(BEFORE)
    world.ask("POST", "/api/v1/snapshots", OPERATOR, data=manifest.to_bytes())
    before = world.counts()
    lacking = executed(world, manifest.digest)
    assert (lacking.status_code, lacking.get_json()["code"]) == (422, "missing-blobs")
    assert len(lacking.get_json()["errors"]) == 3
    unknown = executed(world, UNKNOWN)
    assert (unknown.status_code, unknown.get_json()["code"]) == (422, "unknown-snapshot")
    for wrong in ("abc", UNKNOWN.upper(), 7, None, [UNKNOWN]):
        answer = executed(world, wrong)  # type: ignore[arg-type]
        assert (answer.status_code, answer.get_json()["code"]) == (422, "invalid-request")
    assert world.counts() == before


def test_what_jobs_did_is_told(world: World) -> None:
    execution, job = job_of(world)
    empty = world.get(f"/workflow-executions/{execution}/workspace")
    assert (empty["snapshot"], empty["start"], empty["files"], empty["steps"]) == ("", "", 0, [])
    before, after = tree(BEFORE), tree(AFTER)
    stepped(world, execution, job, EMPTY, before)
    stepped(world, execution, job, before, after)
    found = world.get(f"/workflow-executions/{execution}/workspace?paths=1")
    assert (found["snapshot"], found["start"]) == (after.digest, EMPTY.digest)
    assert (found["files"], found["bytes"]) == (4, after.bytes)
    first, second = found["steps"]
    assert (first["added"], first["changed"], first["deleted"]) == (3, 0, 0)
    assert {name: second[name] for name in ("seq", "task", "job", "node", "base", "snapshot")} == {
        "seq": 2,
        "task": "go",
        "job": job,
        "node": "local",
        "base": before.digest,
        "snapshot": after.digest,
    }
    assert (second["added"], second["changed"], second["deleted"], second["bytes"]) == (2, 1, 1, 113)
    assert (second["paths"], second["cut"]) == (
        {"added": ["new.txt", "out/log"], "changed": ["app.py"], "deleted": ["old.txt"]},
        False,
    )
    short = world.get(f"/workflow-executions/{execution}/workspace?limit=1")
    assert (len(short["steps"]), "paths" in short["steps"][0]) == (1, False)
    rest = world.get(f"/workflow-executions/{execution}/workspace?cursor={short['next_cursor']}")
    assert [step["seq"] for step in rest["steps"]] == [2]
    assert rest["next_cursor"] is None


def test_lists_of_paths_are_bounded(world: World) -> None:
    execution, job = job_of(world)
    many = tree({f"f{number:05}": b"" for number in range(workspace_steps.MOST_PATHS + 5)})
    stepped(world, execution, job, EMPTY, many)
    (step,) = world.get(f"/workflow-executions/{execution}/workspace?paths=1")["steps"]
    assert (step["added"], len(step["paths"]["added"]), step["cut"]) == (1005, 1000, True)


def test_artifacts_are_listed_and_read(world: World) -> None:
    execution, job = job_of(world)
    assert world.get(f"/workflow-executions/{execution}/artifacts")["items"] == []
    kept(world, execution, job, {"report/über.txt": HELLO_BYTES, "b": b"2"})
    kept(world, execution, job, {"left.txt": b"3"}, "kept")
    items = world.get(f"/workflow-executions/{execution}/artifacts")["items"]
    assert {(one["path"], one["kind"], one["size"]) for one in items} == {
        ("report/über.txt", "artifact", 6),
        ("b", "artifact", 1),
        ("left.txt", "kept", 1),
    }
    (one,) = world.get(f"/workflow-executions/{execution}/artifacts?kind=kept")["items"]
    assert (one["path"], one["mode"], one["sha256"], one["job"]) == ("left.txt", 0o644, sha256(b"3"), job)
    page = world.get(f"/workflow-executions/{execution}/artifacts?limit=2")
    rest = world.get(f"/workflow-executions/{execution}/artifacts?limit=2&cursor={page['next_cursor']}")
    assert len(page["items"] + rest["items"]) == 3
    (named,) = world.ask(
        "GET", f"/api/v1/workflow-executions/{execution}/artifacts", query_string={"path": "report/über.txt"}
    ).get_json()["items"]
    path = f"/api/v1/workflow-executions/{execution}/artifacts/{named['id']}"
    got = world.ask("GET", path, "viewer")
    assert (got.status_code, got.data, got.headers["ETag"]) == (200, HELLO_BYTES, f'"{HELLO_DIGEST}"')
    assert got.headers["Content-Disposition"] == "attachment; filename*=UTF-8''%C3%BCber.txt"
    part = world.ask("GET", path, "viewer", headers={"Range": "bytes=1-3"})
    assert (part.status_code, part.data) == (206, b"ell")
    other, _ = job_of(world)
    foreign = world.ask("GET", path.replace(execution, other), "viewer")
    assert (foreign.status_code, foreign.get_json()["code"]) == (404, "unknown-artifact")


# people whose role is bounded


def test_whoever_is_bounded_sees_what_belongs_to_their_executions(world: World) -> None:
    digest = upload(world, BEFORE)
    execution, job = job_of(world)
    stepped(world, execution, job, tree(BEFORE), tree(AFTER))
    kept(world, execution, job, {"b": b"2"})
    inside = bounded(world, "ida", {"role": "viewer", "packs": ["inline"]})
    outside = bounded(world, "otto", {"role": "viewer", "packs": ["other"]})
    place = {"snapshot": digest, "execution": execution}
    blob = f"/api/v1/blobs/sha256:{sha256(BEFORE['app.py'])}"
    for headers, status in ((inside, 200), (outside, 404)):
        for path, query in (
            (f"/api/v1/snapshots/{digest}", {"execution": execution}),
            (f"/api/v1/workflow-executions/{execution}/workspace", {}),
            (f"/api/v1/workflow-executions/{execution}/artifacts", {}),
            (blob, place),
            (f"/api/v1/blobs/sha256:{sha256(b'2')}", {"execution": execution}),
        ):
            answer = world.ask("GET", path, "", headers=headers, query_string=query)
            assert answer.status_code == status, (path, answer.text)
        fetched = world.post(
            "/blobs/fetch", {"digests": [sha256(BEFORE["app.py"])], **place}, "", headers=headers
        )
        assert fetched.status_code == status
    for query in ({}, {"snapshot": digest}, {"snapshot": UNKNOWN, "execution": execution}):
        assert world.ask("GET", blob, "", headers=inside, query_string=query).status_code == 404
    other, _ = job_of(world)
    wrong = {"snapshot": digest, "execution": other}
    assert world.ask("GET", blob, "", headers=inside, query_string=wrong).status_code == 404


def test_whoever_is_bounded_starts_from_what_they_posted_and_put(world: World) -> None:
    theirs = upload(world, BEFORE)
    headers = bounded(world, "eve", {"role": "author", "packs": ["inline"]})
    assert executed(world, theirs, "", headers=headers).get_json()["code"] == "unknown-snapshot"
    posted = world.ask("POST", "/api/v1/snapshots", "", headers=headers, data=tree(BEFORE).to_bytes())
    assert len(posted.get_json()["missing"]) == 3
    assert executed(world, theirs, "", headers=headers).get_json()["code"] == "missing-blobs"
    upload(world, BEFORE, **headers)
    assert executed(world, theirs, "", headers=headers).status_code == 201


def test_what_is_stored_is_small(world: World) -> None:
    upload(world, {f"directory/file-{number}": b"" for number in range(500)})
    with world.control.store.read() as connection:
        (body,) = connection.execute(select(table(Snapshot).c.body)).scalars()
    assert len(body) < 10_000
