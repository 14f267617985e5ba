"""Machines that have only an SSH server, in a fleet: orders, outcomes, output, cancels, bounds, schedules as ever."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from fleet_processes import ROOT
from fleet_ssh import KEY, OTHERS, FarSide, begun, is_running
from sqlalchemy import update
from waiting import wait_until

from app.store.tables import Schedule, table

pytestmark = [pytest.mark.fleet, pytest.mark.timeout(120)]

schedules = table(Schedule)


def muster(far: FarSide, *words: str, role: str = "admin") -> subprocess.CompletedProcess[str]:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MUSTER_")}
    given = {"MUSTER_URL": far.api.url, "MUSTER_TOKEN": far.api.tokens[role], "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "app.cli.main", *words],
        env={**plain, **given},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_from_nothing_to_the_first_command_by_the_command_line(far: FarSide) -> None:
    place = f"{far.sshd.user}@{OTHERS[0]}:{far.sshd.port}"
    done = muster(
        far, "node", "add", "typed", "--ssh", place, "--key", KEY, "--label", "role=far", "--slots", "2"
    )
    assert done.returncode == 0, done.stderr
    wrong = muster(far, "node", "trust", "typed", "--fingerprint", f"SHA256:{'A' * 43}")
    assert wrong.returncode == 5, wrong.stderr
    assert "offers the host key SHA256:" in wrong.stderr
    listing = subprocess.run(
        ["ssh-keygen", "-lf", str(far.sshd.directory / "host.pub")],
        capture_output=True,
        text=True,
        check=True,
    )
    fingerprint = listing.stdout.split()[1]
    assert muster(far, "node", "trust", "typed", "--fingerprint", fingerprint).returncode == 0
    far.wait_online("typed")
    done = muster(far, "exec", "typed", "--", "sh", "-c", "echo $MUSTER_NODE; exit 3", role="operator")
    assert (done.returncode, done.stdout) == (1, "typed\n"), done.stderr
    node = far.node("typed")
    assert (node["slots"], node["address"]) == (2, f"{OTHERS[0]}:{far.sshd.port}")
    assert {"sh"} <= set(node["shells"])
    assert node["versions"]["os"] == "Linux"
    assert int(node["versions"]["free_mb"]) > 0
    listed = muster(far, "node", "list", role="viewer").stdout
    assert [line.split()[-1] for line in listed.splitlines() if line.startswith("typed")] == ["closed"]


@pytest.mark.parametrize(
    ("body", "status", "code", "stdout", "stderr"),
    [
        (
            {"command": ["printf", "%s|", "a b", "", "$HOME", "{{ x }}"]},
            "succeeded",
            0,
            "a b||$HOME|{{ x }}|",
            "",
        ),
        ({"command": "echo out; echo err >&2; exit 3"}, "failed", 3, "out\n", "err\n"),
        ({"script": "print(1 + 1)\n", "language": "python"}, "succeeded", 0, "2\n", ""),
        ({"command": ["cat"], "stdin": "grüße\n"}, "succeeded", 0, "grüße\n", ""),
        ({"command": ["there-is-no-such-program"]}, "failed", 127, "", ""),
        ({"command": "kill -9 $$"}, "failed", 137, "", ""),
        ({"command": "head -c 100000 /dev/zero | tr '\\0' x"}, "succeeded", 0, "x" * 100_000, ""),
    ],
    ids=["argv", "text", "python", "stdin", "no program", "killed", "100 kB"],
)
def test_one_command(far: FarSide, body: Any, status: str, code: int, stdout: str, stderr: str) -> None:
    """The cases of a node with a worker (test_fleet_exec)."""
    found = far.execute("far-1", **body)
    assert (found["status"], found["exit_code"]) == (status, code), found
    assert (found["stdout"], found["stderr"], found["truncated"]) == (stdout, stderr, False)


def test_output_comes_while_it_runs(far: FarSide, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    command = f"echo one; echo oh >&2; while [ ! -e {gate} ]; do sleep 0.05; done; echo two"
    path = "/api/v1/nodes/far-1/execute"
    stream = far.api.stream("POST", path, {"command": command, "stream_output": True})
    first = {(one.event, one.data.get("text")) for one in (next(stream), next(stream), next(stream))}
    assert first == {("started", None), ("stdout", "one\n"), ("stderr", "oh\n")}
    gate.touch()
    rest = list(stream)
    assert [(one.event, one.data.get("text")) for one in rest if one.event == "stdout"] == [
        ("stdout", "two\n")
    ]
    assert rest[-2].data["stdout"] == "one\ntwo\n"


def test_a_cancel_ends_the_whole_group(far: FarSide, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    script = f"trap 'exit 7' TERM; sh -c 'sleep 300; : {mark}' & touch {mark}; while :; do sleep 0.1; done"
    execution = begun(far, "far-1", script)
    wait_until(mark.exists)
    assert is_running(mark)
    far.fleet.cancel(execution)
    assert far.fleet.wait_for(execution).status == "cancelled"
    wait_until(lambda: not is_running(mark), lambda: is_running(mark))


def test_a_timeout_is_kept_there(far: FarSide, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    script = f"trap '' TERM; sh -c 'trap \"\" TERM; sleep 300; : {mark}' & echo begun; wait"
    found = far.execute("far-2", script=script, timeout=1)
    assert (found["status"], found["exit_code"], found["stdout"]) == ("timed_out", None, "begun\n")
    assert found["error"]["type"] == "timeout"
    wait_until(lambda: not is_running(mark), lambda: is_running(mark))


MIXED = """\
ref: demo.mixed
tasks:
  - name: spread
    type: distributed_shell
    input: {command: "echo $MUSTER_NODE", nodes: [web-1, web-2, web-3, far-1, far-2]}
output_map: {rows: "{{ task.spread.result }}"}
"""


def test_workers_and_machines_over_ssh_in_one_fan_out(far: FarSide) -> None:
    execution = far.fleet.submit(MIXED)
    assert far.fleet.wait_for(execution).status == "completed", far.fleet.story(execution)
    told = {job.node: job.result["stdout"] for job in far.fleet.jobs(execution)}
    assert told == {name: name for name in ("web-1", "web-2", "web-3", "far-1", "far-2")}


def test_bounds_approvals_and_schedules_are_the_same(far: FarSide) -> None:
    """Somebody bound to labels runs on these nodes and no others; a saved script with a gate waits for somebody, then
    runs as it was approved; a schedule fires there."""
    ask, fleet = far.api.ask, far.fleet
    made = muster(far, "user", "add", "bound", "--grant", "operator:role=far")
    made = muster(far, "token", "create", "bound", "--json")
    assert made.returncode == 0, made.stderr
    far.api.tokens["bound"] = json.loads(made.stdout)["token"]
    assert far.api.post("/nodes/far-1/execute", {"command": ["true"]}, "bound").data["status"] == "succeeded"
    assert far.api.post("/nodes/web-1/execute", {"command": ["true"]}, "bound").status in (403, 404)

    script = {"name": "greet", "shell": "sh", "body": "echo hello from $MUSTER_NODE\n"}
    answer = far.api.post("/automation/scripts", {**script, "requires_approval": True}, "author")
    assert answer.status == 201, answer.data
    asked = far.api.post("/automation/scripts/greet/execute", {"host_ids": ["far-1", "web-1"]}).data
    open_questions = far.api.get("/automation/approvals?status=pending").data["items"]
    (question,) = [one for one in open_questions if one["execution"] == asked["id"]]
    assert fleet.jobs(asked["id"]) == []
    assert far.api.post(f"/automation/approvals/{question['id']}/approve", {}, "approver").status == 200
    assert fleet.wait_for(asked["id"]).status == "completed", fleet.story(asked["id"])
    assert {job.node: job.result["stdout"] for job in fleet.jobs(asked["id"])} == {
        "far-1": "hello from far-1",
        "web-1": "hello from web-1",
    }

    far.api.post("/automation/scripts", {**script, "name": "nightly"}, "author")
    wanted = {
        "name": "nightly",
        "cron": "0 3 * * *",
        "zone": "UTC",
        "script": "nightly",
        "host_ids": ["far-2"],
    }
    answer = far.api.post("/automation/schedules", wanted)
    assert answer.status == 201, answer.data
    with fleet.store.write() as connection:
        connection.execute(update(schedules).values(next_run=time.time() - 1, due_at=time.time() - 1))
    found = wait_until(lambda: ask("GET", "/api/v1/automation/schedules/nightly").data["last_execution"])
    assert fleet.wait_for(found).status == "completed"
    (job,) = fleet.jobs(found)
    assert (job.node, job.result["stdout"]) == ("far-2", "hello from far-2")
    assert ask("DELETE", "/api/v1/automation/schedules/nightly").status == 204


def test_a_node_that_is_removed_is_let_go(far: FarSide, tmp_path: Path) -> None:
    """What still runs there ends by its lease, and nothing of the node is left in the gateway."""
    far.bring_in("gone", OTHERS[0])
    mark = tmp_path / "mark"
    execution = begun(far, "gone", f"sh -c 'sleep 300; : {mark}' & wait")
    wait_until(lambda: is_running(mark))
    home = far.fleet.directory / "ssh" / "gone"
    assert (home / "node.keys").stat().st_mode & 0o777 == 0o600
    assert far.api.ask("DELETE", "/api/v1/nodes/gone", role="admin").status == 409
    assert far.api.ask("DELETE", "/api/v1/nodes/gone?force=1", role="admin").status == 204
    wait_until(lambda: not home.exists())
    wait_until(lambda: not is_running(mark), lambda: is_running(mark))
    assert far.fleet.wait_for(execution).status == "failed"


def test_no_private_key_is_on_a_disk_or_in_a_log(far: FarSide) -> None:
    lines = far.sshd.private_key.splitlines()
    wanted = lines[len(lines) // 2].encode()
    found = [
        path
        for path in far.fleet.directory.rglob("*")
        if path.is_file() and not path.is_symlink() and wanted in path.read_bytes()
    ]
    assert found == []
