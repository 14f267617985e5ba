"""The audit trail, for every route that changes something: an entry for what was done, and one for who was refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import ssh_shop
from api_world import HELLO, World
from file_cabinet import HELLO_BYTES, HELLO_DIGEST, packed
from pack_shop import FILES, register
from schedule_shop import NIGHTLY, furnish, made
from script_shop import EXECUTE, GOOD, begin, stock
from sqlalchemy import func, select
from test_api_gate import needed, routes
from test_api_nodes import request as enrolment
from test_api_nodes import token as enrolment_token

from app.files.manifest import EMPTY
from app.services import chain
from app.store.tables import AuditEntry, table

entries = table(AuditEntry)

LOOKS = {
    ("POST", "/automation/scripts/check"),
    ("POST", "/automation/schedules/check"),
    ("POST", "/blobs/missing"),
    ("POST", "/blobs/fetch"),
}
"""They change nothing."""
WRITING = {"POST", "PUT", "PATCH", "DELETE"}
GATE = "tasks: [{name: go, action: core.approval, input: {prompt: Go?}}]\n"
ASK = "tasks: [{name: go, action: core.inquiry, input: {prompt: Which?}}]\n"
FAILS = "tasks: [{name: go, action: core.fail, input: {message: no}}]\n"


class Change(NamedTuple):
    """What is asked of a route: its path and body, by whom, and what is told of it. `etag` is that of the same path."""

    path: str
    body: Any
    person: str
    action: str
    etag: bool = False


def stored(world: World) -> str:
    answer = world.post("/packs/demo/workflows", {"definition": HELLO}, "author")
    assert answer.status_code == 201, answer.text
    return "/workflows/demo.hello"


def executed(world: World, text: str = HELLO) -> str:
    return f"/workflow-executions/{world.run(text)}"


def question(world: World, text: str) -> str:
    world.run(text)
    (found,) = world.get("/automation/approvals?status=pending")["items"]
    return f"/automation/approvals/{found['id']}"


def paused(world: World) -> str:
    path = executed(world)
    world.post(f"{path}/pause", {})
    return path


def unknown(world: World) -> str:
    path = executed(world, HELLO)
    (job,) = world.open_jobs(path.rpartition("/")[2])
    world.set_unknown(job)
    return f"{path}/tasks/greet/resolve"


def own_token(world: World) -> str:
    return str(world.post("/tokens", {"login": "viewer"}).get_json()["id"])


def with_node(world: World) -> str:
    world.add_node("web-1")
    return "/nodes/web-1"


def kept(world: World, path: str) -> str:
    assert world.ask("PUT", f"/api/v1{path}", json={"value": "1234567890"}).status_code in (200, 201)
    return path


def registered(world: World) -> str:
    assert register(world).status_code == 201
    return "/packs/shop"


def shelf(world: World, path: str) -> str:
    stock(world)
    return path


def scheduled(world: World, **more: Any) -> str:
    made(furnish(world), {**NIGHTLY, **more})
    return "/automation/schedules/nightly"


def scripted(world: World, *, over: bool = False) -> str:
    """An execution of a saved script; with `over` one that failed on its node."""
    answer = world.post(EXECUTE, {**GOOD, "host_ids": ["web-1"]})
    assert answer.status_code == 201, answer.text
    execution = str(answer.get_json()["id"])
    begin(world, execution)
    if over:
        (job,) = world.open_jobs(execution)
        world.end(execution, job, status="failed", code=1)
    return f"/automation/executions/{execution}"


Make = Callable[[World], Change]
_BODY = {"shell": "sh", "body": "uptime\n", "host_ids": ["web-1"]}
_CONFIG = {"config": {"place": "there", "needed": "1"}}
_SAID = {"outcome": "failed", "reason": "I looked"}
_SCRIPT = {"name": "clean", "shell": "sh", "body": "true\n"}
_WORKFLOW = {"definition": HELLO}
_OTHER = {"definition": HELLO.replace("Hello", "Good day")}

CHANGES: dict[tuple[str, str], Make] = {
    ("POST", "/packs/<>/workflows"): lambda w: Change("/packs/demo/workflows", _WORKFLOW, "author", "workflow.store"),
    ("PUT", "/workflows/<>"): lambda w: Change(stored(w), _OTHER, "author", "workflow.store", etag=True),
    ("DELETE", "/workflows/<>"): lambda w: Change(stored(w), None, "author", "workflow.delete"),
    ("POST", "/workflows/<>/execute"): lambda w: Change(f"{stored(w)}/execute", {}, "operator", "execution.submit"),
    ("POST", "/workflow-executions"): lambda w: Change("/workflow-executions", _WORKFLOW, "author", "execution.submit"),
    ("POST", "/workflow-executions/<>/cancel"): lambda w: Change(
        f"{executed(w)}/cancel", {}, "operator", "execution.cancel"
    ),
    ("POST", "/workflow-executions/<>/pause"): lambda w: Change(
        f"{executed(w)}/pause", {}, "operator", "execution.pause"
    ),
    ("POST", "/workflow-executions/<>/resume"): lambda w: Change(
        f"{paused(w)}/resume", {}, "operator", "execution.resume"
    ),
    ("POST", "/workflow-executions/<>/retry"): lambda w: Change(
        f"{executed(w, FAILS)}/retry", {}, "operator", "execution.retry"
    ),
    ("POST", "/workflow-executions/<>/tasks/<>/resolve"): lambda w: Change(
        unknown(w), _SAID, "operator", "job.resolve"
    ),
    ("POST", "/automation/approvals/<>/approve"): lambda w: Change(
        f"{question(w, GATE)}/approve", {}, "approver", "approval.approve"
    ),
    ("POST", "/automation/approvals/<>/reject"): lambda w: Change(
        f"{question(w, GATE)}/reject", {}, "approver", "approval.reject"
    ),
    ("POST", "/automation/approvals/<>/answer"): lambda w: Change(
        f"{question(w, ASK)}/answer", {"answer": 1}, "operator", "approval.answer"
    ),
    ("POST", "/automation/scripts/<>/execute"): lambda w: Change(
        shelf(w, EXECUTE), GOOD, "operator", "execution.submit"
    ),
    ("POST", "/automation/execute"): lambda w: Change(
        shelf(w, "/automation/execute"), _BODY, "operator", "execution.submit"
    ),
    ("POST", "/automation/executions/<>/cancel"): lambda w: Change(
        f"{scripted(stock(w))}/cancel", {}, "operator", "execution.cancel"
    ),
    ("POST", "/automation/executions/<>/retry"): lambda w: Change(
        f"{scripted(stock(w), over=True)}/retry", {}, "operator", "execution.retry"
    ),
    ("POST", "/nodes/<>/execute"): lambda w: Change(
        f"{with_node(w)}/execute?wait=0", {"command": ["id"]}, "operator", "execution.submit"
    ),
    ("POST", "/nodes/execute"): lambda w: Change(
        with_node(w)[:6] + "/execute", {"command": ["id"], "nodes": ["web-1"]}, "operator", "execution.submit"
    ),
    ("POST", "/nodes/<>/drain"): lambda w: Change(f"{with_node(w)}/drain", {}, "operator", "node.drain"),
    ("DELETE", "/nodes/<>"): lambda w: Change(with_node(w), None, "admin", "node.remove"),
    ("POST", "/nodes/tokens"): lambda w: Change("/nodes/tokens", {"node": "web-9"}, "admin", "node.token"),
    ("POST", "/nodes/enroll"): lambda w: Change(
        "/nodes/enroll", enrolment(w, enrolment_token(w)), "", "node.enroll"
    ),
    ("PUT", "/blobs/sha256:<>"): lambda w: Change(
        f"/blobs/sha256:{HELLO_DIGEST}", HELLO_BYTES, "operator", "blob.put"
    ),
    ("POST", "/blobs/bundle"): lambda w: Change("/blobs/bundle", packed(HELLO_BYTES), "operator", "blob.put"),
    ("POST", "/snapshots"): lambda w: Change("/snapshots", EMPTY.to_bytes(), "operator", "snapshot.post"),
    ("POST", "/nodes"): lambda w: Change("/nodes", ssh_shop.body(key=ssh_shop.with_key(w)), "admin", "node.add"),
    ("POST", "/nodes/<>/trust"): lambda w: Change(
        f"{ssh_shop.offered(w)}/trust", {"fingerprint": ssh_shop.FINGERPRINT}, "admin", "node.trust"
    ),
    ("PUT", "/kv/<>"): lambda w: Change("/kv/app/port", {"value": 1}, "author", "kv.put"),
    ("DELETE", "/kv/<>"): lambda w: Change(kept(w, "/kv/app/port"), None, "author", "kv.delete"),
    ("PUT", "/secrets/<>"): lambda w: Change("/secrets/db", {"value": "1234567890"}, "author", "secret.put"),
    ("DELETE", "/secrets/<>"): lambda w: Change(kept(w, "/secrets/db"), None, "author", "secret.delete"),
    ("POST", "/packs"): lambda w: Change("/packs", {"files": FILES}, "author", "pack.register"),
    ("PUT", "/packs/<>/config"): lambda w: Change(
        f"{registered(w)}/config", _CONFIG, "author", "pack.configure", etag=True
    ),
    ("DELETE", "/packs/<>"): lambda w: Change(registered(w), None, "author", "pack.delete"),
    ("POST", "/automation/scripts"): lambda w: Change("/automation/scripts", _SCRIPT, "author", "script.save"),
    ("POST", "/automation/scripts/<>/rollback"): lambda w: Change(
        shelf(w, "/automation/scripts/deploy/rollback"), {"version": 1}, "author", "script.rollback"
    ),
    ("DELETE", "/automation/scripts/<>"): lambda w: Change(
        shelf(w, "/automation/scripts/deploy"), None, "author", "script.delete"
    ),
    ("POST", "/automation/schedules"): lambda w: Change(
        furnish(w) and "/automation/schedules", NIGHTLY, "operator", "schedule.create"
    ),
    ("PUT", "/automation/schedules/<>"): lambda w: Change(
        scheduled(w), {**NIGHTLY, "cron": "5 4 * * *"}, "operator", "schedule.change"
    ),
    ("DELETE", "/automation/schedules/<>"): lambda w: Change(scheduled(w), None, "operator", "schedule.delete"),
    ("POST", "/automation/schedules/<>/enable"): lambda w: Change(
        f"{scheduled(w, enabled=False)}/enable", None, "operator", "schedule.enable"
    ),
    ("POST", "/automation/schedules/<>/disable"): lambda w: Change(
        f"{scheduled(w)}/disable", None, "operator", "schedule.disable"
    ),
    ("POST", "/users"): lambda w: Change("/users", {"login": "eve", "role": "viewer"}, "admin", "user.create"),
    ("PATCH", "/users/<>"): lambda w: Change("/users/viewer", {"enabled": False}, "admin", "user.change"),
    ("POST", "/tokens"): lambda w: Change("/tokens", {"login": "viewer"}, "admin", "token.create"),
    ("DELETE", "/tokens/<>"): lambda w: Change(f"/tokens/{own_token(w)}", None, "admin", "token.revoke"),
    ("DELETE", "/me/tokens/<>"): lambda w: Change(f"/me/tokens/{own_token(w)}", None, "viewer", "token.revoke"),
    ("POST", "/prune"): lambda w: Change("/prune", {}, "admin", "retention.prune"),
}  # fmt: skip


def body_of(change: Change) -> dict[str, Any]:
    """JSON, or the bytes as they are."""
    if change.body is None:
        return {}
    return {"data" if isinstance(change.body, bytes) else "json": change.body}


def test_every_route_that_writes_is_tried(world: World) -> None:
    found = {
        (method, rule.removeprefix("/api/v1")) for method, rule, _ in routes(world.app) if method in WRITING
    }
    assert found == CHANGES.keys() | LOOKS


@pytest.mark.parametrize("route", CHANGES, ids=" ".join)
def test_a_change_is_told_once(world: World, route: tuple[str, str]) -> None:
    change = CHANGES[route](world)
    before = newest(world)
    options = body_of(change)
    if change.etag:
        options["headers"] = {"If-Match": world.ask("GET", f"/api/v1{change.path}").headers["ETag"]}
    answer = world.ask(route[0], f"/api/v1{change.path}", change.person, **options)
    assert answer.status_code < 300, answer.text
    told = [row for row in since(world, before) if row.action == change.action]
    assert [(row.person, row.outcome) for row in told] == [(change.person or "node:web-1", "accepted")]
    assert told[0].at > 0


@pytest.mark.parametrize("route", CHANGES, ids=" ".join)
def test_whoever_has_not_the_role_is_told_too(world: World, route: tuple[str, str]) -> None:
    """What a viewer may, everybody may."""
    role = needed().get((route[0], f"/api/v1{route[1]}"), "viewer")
    change = CHANGES[route](world)
    before = newest(world)
    answer = world.ask(route[0], f"/api/v1{change.path}", "viewer", **(body_of(change) or {"json": {}}))
    told = since(world, before)
    if role == "viewer":
        assert answer.status_code != 403 or not change.person
        return
    assert (answer.status_code, answer.get_json()["code"]) == (403, "role-required")
    (row,) = told
    assert (row.person, row.outcome, row.detail["code"]) == ("viewer", "refused", "role-required")
    assert row.subject == f"/api/v1{change.path}".partition("?")[0]


REFUSED = [
    ("POST", "/workflow-executions/<>/cancel", "execution.cancel", "execution-over"),
    ("POST", "/workflow-executions/<>/pause", "execution.pause", "execution-over"),
    ("POST", "/workflow-executions/<>/resume", "execution.resume", "execution-over"),
    ("POST", "/workflow-executions/<>/retry", "execution.retry", "nothing-to-retry"),
]


@pytest.mark.parametrize(("method", "rule", "action", "code"), REFUSED)
def test_what_comes_too_late_is_told(world: World, method: str, rule: str, action: str, code: str) -> None:
    execution = world.run("tasks: [{name: a, action: core.noop}]\n")
    before = newest(world)
    path = "/api/v1" + rule.replace("<>", execution)
    assert world.ask(method, path, "operator", json={}).status_code == 409
    assert [(row.person, row.action, row.outcome, row.detail["code"]) for row in since(world, before)] == [
        ("operator", action, "refused", code)
    ]


def test_a_key_that_comes_with_another_request_is_told(world: World) -> None:
    stored(world)
    key = {"headers": {"Idempotency-Key": "one"}}
    world.post("/workflows/demo.hello/execute", {}, "operator", **key)
    before = newest(world)
    other = world.post("/workflows/demo.hello/execute", {"parameters": {"name": "x"}}, "operator", **key)
    assert other.status_code == 409
    (row,) = since(world, before)
    assert (row.action, row.subject, row.detail["code"]) == (
        "execution.submit",
        "demo.hello",
        "idempotency-key-reused",
    )


def newest(world: World) -> int:
    with world.control.store.read() as connection:
        return connection.execute(select(func.max(entries.c.id))).scalar() or 0


def since(world: World, before: int) -> list[Any]:
    with world.control.store.read() as connection:
        return list(connection.execute(select(entries).where(entries.c.id > before).order_by(entries.c.id)))


# the chain over HTTP


def test_the_chain_is_verified_and_read_in_pages(world: World) -> None:
    for _ in range(5):
        own_token(world)
    chain.seal(world.control)
    found = world.get("/audit/verify", "admin")
    number = found["sealed"]
    assert (found["ok"], found["entries"], found["unsealed"], found["first_wrong"]) == (True, number, 0, None)
    assert (found["head"]["seq"], found["anchor"], found["next_cursor"]) == (
        number,
        {"seq": 0, "hash": ""},
        None,
    )
    page = world.get("/audit/verify?limit=3", "admin")
    assert (page["ok"], page["entries"]) == (True, 3)
    rest = world.get(f"/audit/verify?cursor={page['next_cursor']}", "admin")
    assert (rest["ok"], rest["entries"], rest["next_cursor"]) == (True, number - 3, None)

    items, after = [], 0
    while page := world.get(f"/audit/sealed?limit=2&after={after}", "admin")["items"]:
        items += page
        after = page[-1]["seq"]
    assert [one["seq"] for one in items] == list(range(1, number + 1))
    assert items[-1]["hash"] == found["head"]["hash"]
    cursor = world.get("/audit/sealed?limit=2", "admin")["next_cursor"]
    assert world.get(f"/audit/sealed?limit=2&cursor={cursor}", "admin")["items"] == items[2:4]
    assert [one["seq"] for one in world.get("/audit", "admin")["items"]] == list(range(number, 0, -1))

    noted = f"{found['head']['seq']}:{found['head']['hash']}"
    own_token(world)
    chain.seal(world.control)
    assert world.get(f"/audit/verify?head={noted}", "admin")["ok"]
    other = world.get(f"/audit/verify?head={noted[:-1]}{'0' if noted[-1] != '0' else '1'}", "admin")
    assert (other["ok"], other["first_wrong"]["seq"]) == (False, number)


@pytest.mark.parametrize(
    "query", ["head=x", "head=1:abc", "cursor=1", "limit=0", "limit=20001", "head=1:" + "g" * 64, "what=1"]
)
def test_bad_questions_about_the_chain(world: World, query: str) -> None:
    answer = world.ask("GET", f"/api/v1/audit/verify?{query}")
    assert (answer.status_code, answer.get_json()["code"]) == (422, "invalid-request")
    assert answer.get_json()["errors"][0]["pointer"] == "?" + query.partition("=")[0]
