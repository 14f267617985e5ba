"""Blobs over HTTP: whole, in parts, many at once; what a pass lets a node do, and nothing more."""

from __future__ import annotations

import io
import random
from typing import Any

import pytest
from api_world import World
from file_cabinet import HELLO_BYTES as HELLO
from file_cabinet import HELLO_DIGEST as NAME
from file_cabinet import bounded, job_of, packed, pass_for, sha256, tree, unpacked, upload
from sqlalchemy import select, update

from app.services import blobs as service
from app.store.blobs.local import LocalBlobs
from app.store.tables import Blob, Job, JobUpload, Node, table
from app.transport.keys import KeyPair

LARGE = random.Random(2).randbytes(700_000)
WIDE = sha256(LARGE)
OPERATOR = "operator"


def path(digest: str) -> str:
    return f"/api/v1/blobs/sha256:{digest}"


def put(world: World, content: bytes, role: str = OPERATOR, **options: Any) -> Any:
    return world.ask("PUT", path(sha256(content)), role, data=content, **options)


def put_part(world: World, first: int, last: int, **options: Any) -> Any:
    headers = {"Content-Range": f"bytes {first}-{last - 1}/{len(LARGE)}", **options.pop("headers", {})}
    return world.ask("PUT", path(WIDE), OPERATOR, data=LARGE[first:last], headers=headers, **options)


def rows(world: World) -> dict[str, int]:
    blobs = table(Blob)
    with world.control.store.read() as connection:
        return {row.digest: row.size for row in connection.execute(select(blobs.c.digest, blobs.c.size))}


# one by one


def test_a_blob_is_put_and_read(world: World) -> None:
    answer = put(world, HELLO)
    assert (answer.status_code, answer.get_json()) == (201, {"digest": NAME, "complete": True, "offset": 6})
    assert put(world, HELLO).status_code == 201
    got = world.ask("GET", path(NAME), "viewer")
    assert (got.status_code, got.data, got.headers["ETag"]) == (200, HELLO, f'"{NAME}"')
    assert (got.mimetype, got.headers["Accept-Ranges"]) == ("application/octet-stream", "bytes")
    head = world.ask("HEAD", path(NAME), "viewer")
    assert (head.status_code, head.data, head.headers["Content-Length"]) == (200, b"", "6")
    again = world.ask("GET", path(NAME), "viewer", headers={"If-None-Match": f'"{NAME}"'})
    assert (again.status_code, again.data) == (304, b"")
    assert rows(world) == {NAME: 6}


RANGES = [
    ("bytes=0-2", 206, b"hel", "bytes 0-2/6"),
    ("bytes=3-", 206, b"lo\n", "bytes 3-5/6"),
    ("bytes=-2", 206, b"o\n", "bytes 4-5/6"),
    ("bytes=4-99", 206, b"o\n", "bytes 4-5/6"),
    ("bytes=6-", 416, b"", "bytes */6"),
    ("bytes=9-12", 416, b"", "bytes */6"),
    ("bytes=0-0,2-3", 416, b"", "bytes */6"),
    ("bytes=x", 200, HELLO, None),
    ("lines=1-2", 200, HELLO, None),
]


@pytest.mark.parametrize(("asked", "status", "body", "told"), RANGES, ids=[one[0] for one in RANGES])
def test_ranges(world: World, asked: str, status: int, body: bytes, told: str | None) -> None:
    put(world, HELLO)
    got = world.ask("GET", path(NAME), "viewer", headers={"Range": asked})
    assert (got.status_code, got.headers.get("Content-Range")) == (status, told)
    assert got.data == body or (status == 416 and got.get_json()["code"] == "bad-range")
    other = world.ask("GET", path(NAME), "viewer", headers={"Range": "bytes=0-2", "If-Range": '"x"'})
    assert (other.status_code, other.data) == (200, HELLO)


def test_an_upload_goes_on_where_it_broke_off(world: World) -> None:
    first = put_part(world, 0, 300_000)
    assert (first.status_code, first.headers["Upload-Offset"]) == (202, "300000")
    assert first.get_json() == {"digest": WIDE, "complete": False, "offset": 300_000}
    head = world.ask("HEAD", path(WIDE), OPERATOR)
    assert (head.status_code, head.headers["Upload-Offset"]) == (404, "300000")
    for first_byte in (0, 299_999, 300_001):
        wrong = put_part(world, first_byte, 500_000)
        assert (wrong.status_code, wrong.get_json()["code"]) == (409, "wrong-offset")
        assert wrong.headers["Upload-Offset"] == "300000"
    assert put_part(world, 300_000, 400_000).status_code == 202
    assert put_part(world, 400_000, len(LARGE)).status_code == 201
    assert put_part(world, 400_000, len(LARGE)).status_code == 201, "whole already: only the answer was lost"
    assert world.ask("GET", path(WIDE), "viewer").data == LARGE
    assert world.ask("HEAD", path(sha256(b"x")), OPERATOR).headers["Upload-Offset"] == "0"


def test_a_put_without_a_range_starts_anew(world: World) -> None:
    put_part(world, 0, 300_000)
    assert put(world, LARGE).status_code == 201
    assert world.ask("GET", path(WIDE), "viewer").data == LARGE


BAD_PUTS: dict[str, tuple[bytes, dict[str, str], int, str]] = {
    "another content": (b"HELLO\n", {}, 422, "bad-tree"),
    "no range": (HELLO, {"Content-Range": "all of it"}, 422, "bad-range"),
    "no total": (HELLO, {"Content-Range": "bytes 0-5/*"}, 422, "bad-range"),
    "another length": (HELLO, {"Content-Range": "bytes 0-9/10"}, 422, "bad-range"),
    "beyond the total": (HELLO, {"Content-Range": "bytes 0-5/3"}, 422, "bad-range"),
    "other units": (HELLO, {"Content-Range": "lines 0-5/6"}, 422, "bad-range"),
    "a total that is too large": (HELLO, {"Content-Range": "bytes 0-5/99999999999"}, 413, "blob-too-large"),
}


@pytest.mark.parametrize("why", BAD_PUTS)
def test_a_bad_put_stores_nothing(world: World, why: str) -> None:
    content, headers, status, code = BAD_PUTS[why]
    answer = world.ask("PUT", path(NAME), OPERATOR, data=content, headers=headers)
    assert (answer.status_code, answer.get_json()["code"]) == (status, code)
    assert rows(world) == {}
    head = world.ask("HEAD", path(NAME), OPERATOR)
    assert (head.status_code, head.headers["Upload-Offset"]) == (404, "0")


# many at once


def test_a_bundle_is_put_and_fetched(world: World) -> None:
    contents = [HELLO, LARGE, b""]
    answer = world.ask("POST", "/api/v1/blobs/bundle", OPERATOR, data=packed(*contents))
    assert (answer.status_code, answer.get_json()) == (200, {"stored": 3, "bytes": 700_006})
    digests = [f"sha256:{WIDE}", NAME, sha256(b""), NAME]
    got = world.post("/blobs/fetch", {"digests": digests}, "viewer")
    assert unpacked(got.data) == {WIDE: LARGE, NAME: HELLO, sha256(b""): b""}
    lacking = world.post("/blobs/fetch", {"digests": [NAME, sha256(b"?")]}, "viewer")
    assert (lacking.status_code, lacking.get_json()["code"]) == (404, "unknown-blob")
    asked = [sha256(b"?"), NAME, sha256(b"!"), sha256(b"?")]
    missing = world.post("/blobs/missing", {"digests": asked}, OPERATOR).get_json()
    assert missing == {"missing": [sha256(b"?"), sha256(b"!")]}


BAD_BUNDLES: dict[str, tuple[bytes, int]] = {
    "nothing": (b"", 0),
    "no zstd": (b"x" * 100, 0),
    "cut": (packed(HELLO, LARGE)[:-100], 1),
    "goes on": (packed(HELLO) + packed(b"x"), 1),
    "a wrong digest": (packed(HELLO).replace(b"\0", b"\1"), 0),
}


@pytest.mark.parametrize("why", BAD_BUNDLES)
def test_of_a_bad_bundle_what_was_whole_is_kept(world: World, why: str) -> None:
    body, kept = BAD_BUNDLES[why]
    answer = world.ask("POST", "/api/v1/blobs/bundle", OPERATOR, data=body)
    assert (answer.status_code, answer.get_json()["code"]) == (422, "bad-tree")
    assert len(rows(world)) == kept
    for digest, size in rows(world).items():
        assert len(world.ask("GET", path(digest)).data) == size


BAD_LISTS: dict[str, Any] = {
    "nothing": {},
    "no list": {"digests": NAME},
    "no digest": {"digests": ["abc"]},
    "capitals": {"digests": [NAME.upper()]},
    "numbers": {"digests": [1]},
    "too many": {"digests": [NAME] * (service.MOST_DIGESTS + 1)},
    "something else": {"digests": [], "more": 1},
}


@pytest.mark.parametrize("why", BAD_LISTS)
def test_a_bad_list_of_digests(world: World, why: str) -> None:
    for verb in ("missing", "fetch"):
        answer = world.post(f"/blobs/{verb}", BAD_LISTS[why], OPERATOR)
        assert (answer.status_code, answer.get_json()["code"]) == (422, "invalid-request")
        assert answer.get_json()["errors"]


def test_requests_have_limits_of_their_own(world: World) -> None:
    settings = world.control.settings
    object.__setattr__(settings, "blob_limit", 1000)
    object.__setattr__(settings, "workspace_bytes", 2000)
    object.__setattr__(settings, "workspace_files", 3)
    for content, status in ((b"x" * 1000, 201), (b"x" * 1001, 413)):
        assert put(world, content).status_code == status
    one = world.ask("POST", "/api/v1/blobs/bundle", OPERATOR, data=packed(b"y" * 1001))
    assert (one.status_code, one.get_json()["code"]) == (413, "blob-too-large")
    sums = world.ask(
        "POST", "/api/v1/blobs/bundle", OPERATOR, data=packed(*(bytes([n]) * 900 for n in range(3)))
    )
    assert (sums.status_code, sums.get_json()["code"]) == (422, "bad-tree")
    count = world.ask("POST", "/api/v1/blobs/bundle", OPERATOR, data=packed(b"1", b"2", b"3", b"4"))
    assert (count.status_code, count.get_json()["code"]) == (422, "bad-tree")
    noise = world.ask("POST", "/api/v1/blobs/bundle", OPERATOR, data=LARGE)
    assert (noise.status_code, noise.get_json()["code"]) == (413, "request-entity-too-large")
    assert "MUSTER_WORKSPACE_BYTES" in noise.get_json()["hint"]
    many = tree({str(number): b"" for number in range(4)}).to_bytes()
    assert world.ask("POST", "/api/v1/snapshots", OPERATOR, data=many).get_json()["code"] == "bad-tree"


# passes


def test_a_pass_reads_its_snapshot_and_nothing_else(world: World) -> None:
    other = upload(world, {"other": b"of somebody else"})
    mine = upload(world, {"a": HELLO, "b": LARGE})
    execution, job = job_of(world)
    headers = pass_for(world, execution, job, snapshot=mine)
    assert world.ask("GET", path(NAME), "", headers=headers).data == HELLO
    assert world.ask("HEAD", path(NAME), "", headers=headers).status_code == 200
    got = world.post("/blobs/fetch", {"digests": [NAME, WIDE]}, "", headers=headers)
    assert unpacked(got.data) == {NAME: HELLO, WIDE: LARGE}
    manifest = world.ask("GET", f"/api/v1/snapshots/{mine}", "", headers=headers)
    assert (manifest.status_code, sha256(manifest.data)) == (200, mine)
    foreign = sha256(b"of somebody else")
    for method, target, body in (
        ("GET", path(foreign), None),
        ("HEAD", path(foreign), None),
        ("GET", f"/api/v1/snapshots/{other}", None),
        ("POST", "/api/v1/blobs/fetch", {"digests": [NAME, foreign]}),
        ("POST", "/api/v1/blobs/fetch", {"digests": [foreign], "snapshot": other}),
        ("POST", "/api/v1/blobs/fetch", {"digests": [foreign], "execution": execution}),
    ):
        answer = world.ask(method, target, "", headers=headers, json=body)
        assert answer.status_code == 404, (method, target)
    for target in (
        "/snapshots",
        "/workflow-executions",
        f"/workflow-executions/{execution}",
        "/nodes",
        "/packs",
    ):
        for method in ("GET", "POST"):
            assert world.ask(method, f"/api/v1{target}", "", headers=headers).status_code == 401, target


def test_a_pass_cannot_take_what_others_put_by_its_name(world: World) -> None:
    put(world, HELLO)
    execution, job = job_of(world)
    headers = pass_for(world, execution, job)
    asked = {"digests": [NAME]}
    assert world.post("/blobs/missing", asked, "", headers=headers).get_json() == {"missing": [NAME]}
    assert world.ask("GET", path(NAME), "", headers=headers).status_code == 404
    assert put(world, HELLO, "", headers=headers).status_code == 201
    assert world.post("/blobs/missing", asked, "", headers=headers).get_json() == {"missing": []}
    assert world.ask("GET", path(NAME), "", headers=headers).data == HELLO
    with world.control.store.read() as connection:
        assert service.held(connection, f"job:{job}", [NAME, WIDE]) == {NAME}


def test_a_pass_need_not_put_what_it_may_read(world: World) -> None:
    mine = upload(world, {"a": HELLO})
    execution, job = job_of(world)
    headers = pass_for(world, execution, job, snapshot=mine)
    answer = world.post("/blobs/missing", {"digests": [NAME, WIDE]}, "", headers=headers)
    assert answer.get_json() == {"missing": [WIDE]}


def test_a_pass_bounds_what_is_put(world: World) -> None:
    execution, job = job_of(world)
    headers = pass_for(world, execution, job, bytes=1000)
    assert put(world, b"a" * 600, "", headers=headers).status_code == 201
    over = put(world, b"b" * 401, "", headers=headers)
    assert (over.status_code, over.get_json()["code"]) == (413, "upload-limit")
    bundle = packed(b"c" * 300, b"d" * 101)
    many = world.ask("POST", "/api/v1/blobs/bundle", "", headers=headers, data=bundle)
    assert (many.status_code, many.get_json()["code"]) == (413, "upload-limit")
    assert sorted(rows(world).values()) == [300, 600]
    assert put(world, b"e" * 100, "", headers=headers).status_code == 201
    assert put(world, b"f", "", headers=headers).status_code == 413
    with world.control.store.read() as connection:
        assert connection.execute(select(table(JobUpload).c.bytes)).scalars().all() == [1000]


def test_what_did_not_come_does_not_count(world: World) -> None:
    execution, job = job_of(world)
    headers = pass_for(world, execution, job, bytes=1_000_000)
    for _ in range(3):
        refused = put_part(world, 0, 300_000, headers={**headers, "Content-Range": "bytes 5-300004/700000"})
        assert (refused.status_code, refused.headers["Upload-Offset"]) == (409, "0")
    assert put(world, LARGE, "", headers=headers).status_code == 201


def test_what_a_broken_connection_left_out_does_not_count(world: World) -> None:
    execution, job = job_of(world)
    headers = pass_for(world, execution, job, bytes=1_000_000)
    for number in range(5):
        came = {**headers, "Content-Range": f"bytes {number * 1000}-{number * 1000 + 299_999}/700000"}
        cut = {"input_stream": io.BytesIO(b"x" * 1000), "environ_overrides": {"CONTENT_LENGTH": "300000"}}
        assert world.ask("PUT", path(WIDE), "", headers=came, **cut).status_code == 400
        body = packed(random.Random(number).randbytes(400_000))
        cut = {
            "input_stream": io.BytesIO(body[:1000]),
            "environ_overrides": {"CONTENT_LENGTH": str(len(body))},
        }
        assert world.ask("POST", "/api/v1/blobs/bundle", "", headers=headers, **cut).status_code == 400
    with world.control.store.read() as connection:
        assert connection.execute(select(table(JobUpload).c.bytes)).scalars().all() == [5000]


STALE = {
    "of another installation": {"installation": "01J0000000000000000000000A"},
    "expired": {"issued_at": 1.0, "expires_at": 2.0},
    "of another node": {"node": "web-9"},
    "of another execution": {"execution": "01J0000000000000000000000A"},
    "of an unknown job": {"job": "01J0000000000000000000000A.go.0.1"},
}


@pytest.mark.parametrize("why", STALE)
def test_a_pass_that_is_not_for_here_and_now(world: World, why: str) -> None:
    execution, job = job_of(world)
    headers = pass_for(world, execution, job, **STALE[why])
    answer = put(world, HELLO, "", headers=headers)
    assert (answer.status_code, answer.get_json()["code"]) == (401, "bad-pass")
    assert rows(world) == {}


def test_a_forged_pass_and_one_that_is_a_bearer_token(world: World) -> None:
    execution, job = job_of(world)
    right = pass_for(world, execution, job)["Authorization"].removeprefix("Pass ")
    stranger = KeyPair.generate()
    assert stranger.kid not in right
    for header in (
        f"Bearer {right}",
        f"Pass {world.tokens['admin']}",
        f"Pass {right[:-2]}",
        f"Pass {right}x",
        "Pass",
        "Pass ",
        f"Basic {right}",
    ):
        answer = world.ask("GET", path(NAME), "", headers={"Authorization": header})
        assert answer.status_code == 401, header


def test_a_pass_ends_with_its_job_and_its_node(world: World) -> None:
    execution, job = job_of(world)
    headers = pass_for(world, execution, job)
    assert put(world, HELLO, "", headers=headers).status_code == 201
    nodes = table(Node)
    with world.control.store.write() as connection:
        connection.execute(update(nodes).where(nodes.c.name == "local").values(state="removed"))
    assert put(world, HELLO, "", headers=headers).get_json()["code"] == "bad-pass"
    with world.control.store.write() as connection:
        connection.execute(update(nodes).where(nodes.c.name == "local").values(state="draining"))
        connection.execute(update(Job).where(Job.id == job).values(status="cancelled"))
    assert put(world, HELLO, "", headers=headers).get_json()["code"] == "pass-over"


def test_bytes_are_on_the_disk_before_a_row_says_so(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    sync, seen = LocalBlobs.sync, []

    def watched(store: LocalBlobs) -> None:
        sync(store)
        seen.append((set(store.every()), set(rows(world))))

    monkeypatch.setattr(LocalBlobs, "sync", watched)
    put(world, HELLO)
    world.ask("POST", "/api/v1/blobs/bundle", "operator", data=packed(b"a", b"b"))
    first, all_ = {NAME}, {NAME, sha256(b"a"), sha256(b"b")}
    assert seen == [(first, set()), (all_, first)]
    assert set(rows(world)) == all_


# people whose role is bounded


def test_bounded_people_have_what_they_put(world: World) -> None:
    put(world, HELLO)
    headers = bounded(world, "eve", {"role": "operator", "packs": ["other"]})
    asked = {"digests": [NAME]}
    assert world.post("/blobs/missing", asked, "", headers=headers).get_json() == {"missing": [NAME]}
    assert world.ask("GET", path(NAME), "", headers=headers).status_code == 404
    assert world.post("/blobs/fetch", asked, "", headers=headers).status_code == 404
    put(world, HELLO, "", headers=headers)
    assert world.post("/blobs/missing", asked, "", headers=headers).get_json() == {"missing": []}
    assert world.ask("GET", path(NAME), "", headers=headers).data == HELLO


def test_whoever_posts_a_snapshot_of_digests_that_they_heard_of_reads_nothing(world: World) -> None:
    put(world, HELLO)
    headers = bounded(world, "eve", {"role": "operator", "packs": ["other"]})
    posted = tree({"a": HELLO})
    answer = world.ask("POST", "/api/v1/snapshots", "", headers=headers, data=posted.to_bytes())
    assert answer.get_json()["missing"] == [NAME]
    where = {"snapshot": posted.digest}
    assert world.ask("GET", path(NAME), "", headers=headers, query_string=where).status_code == 404
    asked = {"digests": [NAME], **where}
    assert world.post("/blobs/fetch", asked, "", headers=headers).status_code == 404
