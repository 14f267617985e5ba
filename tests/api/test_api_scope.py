"""People whose role is for some packs or nodes only: what they see and run, and in which words they are refused."""

from __future__ import annotations

from typing import Any

import pytest
from api_world import World
from sqlalchemy import select
from test_api_gate import SAMPLES, routes
from werkzeug.test import TestResponse

from app.store.tables import AuditEntry, table

entries = table(AuditEntry)

WEB = "ref: web.hello\ntasks: [{name: go, action: core.shell, delegate_to: web-1, input: {command: [uptime]}}]\n"
SHOP = WEB.replace("web.hello", "shop.hello").replace("web-1", "db-1")
ASKS = "ref: {pack}.ask\ntasks: [{{name: go, action: core.approval, input: {{prompt: Go?{more}}}}}]\n"
SPREAD = "ref: web.spread\ntasks: [{name: go, type: distributed_shell, input: {command: [id], nodes: [web-1, db-1]}}]\n"


def person(world: World, login: str, *grants: dict[str, Any]) -> None:
    """Made known, with a token under the login."""
    made = world.post("/users", {"login": login, "grants": list(grants)})
    assert made.status_code == 201, made.text
    world.tokens[login] = world.post("/tokens", {"login": login}).get_json()["token"]


def told(answer: TestResponse) -> tuple[int, str]:
    return answer.status_code, answer.get_json()["code"]


@pytest.fixture
def shop(world: World) -> World:
    """Two packs, nodes of two kinds, and people who are bound to one of them."""
    world.add_node("web-1", labels={"kind": "web", "site": "north"})
    world.add_node("web-2", labels={"kind": "web"})
    world.add_node("db-1", labels={"kind": "db"})
    for pack, text in (("web", WEB), ("shop", SHOP)):
        assert world.post(f"/packs/{pack}/workflows", {"definition": text}).status_code == 201
    person(world, "webop", {"role": "operator", "packs": ["web"]})
    person(world, "nodeop", {"role": "operator", "labels": {"kind": "web"}})
    person(world, "webauthor", {"role": "author", "packs": ["web"]})
    return world


def executed(world: World, ref: str, role: str = "admin") -> str:
    answer = world.post(f"/workflows/{ref}/execute", {}, role)
    assert answer.status_code == 201, answer.text
    return str(answer.get_json()["id"])


# lists


def test_lists_hold_what_is_of_their_packs(shop: World) -> None:
    mine, other = executed(shop, "web.hello"), executed(shop, "shop.hello")

    def ids(path: str, role: str, key: str = "id") -> set[str]:
        return {one[key] for one in shop.get(path, role)["items"]}

    assert ids("/workflow-executions", "admin") == {mine, other}
    assert ids("/workflow-executions", "webop") == {mine}
    assert ids("/workflow-executions?workflow=shop.hello", "webop") == set()
    assert ids("/workflows/shop.hello/executions", "webop") == set()
    assert ids("/workflows", "webop", "ref") == {"web.hello"}
    assert ids("/packs/shop/workflows", "webop", "ref") == set()
    assert ids("/packs", "webop", "ref") == {"core", "web"}
    assert {one.partition(".")[0] for one in ids("/actions?limit=200", "webop", "ref")} == {"core", "web"}


def test_a_name_that_only_begins_alike_is_another_pack(shop: World) -> None:
    for pack in ("we", "web-2", "web_2", "w_b"):
        person(shop, f"op-{pack}", {"role": "operator", "packs": [pack]})
    executed(shop, "web.hello")
    for pack in ("we", "web-2", "web_2", "w_b"):
        assert shop.get("/workflow-executions", f"op-{pack}")["items"] == []
        assert shop.get("/workflows", f"op-{pack}")["items"] == []


def test_pages_are_as_long_as_they_may_be(shop: World) -> None:
    """What is out of sight takes no place in them."""
    wanted = []
    for _ in range(3):
        wanted.append(executed(shop, "web.hello"))
        executed(shop, "shop.hello")
    page = shop.get("/workflow-executions?limit=2", "webop")
    rest = shop.get(f"/workflow-executions?limit=2&cursor={page['next_cursor']}", "webop")
    assert [one["id"] for one in (*page["items"], *rest["items"])] == wanted[::-1]
    assert rest["next_cursor"] is None


def test_nodes_are_those_with_their_labels(shop: World) -> None:
    person(shop, "both", {"role": "viewer", "labels": {"kind": "db"}},
           {"role": "operator", "labels": {"kind": "web", "site": "north"}})  # fmt: skip
    for who, names in (
        ("admin", {"db-1", "local", "web-1", "web-2"}),
        ("webop", {"db-1", "local", "web-1", "web-2"}),
        ("nodeop", {"web-1", "web-2"}),
        ("both", {"db-1", "web-1"}),
    ):
        assert {one["name"] for one in shop.get("/nodes", who)["items"]} == names
    assert told(shop.ask("GET", "/api/v1/nodes/db-1", "nodeop")) == (404, "unknown-node")
    drain = "/nodes/{}/drain"
    assert told(shop.post(drain.format("db-1"), {}, "nodeop")) == (404, "unknown-node")
    assert told(shop.post(drain.format("db-1"), {}, "both")) == (403, "out-of-scope")
    assert shop.post(drain.format("web-1"), {}, "both").status_code == 200


# words


def reduced(answer: TestResponse, *names: str) -> Any:
    """A problem without the names in it."""
    text = answer.text
    for name in names:
        text = text.replace(name, "…")
    return answer.status_code, text


BODIES = {
    "resolve": {"reason": "x", "outcome": "failed"},
    "answer": {"answer": 1},
    "execute": {"command": ["id"]},
}


def test_what_is_out_of_sight_is_answered_like_what_is_not_there(shop: World) -> None:
    """On every route that names an execution, an approval or a node."""
    execution = executed(shop, "shop.hello")
    shop.run(ASKS.format(pack="shop", more=""))
    (question,) = shop.get("/automation/approvals")["items"]
    person(shop, "out", {"role": "author", "packs": ["web", "adhoc"], "labels": {"kind": "web"}},
           {"role": "approver", "packs": ["web"], "labels": {"kind": "web"}})  # fmt: skip
    seen = set()
    for method, rule, path in routes(shop.app):
        there = {"/workflow-executions/<>": execution, "/automation/approvals/<>": question["id"]}
        pairs = [(id_, SAMPLES["id"]) for start, id_ in there.items() if rule.startswith("/api/v1" + start)]
        if rule.startswith("/api/v1/nodes/<>"):
            pairs = [("db-1", "nothing")]
        for known, unknown in pairs:
            options = {"json": BODIES.get(rule.rpartition("/")[2], {})} if method == "POST" else {}
            answers = [
                reduced(shop.ask(method, path.replace(unknown, name), "out", **options), name)
                for name in (known, unknown)
            ]
            assert answers[0] == answers[1], (method, rule)
            if answers[0][0] != 403:  # an administrator's
                assert answers[0][0] == 404, (method, rule)
                seen.add((method, rule))
    assert len(seen) > 20


def test_an_execution_that_may_be_seen_and_not_touched_is_a_403(shop: World) -> None:
    person(shop, "looks", {"role": "viewer"}, {"role": "operator", "packs": ["web"]})
    execution = executed(shop, "shop.hello")
    assert shop.get(f"/workflow-executions/{execution}", "looks")["id"] == execution
    assert told(shop.post(f"/workflow-executions/{execution}/cancel", {}, "looks")) == (403, "out-of-scope")
    assert told(shop.post("/workflows/shop.hello/execute", {}, "looks")) == (403, "out-of-scope")
    assert (
        shop.post(f"/workflow-executions/{executed(shop, 'web.hello')}/cancel", {}, "looks").status_code
        == 202
    )


def test_what_is_about_everything_needs_a_role_without_bounds(shop: World) -> None:
    person(
        shop, "most", {"role": "author", "packs": ["web"]}, {"role": "approver", "labels": {"kind": "web"}}
    )
    for method, path in (
        ("GET", "/metrics"),
        ("GET", "/api/v1/kv"),
        ("GET", "/api/v1/kv/app/port"),
        ("PUT", "/api/v1/kv/app/port"),
        ("GET", "/api/v1/secrets"),
        ("PUT", "/api/v1/secrets/x"),
        ("POST", "/api/v1/packs"),
    ):
        assert told(shop.ask(method, path, "most")) == (403, "out-of-scope"), path
    for path in ("/version", "/api/v1/openapi.json", "/api/v1/schemas/workflow.json", "/api/v1/me"):
        assert shop.ask("GET", path, "most").status_code == 200, path


def test_refusals_out_of_bounds_are_in_the_audit_trail(shop: World) -> None:
    execution = executed(shop, "shop.hello")
    shop.post(f"/workflow-executions/{execution}/cancel", {}, "webop")
    shop.post("/workflows/shop.hello/execute", {}, "webop")
    shop.ask("GET", f"/api/v1/workflow-executions/{execution}", "webop")
    with shop.control.store.read() as connection:
        query = select(entries.c.action, entries.c.outcome).where(entries.c.person == "webop")
        assert [tuple(row) for row in connection.execute(query.order_by(entries.c.id))] == [
            ("api.executions.cancel", "refused"),
            ("api.executions.execute", "refused"),
        ]


# running


def test_a_workflow_that_names_a_node_out_of_bounds_is_refused_as_it_is_handed_in(shop: World) -> None:
    assert shop.post("/packs/web/workflows", {"definition": SPREAD}).status_code == 201
    before = shop.counts()
    answer = shop.post("/workflows/web.spread/execute", {}, "nodeop")
    assert told(answer) == (403, "out-of-scope")
    assert [one["detail"] for one in answer.get_json()["errors"]] == [
        "task go: nodeop may run nothing on db-1"
    ]
    assert told(shop.post("/workflows/shop.hello/execute", {}, "nodeop")) == (403, "out-of-scope")
    assert shop.counts() == before
    assert executed(shop, "web.hello", "nodeop")
    with shop.control.store.read() as connection:
        query = select(entries.c.subject).where(entries.c.person == "nodeop", entries.c.outcome == "refused")
        assert list(connection.execute(query.order_by(entries.c.id)).scalars()) == [
            "web.spread",
            "shop.hello",
        ]


def test_whoever_is_bound_to_nodes_runs_nothing_on_the_control_side(shop: World) -> None:
    text = "ref: web.here\ntasks: [{name: go, action: core.shell, input: {command: [uptime]}}]\n"
    assert shop.post("/packs/web/workflows", {"definition": text}).status_code == 201
    answer = shop.post("/workflows/web.here/execute", {}, "nodeop")
    assert told(answer) == (403, "out-of-scope")
    assert "`local`" in answer.get_json()["detail"]


def test_commands_are_of_the_pack_adhoc(shop: World) -> None:
    command = {"command": ["uptime"]}
    assert told(shop.post("/nodes/web-1/execute", command, "webop")) == (403, "out-of-scope")
    assert told(shop.post("/nodes/execute", {**command, "nodes": ["web-1"]}, "webop")) == (
        403,
        "out-of-scope",
    )
    assert told(shop.post("/nodes/execute", {**command, "labels": {"kind": "web"}}, "webop")) == (
        403,
        "out-of-scope",
    )
    person(shop, "shell", {"role": "operator", "packs": ["adhoc"], "labels": {"kind": "web"}})
    done = shop.post("/nodes/web-1/execute?wait=0", command, "shell")
    assert done.status_code == 202
    path = f"/api/v1/nodes/web-1/execute/{done.get_json()['execution']}"
    assert [shop.ask("GET", path, role).status_code for role in ("shell", "webop")] == [202, 404]
    answer = shop.post("/nodes/execute", {**command, "nodes": ["web-1", "db-1", "nothing"]}, "shell")
    assert told(answer) == (403, "out-of-scope")
    assert [one["pointer"] for one in answer.get_json()["errors"]] == ["/nodes/1", "/nodes/2"]
    with shop.control.store.read() as connection:
        query = select(entries.c.action, entries.c.subject, entries.c.detail).where(
            entries.c.person == "shell"
        )
        row = connection.execute(query.order_by(entries.c.id.desc()).limit(1)).one()
    assert (row.action, row.subject, row.detail["code"]) == ("execution.submit", "adhoc", "out-of-scope")
    # Nobody can tell from the answer which of the two is there.
    assert len({one["detail"].replace("db-1", "nothing") for one in answer.get_json()["errors"]}) == 1
    assert shop.post("/nodes/execute", {**command, "nodes": ["web-1", "web-2"]}, "shell").status_code == 201


def test_bounds_that_are_narrowed_hold_for_what_comes_next(shop: World) -> None:
    assert executed(shop, "web.hello", "nodeop")
    body = {"grants": [{"role": "operator", "labels": {"kind": "db"}}]}
    assert shop.ask("PATCH", "/api/v1/users/nodeop", json=body).status_code == 200
    assert told(shop.post("/workflows/web.hello/execute", {}, "nodeop")) == (403, "out-of-scope")


# storing


def test_an_author_stores_and_runs_only_what_is_of_their_packs(shop: World) -> None:
    other = WEB.replace("web.hello", "shop.other")
    assert told(shop.post("/packs/shop/workflows", {"definition": other}, "webauthor")) == (
        403,
        "out-of-scope",
    )
    assert told(shop.post("/packs/new/workflows", {"definition": other}, "webauthor")) == (
        403,
        "out-of-scope",
    )
    assert told(shop.post("/packs/web/workflows", {"definition": other}, "webauthor")) == (422, "bad-ref")
    assert told(shop.ask("DELETE", "/api/v1/workflows/shop.hello", "webauthor")) == (404, "unknown-workflow")
    mine = WEB.replace("web.hello", "web.other")
    assert shop.post("/packs/web/workflows", {"definition": mine}, "webauthor").status_code == 201
    for text, pointer in (
        (other, "/definition/ref"),
        (WEB.replace("ref: web.hello\n", ""), "/definition/ref"),
    ):
        answer = shop.post("/workflow-executions", {"definition": text}, "webauthor")
        assert (told(answer), answer.get_json()["errors"][0]["pointer"]) == ((403, "out-of-scope"), pointer)
    assert shop.post("/workflow-executions", {"definition": mine}, "webauthor").status_code == 201


CALLS = "ref: web.calls\ntasks: [{name: go, type: workflow, action: shop.hello}]\n"


def test_an_author_stores_no_call_of_what_they_may_not_run(shop: World) -> None:
    for path in ("/packs/web/workflows", "/workflow-executions"):
        answer = shop.post(path, {"definition": CALLS}, "webauthor")
        assert told(answer) == (403, "out-of-scope"), path
        assert "shop.hello" in answer.get_json()["detail"]
    assert shop.post("/packs/web/workflows", {"definition": CALLS}).status_code == 201
    # Who may store it may let others run it.
    assert executed(shop, "web.calls", "webop")


def test_an_author_of_one_pack_runs_nothing_of_their_own_as_an_operator_of_another(shop: World) -> None:
    person(shop, "mixed", {"role": "author", "packs": ["web"]}, {"role": "operator", "packs": ["shop"]})
    answer = shop.post("/workflow-executions", {"definition": SHOP}, "mixed")
    assert told(answer) == (403, "out-of-scope")
    assert executed(shop, "shop.hello", "mixed")


# trying again


def test_whoever_is_bound_to_nodes_tries_again_only_what_they_asked_for(shop: World) -> None:
    executions = {who: executed(shop, "web.hello", who) for who in ("admin", "nodeop")}
    for execution in executions.values():
        (job,) = shop.open_jobs(execution)
        shop.end(execution, job, status="failed", code=1)
    path = "/workflow-executions/{}/retry"
    assert told(shop.post(path.format(executions["admin"]), {}, "nodeop")) == (403, "out-of-scope")
    assert shop.post(path.format(executions["nodeop"]), {}, "nodeop").status_code == 202
    assert shop.post(path.format(executions["admin"]), {}, "webop").status_code == 202
    for who, status in (("admin", 403), ("nodeop", 202)):
        (job,) = shop.open_jobs(executions[who])
        shop.set_unknown(job)
        said = {"outcome": "again", "reason": "it hung"}
        answer = shop.post(f"/workflow-executions/{executions[who]}/tasks/go/resolve", said, "nodeop")
        assert answer.status_code == status


# deciding


def test_approvals_are_of_the_packs_of_their_executions(shop: World) -> None:
    for pack, more in (("web", ""), ("shop", ""), ("shop", ", approvers: [named]")):
        shop.run(ASKS.format(pack=pack, more=more))
    person(shop, "decides", {"role": "approver", "packs": ["web"]})
    person(shop, "named", {"role": "viewer", "packs": ["web"]})
    person(shop, "sees", {"role": "viewer"}, {"role": "approver", "packs": ["web"]})
    found = {
        (one["workflow"], bool(one["approvers"])): one["id"]
        for one in shop.get("/automation/approvals")["items"]
    }
    web, other, named = found[("web.ask", False)], found[("shop.ask", False)], found[("shop.ask", True)]

    def ids(role: str) -> set[str]:
        return {one["id"] for one in shop.get("/automation/approvals", role)["items"]}

    def approve(id_: str, role: str) -> int:
        return shop.post(f"/automation/approvals/{id_}/approve", {}, role).status_code

    assert (ids("decides"), ids("named"), ids("sees")) == ({web}, {web, named}, {web, other, named})
    assert shop.get(f"/automation/approvals/{named}", "named")["id"] == named
    assert [approve(id_, "decides") for id_ in (other, named)] == [404, 404]
    assert approve(other, "sees") == 403
    assert approve(web, "named") == 403
    assert approve(named, "named") == 200
    assert approve(web, "decides") == 200


def test_a_login_that_another_one_contains_is_not_named(shop: World) -> None:
    shop.run(ASKS.format(pack="shop", more=', approvers: [an.na, "x_y"]'))
    for login in ("na", "anxna", "xzy", "an.n"):
        person(shop, login, {"role": "viewer", "packs": ["web"]})
        assert shop.get("/automation/approvals", login)["items"] == []


# secrets


def test_a_secret_is_for_bounded_people_only_by_login(shop: World) -> None:
    from app.services.vault import _may_use

    with shop.control.store.read() as connection:
        for users, may in (
            ([], False),
            (["operator"], False),
            (["webop"], True),
            (["viewer", "admin"], False),
        ):
            assert _may_use(connection, "webop", users) is may, users
        assert _may_use(connection, "operator", [])
        assert not _may_use(connection, "approver", [])
        assert _may_use(connection, "approver", ["approver"])
