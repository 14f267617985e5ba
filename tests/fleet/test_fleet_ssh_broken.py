"""Machines over SSH that lock us out, change, hang or vanish; connections that break; a gateway that is killed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet_ssh import KEY, OTHERS, FarSide, begun, is_running, metrics
from fleet_wire import Wire
from sshd import Sshd, make_key
from waiting import wait_until

pytestmark = [pytest.mark.long, pytest.mark.fleet, pytest.mark.timeout(120)]


def test_a_key_that_is_not_let_in_fails_at_once_with_what_to_do(far: FarSide, tmp_path: Path) -> None:
    make_key(tmp_path / "other")
    far.put_key("ssh/other", (tmp_path / "other").read_text())
    far.add("locked", OTHERS[1], key="ssh/other")
    far.trust("locked")
    far.wait_online("locked")
    tries = far.sshd.log.count("Connection from") + far.sshd.log.count("Connection closed by authenticating")
    found = far.execute("locked", command=["true"])
    assert (found["status"], found["error"]["type"]) == ("failed", "ssh_auth"), found
    message = found["error"]["message"]
    assert all(word in message for word in (far.sshd.user, "ssh-copy-id")), message
    assert far.sshd.log.count("Connection closed by authenticating") - tries <= 3
    assert "ssh" in far.node("locked")["breaker"]["error"]
    # The right key in its place mends it, without a new trust.
    changed = far.add("locked", OTHERS[1], key=KEY, replace=True)
    assert changed.data["ssh"]["host_key"]
    wait_until(
        lambda: far.execute("locked", command=["true"])["status"] == "succeeded", lambda: far.node("locked")
    )


def test_a_machine_with_another_host_key_gets_nothing(far: FarSide, tmp_path: Path) -> None:
    """Until somebody trusts that one."""
    with Sshd(tmp_path / "a", ["127.0.0.21"]) as first:
        shutil.copy(far.sshd.directory / "user.pub", first.directory / "authorized_keys")
        far.bring_in("moved", "127.0.0.21", first.port)
        assert far.execute("moved", command=["true"])["status"] == "succeeded"
        trusted = far.node("moved")["ssh"]["host_key"]
        first.stop()
        for suffix in ("", ".pub"):
            (first.directory / f"host{suffix}").unlink()
        make_key(first.directory / "host")
        first.start()
        other = wait_until(
            lambda: (found := far.node("moved")["ssh"])["offered_key"] != trusted and found,
            lambda: far.node("moved"),
        )
        assert other["host_key"] == trusted
        found = far.execute("moved", command=["true"])
        assert (found["status"], found["error"]["type"]) == ("failed", "ssh_host_key"), found
        assert "muster node trust" in found["error"]["message"]
        far.trust("moved")
        wait_until(
            lambda: far.execute("moved", command=["true"])["status"] == "succeeded", lambda: far.node("moved")
        )
        assert far.api.ask("DELETE", "/api/v1/nodes/moved?force=1", role="admin").status == 204


def test_a_gateway_that_is_killed_finds_its_scripts_again(far: FarSide, tmp_path: Path) -> None:
    gate, effects = tmp_path / "gate", tmp_path / "effects"
    script = f"echo $$ >> {effects}; echo one; while [ ! -e {gate} ]; do sleep 0.05; done; echo two"
    execution = begun(far, "far-1", script)
    wait_until(effects.exists)
    far.fleet.kill("ssh")
    far.wait_online("far-1")
    gate.touch()
    assert far.fleet.wait_for(execution).status == "completed", far.fleet.story(execution)
    (job,) = far.fleet.jobs(execution)
    assert job.result["stdout"] == "one\ntwo"
    assert len(effects.read_text().split()) == 1


def test_a_connection_that_breaks_in_mid_script_loses_nothing(far: FarSide, tmp_path: Path) -> None:
    gate, effects = tmp_path / "gate", tmp_path / "effects"
    script = f"echo $$ >> {effects}; echo one; while [ ! -e {gate} ]; do sleep 0.05; done; echo two"
    execution = begun(far, "far-2", script)
    wait_until(effects.exists)
    far.sshd.drop_sessions()
    wait_until(lambda: far.sshd.sessions())
    gate.touch()
    assert far.fleet.wait_for(execution).status == "completed", far.fleet.story(execution)
    (job,) = far.fleet.jobs(execution)
    assert (job.result["stdout"], len(effects.read_text().split())) == ("one\ntwo", 1)


@pytest.fixture
def wire(far: FarSide) -> Iterator[Wire]:
    made = Wire(OTHERS[2], (OTHERS[2], far.sshd.port))
    yield made
    made.close()


def test_a_network_that_is_lost_for_longer_leaves_no_orphan_and_an_honest_end(
    far: FarSide, wire: Wire, tmp_path: Path
) -> None:
    far.bring_in("cut", wire.address, wire.port)
    mark, effects = tmp_path / "mark", tmp_path / "effects"
    script = f"echo $$ >> {effects}; sh -c 'sleep 300; : {mark}' & echo begun; wait"
    execution = begun(far, "cut", script)
    wait_until(lambda: is_running(mark))
    wire.cut()
    wait_until(lambda: not is_running(mark), lambda: is_running(mark))
    assert not far.fleet.is_over(execution)
    wire.mend()
    row = far.fleet.wait_for(execution)
    (job,) = far.fleet.jobs(execution)
    assert (row.status, job.status, job.error["type"]) == ("failed", "failed", "lost"), far.fleet.story(
        execution
    )
    assert job.result["stdout"] == "begun"
    assert len(effects.read_text().split()) == 1
    far.wait_online("cut")
    assert far.execute("cut", command=["true"])["status"] == "succeeded"
    assert far.api.ask("DELETE", "/api/v1/nodes/cut", role="admin").status == 204


@pytest.mark.long
def test_a_machine_that_hangs_opens_its_breaker_while_the_others_finish(far: FarSide, wire: Wire) -> None:
    far.bring_in("mute", wire.address, wire.port)
    wire.hang()
    body = {"nodes": ["far-1", "far-2", "web-1", "mute"], "command": ["true"], "timeout": 60}
    answer = far.api.post("/nodes/execute", body)
    assert answer.status == 201, answer.data
    execution = answer.data["id"]

    def rows() -> dict[str, str]:
        items = far.api.get(f"/workflow-executions/{execution}/tasks").data["items"]
        return {row["node"]: row["status"] for row in items}

    wait_until(lambda: [rows()[name] for name in ("far-1", "far-2", "web-1")] == ["succeeded"] * 3, rows)
    assert rows()["mute"] not in ("succeeded", "failed")
    breaker = wait_until(
        lambda: (found := far.node("mute")["breaker"])["state"] == "open" and found, lambda: far.node("mute")
    )
    assert breaker["failures"] >= 1
    assert breaker["error"]
    far.wait_online("mute", False)
    told = metrics(far.api)
    assert told['muster_ssh_nodes{breaker="open"}'] >= 1
    assert told['muster_ssh_connections_total{node="mute",result="made"}'] == 1
    assert told['muster_ssh_connections_total{node="mute",result="failed"}'] >= 1
    wire.mend()
    far.wait_online("mute")
    assert far.node("mute")["breaker"]["state"] == "closed"
    assert far.api.ask("DELETE", "/api/v1/nodes/mute?force=1", role="admin").status == 204
