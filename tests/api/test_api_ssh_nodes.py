"""Nodes over SSH: added by an administrator, trusted by their host keys, shown with how they are reached."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from api_world import FANOUT, World
from ssh_shop import FINGERPRINT, HOST_KEY, NAME, OTHER_FINGERPRINT, OTHER_KEY, added, body, offered, with_key

from app.services import ssh_nodes
from app.services.ssh_address import parse
from app.transport.keys import KeyPair

CASES: dict[str, list[dict[str, Any]]] = yaml.safe_load(
    (Path(__file__).parent.parent / "cases" / "api" / "ssh_nodes.yaml").read_text()
)


def kept(world: World) -> ssh_nodes.SshNode:
    with world.control.store.read() as connection:
        (found,) = ssh_nodes.known(connection)
    return found


def keyed(world: World) -> KeyPair:
    """The gateway has taken the node."""
    pair = KeyPair.generate()
    assert ssh_nodes.take(world.control, NAME, pair.public())
    return pair


def test_a_node_that_is_added_is_there_and_waits(world: World) -> None:
    path = added(world, labels={"role": "web"}, slots=2, workdir="/srv/jobs")
    node = world.get(path)
    assert node["ssh"] == {
        "user": "deploy",
        "host": "far-1.example.org",
        "port": 22,
        "key": "ssh/web",
        "backend": "asyncssh",
        "workdir": "/srv/jobs",
        "host_key": "",
        "offered_key": "",
    }
    assert node["breaker"] == {"state": "closed", "failures": 0, "until": None, "error": ""}
    assert (node["transport"], node["address"], node["online"]) == ("ssh", "far-1.example.org:22", False)
    assert (node["labels"], node["slots"], kept(world).ssh["slots"]) == ({"role": "web"}, 0, 2)
    local = world.get("/nodes/local")
    assert (local["ssh"], local["breaker"]) == (None, None)


def test_what_cannot_be_a_node_is_refused_and_leaves_nothing(world: World) -> None:
    with_key(world)
    before = world.counts()
    found, wanted = {}, {}
    for case in CASES["refused"]:
        answer = world.post("/nodes", body(**case["body"]))
        told = answer.get_json()
        pointers = [one["pointer"] for one in told.get("errors", ()) if "pointer" in case]
        found[case["name"]] = (answer.status_code, told["code"], pointers)
        pointer = [case["pointer"]] if "pointer" in case else []
        wanted[case["name"]] = (case.get("status", 422), case["code"], pointer)
    assert found == wanted
    assert world.counts() == before


@pytest.mark.parametrize("case", CASES["addresses"], ids=lambda case: str(case["given"]))
def test_an_address_is_read(case: dict[str, Any]) -> None:
    found = parse(case["given"])
    assert [found.user, found.host, found.port, found.place] == case["comes"]


def test_a_key_that_its_owner_keeps_for_others(world: World) -> None:
    with_key(world, users=["ada"])
    answer = world.post("/nodes", body())
    assert (answer.status_code, answer.get_json()["code"]) == (422, "bad-ssh-key")
    assert "may not use" in answer.get_json()["detail"]


def test_the_host_key_that_was_seen_is_trusted_by_its_fingerprint(world: World) -> None:
    path = added(world)

    def trust(fingerprint: str) -> tuple[int, str]:
        answer = world.post(f"{path}/trust", {"fingerprint": fingerprint})
        return answer.status_code, answer.get_json().get("code", "")

    assert trust(FINGERPRINT) == (404, "no-host-key")
    ssh_nodes.offer(world.control, NAME, f"{HOST_KEY} somebody@somewhere")
    assert world.get(path)["ssh"]["offered_key"] == FINGERPRINT
    assert trust(OTHER_FINGERPRINT) == (409, "other-host-key")
    assert trust("SHA256:x") == (422, "invalid-request")
    assert kept(world).host_key == ""
    assert trust(FINGERPRINT) == (200, "")
    assert world.get(path)["ssh"]["host_key"] == FINGERPRINT
    assert kept(world).host_key == HOST_KEY

    ssh_nodes.offer(world.control, NAME, OTHER_KEY)
    found = world.get(path)["ssh"]
    assert (found["host_key"], found["offered_key"]) == (FINGERPRINT, OTHER_FINGERPRINT)
    assert trust(OTHER_FINGERPRINT) == (200, "")
    assert kept(world).host_key == OTHER_KEY

    assert world.post("/nodes/local/trust", {"fingerprint": FINGERPRINT}).get_json()["code"] == "not-ssh"
    assert world.post("/nodes/none/trust", {"fingerprint": FINGERPRINT}).status_code == 404
    trail = world.get(f"/audit?subject={NAME}", "admin")["items"]
    assert [(one["action"], one["outcome"]) for one in trail[:4]] == [
        ("node.trust", "accepted"),
        ("node.host_key", "accepted"),
        ("node.trust", "accepted"),
        ("node.trust", "refused"),
    ]


def test_one_gateway_takes_a_node(world: World) -> None:
    added(world)
    pair = keyed(world)
    assert kept(world).sign_kid == pair.kid
    assert not ssh_nodes.take(world.control, NAME, KeyPair.generate().public())
    assert kept(world).sign_kid == pair.kid


def test_what_a_changed_node_keeps(world: World) -> None:
    """Another key for the same place keeps all; another user loses the jobs, another host the trust as well."""
    path = offered(world)
    assert world.post("/nodes", body()).get_json()["code"] == "node-exists"
    world.post(f"{path}/trust", {"fingerprint": FINGERPRINT})
    pair = keyed(world)
    with_key(world, "ssh/other")

    def changed(**more: Any) -> tuple[str, str, str]:
        answer = world.post("/nodes", body(replace=True, **more))
        assert answer.status_code == 201, answer.text
        node = kept(world)
        return str(node.ssh["key"]), node.sign_kid, node.host_key

    assert changed(key="ssh/other", slots=3) == ("ssh/other", pair.kid, HOST_KEY)
    assert changed(address="root@far-1.example.org") == ("ssh/web", "", HOST_KEY)
    keyed(world)
    assert changed(address="root@far-2.example.org") == ("ssh/web", "", "")


def test_a_worker_in_the_place_of_an_ssh_node_and_the_other_way_round(world: World) -> None:
    world.add_node(NAME)
    with_key(world)
    assert world.post("/nodes", body()).get_json()["code"] == "node-exists"
    assert world.post("/nodes", body(replace=True)).status_code == 201
    node = world.get(f"/nodes/{NAME}")
    assert (node["transport"], node["online"], kept(world).sign_kid) == ("ssh", False, "")


def test_a_node_that_was_removed_may_come_again_and_nothing_is_left_of_it(world: World) -> None:
    path = offered(world)
    world.post(f"{path}/trust", {"fingerprint": FINGERPRINT})
    keyed(world)
    assert world.ask("DELETE", f"/api/v1{path}").status_code == 204
    assert kept(world).is_removed
    assert not ssh_nodes.take(world.control, NAME, KeyPair.generate().public())
    assert world.post(f"{path}/trust", {"fingerprint": FINGERPRINT}).status_code == 404
    added(world)
    node = kept(world)
    assert (node.is_removed, node.sign_kid, node.host_key, node.offered_key) == (False, "", "", "")


def test_work_for_a_node_without_keys_waits(world: World) -> None:
    """Nothing can be sealed to it before the gateway has made its keys."""
    for name in ("web-1", "web-2", "web-3"):
        added(world, name=name)
    execution = world.run(FANOUT)
    rows = world.get(f"/workflow-executions/{execution}/tasks")["items"]
    assert {row["status"] for row in rows} <= {"pending", "queued", "skipped"}


def test_the_private_key_is_for_the_gateway_and_its_use_is_kept(world: World) -> None:
    added(world)
    assert ssh_nodes.private_key(world.control, kept(world)) == "not a key at all"
    (use, *_) = world.get("/audit?subject=ssh/web", "admin")["items"]
    assert (use["action"], use["person"], use["detail"]["node"]) == ("secret.use", f"node:{NAME}", NAME)
    assert world.ask("DELETE", "/api/v1/secrets/ssh/web").status_code == 204
    assert kept(world).key_version is None
