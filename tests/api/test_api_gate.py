"""Who may do what: every route, every role, nobody; and tokens that are almost right."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest
from api_world import ROLES, World
from flask import Flask
from sqlalchemy import select, update

from app.api import create_app, gate
from app.ids import fingerprint, secret, ulid
from app.services import people
from app.store.tables import AuditEntry, Token, User, table

SAMPLES = {
    "id": "01J0000000000000000000000A",
    "ref": "demo.nothing",
    "pack": "demo",
    "name": "nothing",
    "job": "01J0000000000000000000000A.a.0.1",
    "stream": "stdout",
    "key": "app/port",
    "path": "pack.yaml",
    "login": "nobody",
    "n": "1",
    "a": "1",
    "b": "2",
    "digest": "ab" * 32,
    "artifact": "01J0000000000000000000000B",
}
OPEN = {("GET", "/healthz"), ("POST", "/api/v1/nodes/enroll")}
NEEDED = {
    "viewer": """
        GET /readyz /version /metrics /api/v1/openapi.json /api/v1/schemas/workflow.json
        GET /api/v1/packs /api/v1/workflows /api/v1/workflows/<> /api/v1/workflows/<>/versions
        GET /api/v1/packs/<>/workflows /api/v1/workflows/<>/executions
        GET /api/v1/workflow-executions /api/v1/workflow-executions/<> /api/v1/workflow-executions/<>/tasks
        GET /api/v1/workflow-executions/<>/output /api/v1/workflow-executions/<>/events
        GET /api/v1/workflow-executions/<>/graph /api/v1/workflow-executions/<>/explain
        GET /api/v1/workflow-executions/<>/tasks/<>/explain /api/v1/workflows/<>/graph
        GET /api/v1/workflow-executions/<>/jobs/<>/output/<> /api/v1/nodes /api/v1/nodes/<>
        GET /api/v1/nodes/<>/execute/<> /api/v1/workflow-executions/<>/jobs/<>/plan
        GET /api/v1/automation/executions /api/v1/automation/executions/<> /api/v1/features
        GET /api/v1/automation/approvals /api/v1/automation/approvals/<>
        GET /api/v1/automation/scripts /api/v1/automation/scripts/<> /api/v1/automation/scripts/<>/versions
        GET /api/v1/automation/scripts/<>/versions/<> /api/v1/automation/scripts/<>/versions/<>/diff/<>
        POST /api/v1/automation/scripts/check
        GET /api/v1/automation/schedules /api/v1/automation/schedules/<>
        GET /api/v1/automation/schedules/<>/next /api/v1/automation/schedules/<>/history
        POST /api/v1/automation/schedules/check
        GET /api/v1/kv /api/v1/kv/<>
        GET /api/v1/packs/<> /api/v1/packs/<>/files/<> /api/v1/packs/<>/config
        GET /api/v1/actions /api/v1/actions/<>
        GET /api/v1/blobs/sha256:<> /api/v1/snapshots/<>
        GET /api/v1/workflow-executions/<>/workspace
        GET /api/v1/workflow-executions/<>/artifacts /api/v1/workflow-executions/<>/artifacts/<>
        POST /api/v1/blobs/fetch
        GET /api/v1/me /api/v1/me/tokens
        DELETE /api/v1/me/tokens/<>""",
    "approver": """
        POST /api/v1/automation/approvals/<>/approve /api/v1/automation/approvals/<>/reject""",
    "operator or approver": """
        POST /api/v1/automation/approvals/<>/answer""",
    "operator": """
        POST /api/v1/automation/scripts/<>/execute /api/v1/automation/execute
        POST /api/v1/automation/executions/<>/cancel /api/v1/automation/executions/<>/retry
        POST /api/v1/workflows/<>/execute /api/v1/workflow-executions/<>/cancel
        POST /api/v1/workflow-executions/<>/pause /api/v1/workflow-executions/<>/resume
        POST /api/v1/workflow-executions/<>/retry
        GET /api/v1/workflow-executions/<>/replay
        POST /api/v1/automation/schedules /api/v1/automation/schedules/<>/enable
        POST /api/v1/automation/schedules/<>/disable
        PUT /api/v1/automation/schedules/<>
        DELETE /api/v1/automation/schedules/<>
        POST /api/v1/workflow-executions/<>/tasks/<>/resolve /api/v1/nodes/<>/drain
        POST /api/v1/nodes/<>/execute /api/v1/nodes/execute
        PUT /api/v1/blobs/sha256:<>
        POST /api/v1/blobs/missing /api/v1/blobs/bundle /api/v1/snapshots
        GET /api/v1/secrets""",
    "author": """
        POST /api/v1/packs/<>/workflows /api/v1/workflow-executions
        POST /api/v1/packs /api/v1/automation/scripts /api/v1/automation/scripts/<>/rollback
        DELETE /api/v1/automation/scripts/<>
        PUT /api/v1/workflows/<> /api/v1/packs/<>/config /api/v1/kv/<> /api/v1/secrets/<>
        DELETE /api/v1/workflows/<> /api/v1/packs/<> /api/v1/kv/<> /api/v1/secrets/<>""",
    "admin": """
        GET /api/v1/automation/notifications
        POST /api/v1/users /api/v1/tokens /api/v1/nodes/tokens /api/v1/nodes /api/v1/nodes/<>/trust
        GET /api/v1/users /api/v1/users/<> /api/v1/tokens
        GET /api/v1/audit /api/v1/audit/sealed /api/v1/audit/verify
        PATCH /api/v1/users/<>
        POST /api/v1/prune
        DELETE /api/v1/tokens/<> /api/v1/nodes/<>""",
}


MAY = {
    "viewer": {"viewer"},
    "operator": {"viewer", "operator"},
    "approver": {"viewer", "approver"},
    "author": {"viewer", "operator", "author"},
    "admin": set(ROLES),
}


def needed() -> dict[tuple[str, str], str]:
    """(method, rule) -> role, as the contract has it."""
    found = {}
    for role, text in NEEDED.items():
        for line in text.strip().splitlines():
            method, *rules = line.split()
            found.update({(method, rule): role for rule in rules})
    return found


def routes(app: Flask) -> Iterator[tuple[str, str, str]]:
    """(method, rule with <> for each part, a path that fits) for every route there is."""
    for rule in app.url_map.iter_rules():
        path = re.sub(r"<(?:\w+:)?(\w+)>", lambda part: SAMPLES[part[1]], rule.rule)
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            yield method, re.sub(r"<[^>]*>", "<>", rule.rule), path


def test_without_a_token_only_two_routes_answer(world: World) -> None:
    for method, rule, path in routes(world.app):
        for verb in (method, "OPTIONS", *(["HEAD"] if method == "GET" else [])):
            status = world.ask(verb, path, "").status_code
            if (method, rule) in OPEN:
                assert status != 401, (verb, rule)
            else:
                assert status == 401, (verb, rule)
    for path in ("/", "/nothing", "/api/v1/nothing", "/static/x", "/api/v1/../healthz"):
        assert world.ask("GET", path, "").status_code == 401, path


def test_every_route_is_for_the_roles_that_the_contract_names(world: World) -> None:
    expected = needed()
    found = {(method, rule) for method, rule, _ in routes(world.app)}
    assert found - OPEN == expected.keys()
    for method, rule, path in routes(world.app):
        if (method, rule) in OPEN:
            continue
        for role in ROLES:
            status = world.ask(method, path, role).status_code
            allowed = bool(MAY[role] & set(expected[method, rule].split(" or ")))
            assert (status != 403) is allowed, (method, rule, role, status)
            assert status < 500 or rule == "/readyz", (method, rule, role, status)


def test_a_route_without_a_role_is_refused(world: World) -> None:
    app = create_app(control=world.control)
    gate.check(app)
    app.add_url_rule("/backdoor", "backdoor", lambda: "open")
    with pytest.raises(gate.UngatedRoute, match="/backdoor"):
        gate.check(app)
    again = create_app(control=world.control)
    again.add_url_rule("/backdoor", "backdoor", gate.needs(gate.OPEN)(lambda: "open"))
    with pytest.raises(gate.UngatedRoute, match="/backdoor"):
        gate.check(again)


def test_a_refused_change_is_in_the_audit_trail(world: World) -> None:
    answer = world.post("/users", {"login": "eve", "role": "admin"}, "viewer")
    problem = answer.get_json()
    assert (answer.status_code, problem["code"], answer.mimetype) == (
        403,
        "role-required",
        "application/problem+json",
    )
    entries = table(AuditEntry)
    with world.control.store.read() as connection:
        row = connection.execute(select(entries).order_by(entries.c.id.desc())).first()
    assert row is not None
    assert (row.person, row.action, row.outcome) == ("viewer", "api.people.create_user", "refused")


def almost_right(token: str) -> list[str]:
    """Headers that look like the token and are not."""
    return [
        "",
        "Bearer",
        "Bearer ",
        f"Basic {token}",
        token,
        f"Bearer {token[:-1]}",
        f"Bearer {token}x",
        f"Bearer {token[:20]}",
        f"Bearer {token.swapcase()}",
        f"Bearer {token} {token}",
        f"Bearer {token},{token}",
        f'Bearer "{token}"',
        f"Bearer {fingerprint(token)}",
        f"Bearer {secret('mst')}",
        f"Bearer mst_{'*' * 43}",
        f"Bearer {'a' * 10_000}",
        "Bearer ' OR 1=1 --",
        "Bearer é",
        "Bearer %00",
    ]


def test_tokens_that_are_almost_right(world: World) -> None:
    for header in almost_right(world.tokens["admin"]):
        answer = world.ask("GET", "/version", "", headers={"Authorization": header})
        assert answer.status_code == 401, header
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        assert world.tokens["admin"] not in answer.text
    assert world.ask("GET", f"/version?token={world.tokens['admin']}", "").status_code == 401
    lower = world.ask("GET", "/version", "", headers={"Authorization": f"bearer {world.tokens['admin']}"})
    assert lower.status_code == 200


def test_tokens_end(world: World) -> None:
    made = world.post("/tokens", {"login": "viewer", "name": "ci", "expires_in": 3600}).get_json()
    headers = {"Authorization": f"Bearer {made['token']}"}
    assert world.ask("GET", "/version", "", headers=headers).status_code == 200
    assert world.ask("DELETE", f"/api/v1/tokens/{made['id']}").status_code == 204
    assert world.ask("DELETE", f"/api/v1/tokens/{made['id']}").status_code == 204
    assert world.ask("GET", "/version", "", headers=headers).status_code == 401

    old = people.create_token(world.control, "viewer", "old", 60, "admin").token
    columns = {"expires_at": time.time() - 1}
    with world.control.store.write() as connection:
        connection.execute(update(Token).where(Token.sha256 == fingerprint(old)).values(columns))
    assert world.ask("GET", "/version", "", headers={"Authorization": f"Bearer {old}"}).status_code == 401

    with world.control.store.write() as connection:
        connection.execute(update(User).where(User.login == "author").values(enabled=False))
    assert world.ask("GET", "/version", "author").status_code == 401
    assert world.post("/tokens", {"login": "author"}).status_code == 404


def test_tokens_are_stored_hashed_and_their_use_is_noted_once_a_minute(world: World) -> None:
    tokens = table(Token)
    query = select(tokens.c.used_at).where(tokens.c.sha256 == fingerprint(world.tokens["viewer"]))

    def used_at() -> float | None:
        with world.control.store.read() as connection:
            return connection.execute(query).scalar_one()

    assert used_at() is None
    world.get("/packs")
    first = used_at()
    world.get("/packs")
    assert first is not None
    assert used_at() == first
    with world.control.store.read() as connection:
        stored = [str(row) for row in connection.execute(select(tokens))]
    assert not [row for row in stored for token in world.tokens.values() if token in row]


def test_the_first_admin_is_made_once(world: World) -> None:
    assert people.bootstrap_admin(world.control.store, time.time()) is None


def test_security_headers_are_on_every_answer(world: World) -> None:
    for path, role in (
        ("/healthz", ""),
        ("/api/v1/packs", ""),
        ("/api/v1/packs", "viewer"),
        ("/nothing", "admin"),
    ):
        headers = world.ask("GET", path, role).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"
        assert "default-src 'none'" in headers["Content-Security-Policy"]


def test_unknown_things_are_404_behind_the_gate(world: World) -> None:
    for path in (f"/workflow-executions/{ulid()}", "/workflows/demo.none", "/nodes/none", "/nothing"):
        answer = world.ask("GET", f"/api/v1{path}", "viewer")
        assert (answer.status_code, answer.mimetype) == (404, "application/problem+json")
    wrong = world.ask("PATCH", "/api/v1/packs")
    assert (wrong.status_code, "GET" in wrong.headers["Allow"]) == (405, True)
