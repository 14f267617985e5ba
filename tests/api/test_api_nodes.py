"""Nodes: enrolled once, by the machine that was meant; drained; removed with what they held."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import Any

import pytest
from api_world import FANOUT, World
from sqlalchemy import update

from app.errors import NotFound
from app.services import fleet, installation
from app.store.tables import EnrolmentToken
from app.transport.keys import KeyPair, Public

NODE = "web-1"


def token(world: World, node: str = NODE, **more: Any) -> str:
    answer = world.post("/nodes/tokens", {"node": node, **more})
    assert answer.status_code == 201, answer.text
    return str(answer.get_json()["token"])


def request(world: World, secret: str, node: str = NODE, **changes: Any) -> dict[str, Any]:
    """What an honest machine sends; `changes` are the dishonest part."""
    pair: KeyPair = changes.pop("pair", None) or KeyPair.generate()
    known = changes.pop("installation", installation.read(world.control.store).id)
    body = {
        "node": node,
        "token": secret,
        "public_keys": pair.public(),
        "proof": pair.prove(known, secret, node, now=time.time()),
    }
    return {**body, **changes}


def enroll(world: World, body: dict[str, Any]) -> int:
    return world.post("/nodes/enroll", body, "").status_code


def test_a_machine_becomes_a_node(world: World) -> None:
    made = world.post("/nodes/tokens", {"node": NODE, "labels": {"role": "web"}}).get_json()
    known = installation.read(world.control.store)
    assert made["control"] == Public.from_json(known.public).fingerprint
    answer = world.post("/nodes/enroll", request(world, made["token"]), "")
    assert answer.status_code == 201
    assert answer.get_json() == {"node": NODE, "installation": known.id, "control_keys": known.public}
    node = world.get(f"/nodes/{NODE}")
    assert (node["online"], node["state"], node["labels"], node["open_jobs"]) == (
        False,
        "active",
        {"role": "web"},
        0,
    )
    assert [one["name"] for one in world.get("/nodes")["items"]] == ["local", NODE]


def test_a_machine_that_was_not_told_the_installation(world: World) -> None:
    assert enroll(world, request(world, token(world), installation="")) == 201


def test_a_token_is_used_once(world: World) -> None:
    secret = token(world)
    assert enroll(world, request(world, secret)) == 201
    assert enroll(world, request(world, secret)) == 403


def test_a_machine_that_did_not_hear_the_answer_asks_again(world: World) -> None:
    """The same keys and the same token: it is the same enrolment, and the row stays as it is."""
    secret, pair = token(world), KeyPair.generate()
    assert enroll(world, request(world, secret, pair=pair)) == 201
    first, before = world.get(f"/nodes/{NODE}"), world.counts()
    assert enroll(world, request(world, secret, pair=pair)) == 201
    assert enroll(world, request(world, secret)) == 403
    assert enroll(world, {**request(world, secret, pair=pair), "proof": "x"}) == 403
    assert (world.get(f"/nodes/{NODE}"), world.counts()) == (first, before)

    later = token(world, replace=True)
    assert enroll(world, request(world, later)) == 201
    assert enroll(world, request(world, secret, pair=pair)) == 403, "another machine is that node now"
    again = token(world, replace=True)
    assert enroll(world, request(world, again, pair=pair)) == 201
    world.ask("DELETE", f"/api/v1/nodes/{NODE}")
    assert enroll(world, request(world, again, pair=pair)) == 403, "somebody removed it"


def test_ten_machines_with_one_token(world: World) -> None:
    secret = token(world)
    bodies = [request(world, secret) for _ in range(10)]
    start = threading.Barrier(10)
    found: list[int] = []

    def run(body: dict[str, Any]) -> None:
        start.wait()
        found.append(enroll(world, body))

    threads = [threading.Thread(target=run, args=[body]) for body in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(found) == {201: 1, 403: 9}


def test_what_does_not_hold_is_refused_and_uses_nothing_up(world: World) -> None:
    secret, other = token(world), token(world, "web-2")
    pair = KeyPair.generate()
    good = request(world, secret)
    bad = {
        "another's token": request(world, other),
        "a made-up token": request(world, "mse_nothing"),
        "another node's proof": {**good, "proof": request(world, secret, "web-2")["proof"]},
        "another token's proof": {**good, "proof": request(world, other)["proof"]},
        "another installation": request(world, secret, installation="01J0000000000000000000000A"),
        "other keys than proven": {**good, "public_keys": pair.public()},
        "an old proof": {**good, "proof": pair.prove("", secret, NODE, now=time.time() - 3600)},
        "no proof": {**good, "proof": "x"},
    }
    before = world.counts()
    assert {name: enroll(world, body) for name, body in bad.items()} == dict.fromkeys(bad, 403)
    assert enroll(world, {**good, "public_keys": {"sign": {}, "seal": {}}}) == 422
    assert world.counts() == before
    assert enroll(world, good) == 201


def test_a_token_ends(world: World) -> None:
    secret = token(world)
    with world.control.store.write() as connection:
        connection.execute(update(EnrolmentToken).values(expires_at=time.time() - 1))
    assert enroll(world, request(world, secret)) == 403


def test_a_name_that_is_taken_needs_replace(world: World) -> None:
    late = token(world)
    assert enroll(world, request(world, token(world))) == 201
    assert world.post("/nodes/tokens", {"node": NODE}).status_code == 409
    assert enroll(world, request(world, late)) == 409
    pair = KeyPair.generate()
    assert enroll(world, request(world, token(world, replace=True), pair=pair)) == 201
    assert enroll(world, request(world, late)) == 409


def test_what_a_replaced_machine_held_is_not_known(world: World) -> None:
    for name in (NODE, "web-2", "web-3"):
        world.add_node(name)
    execution = world.run(FANOUT)
    held, other = world.open_jobs(execution)
    world.hold(held)
    assert world.get(f"/nodes/{NODE}")["open_jobs"] == 1
    assert enroll(world, request(world, token(world, replace=True))) == 201
    rows = {
        row["node"]: row["status"] for row in world.get(f"/workflow-executions/{execution}/tasks")["items"]
    }
    assert (rows[NODE], rows["web-2"]) == ("unknown", "queued")
    assert world.open_jobs(execution) == sorted([held, other])
    assert execution in world.nudged[1:]


def test_a_queued_job_waits_for_the_new_machine(world: World) -> None:
    for name in (NODE, "web-2", "web-3"):
        world.add_node(name)
    execution = world.run(FANOUT)
    assert enroll(world, request(world, token(world, replace=True))) == 201
    (row, *_) = world.get(f"/workflow-executions/{execution}/tasks")["items"]
    assert (row["node"], row["status"]) == (NODE, "queued")


def test_drain(world: World) -> None:
    world.add_node(NODE)
    for wanted, state in ((True, "draining"), (True, "draining"), (False, "active")):
        answer = world.post(f"/nodes/{NODE}/drain", {"drain": wanted}, "operator")
        assert answer.get_json() == {"name": NODE, "state": state}
        assert world.get(f"/nodes/{NODE}")["state"] == state


def test_a_node_is_removed_with_what_it_holds_only_by_force(world: World) -> None:
    for name in (NODE, "web-2", "web-3"):
        world.add_node(name)
    execution = world.run(FANOUT)
    world.hold(world.open_jobs(execution)[0])
    refused = world.ask("DELETE", f"/api/v1/nodes/{NODE}")
    assert (refused.status_code, refused.get_json()["code"]) == (409, "node-busy")
    for name in (NODE, "web-2"):
        assert world.ask("DELETE", f"/api/v1/nodes/{name}?force=1").status_code == 204
    rows = world.get(f"/workflow-executions/{execution}/tasks")["items"]
    assert [(row["status"], (row["error"] or {}).get("type")) for row in rows] == [
        ("unknown", "unknown"),
        ("failed", "node_removed"),
        ("not_reached", None),
    ]
    assert world.get(f"/workflow-executions/{execution}")["status"] == "failed"
    assert world.ask("GET", f"/api/v1/nodes/{NODE}").status_code == 404
    assert world.ask("DELETE", f"/api/v1/nodes/{NODE}").status_code == 404
    assert enroll(world, request(world, token(world))) == 201


def test_removal_ends_tokens_that_were_not_used(world: World) -> None:
    world.add_node(NODE)
    secret = token(world, replace=True)
    assert world.ask("DELETE", f"/api/v1/nodes/{NODE}").status_code == 204
    assert enroll(world, request(world, secret)) == 403


def test_local_is_made_by_the_control_side_only(world: World) -> None:
    pair, later = KeyPair.generate(), KeyPair.generate()
    store = world.control.store
    fleet.enrol_local(store, pair.public(), time.time())
    fleet.enrol_local(store, pair.public(), time.time())
    with store.read() as connection:
        first = fleet.get_node(world.control, connection, "local")
    assert first["sign_kid"] == pair.kid
    fleet.enrol_local(store, later.public(), time.time())
    with store.read() as connection:
        assert fleet.get_node(world.control, connection, "local")["sign_kid"] == later.kid
    actions = [one["action"] for one in world.get("/audit", "admin")["items"]]
    assert actions.count("node.enroll") == 2
    with pytest.raises(NotFound), store.read() as connection:
        fleet.get_node(world.control, connection, "nowhere")
