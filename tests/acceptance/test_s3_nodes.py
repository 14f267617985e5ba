"""Seed 003, the rows about machines that have only an SSH server: by `muster up`, the command line and a real sshd."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fleet_processes import processes_with
from running import Running
from sshd import Sshd
from waiting import wait_until

pytestmark = [pytest.mark.fleet, pytest.mark.timeout(180)]

ADDRESSES = {"far-1": "127.0.0.31", "far-2": "127.0.0.32", "far-3": "127.0.0.33"}
KEY = "ssh/far"


class Far:
    """Machines as an administrator adds them, each at an address of its own of one sshd."""

    def __init__(self, running: Running, sshd: Sshd) -> None:
        self.running = running
        self.sshd = sshd
        self.set_key(KEY, sshd.key_file)

    def set_key(self, name: str, file: Path) -> None:
        done = self.running.muster(
            "secret", "set", name, "--file", str(file), "--user", "admin", role="admin"
        )
        assert done.returncode == 0, done.stderr

    def add(self, name: str, address: str = "", *more: str, key: str = KEY) -> None:
        place = f"{self.sshd.user}@{address or ADDRESSES[name]}:{self.sshd.port}"
        words = ("node", "add", name, "--ssh", place, "--key", key, "--label", "role=far", *more)
        done = self.running.muster(*words, role="admin")
        assert done.returncode == 0, done.stderr
        done = self.running.muster("node", "trust", name, "--yes", role="admin")
        assert done.returncode == 0, done.stderr
        self.wait_for(name)

    def wait_for(self, name: str, online: bool = True) -> None:
        wait_until(lambda: (name in self.running.online()) is online, lambda: self.node(name))

    def node(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.running.get(f"/nodes/{name}").data
        return found

    def kept(self) -> list[str]:
        """What the machines keep of jobs now: one directory for each."""
        return [path.name for path in self.sshd.state.glob("muster/*/jobs/*")]


@pytest.fixture(scope="module")
def far(running: Running, sshd_program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Far]:
    with Sshd(tmp_path_factory.mktemp("far"), tuple(ADDRESSES.values())) as sshd:
        made = Far(running, sshd)
        for name in ("far-1", "far-2"):
            made.add(name)
        yield made
        for name in ADDRESSES:
            running.ask("DELETE", f"/api/v1/nodes/{name}?force=1", role="admin")


def test_S3_01_a_machine_over_ssh_is_asked_and_answers_as_a_worker(running: Running, far: Far) -> None:
    """The gateway was started by `muster up` by itself. But for ids and times the answers are the same."""
    body = {"script": "cat; echo $GREETING; echo oh >&2; exit 4", "stdin": "in\n", "timeout": 20}
    answers = {name: running.execute(name, **body) for name in ("web-1", "far-1")}
    assert {answer.status for answer in answers.values()} == {200}
    own = {"node_id", "execution", "started_at", "completed_at"}
    worker, ssh = ({k: v for k, v in one.data.items() if k not in own} for one in answers.values())
    assert worker == ssh
    assert (ssh["status"], ssh["exit_code"], ssh["stdout"]) == ("failed", 4, "in\n\n")
    done = running.muster(
        "exec", "--fold", "web-1", "web-2", "far-1", "far-2", "--", "echo", "the same", role="operator"
    )
    assert done.returncode == 0, done.stderr
    assert "4 the same" in done.stdout


def test_S3_01_what_is_made_up_on_the_spot_is_held_to_the_allowlist(running: Running, far: Far) -> None:
    running.allow("enforce")
    try:
        refused = running.execute("far-1", command=["find", "/", "-delete"])
        assert (refused.status, refused.data["code"]) == (403, "not-allowed")
        assert running.execute("far-1", command=["uptime"]).data["status"] == "succeeded"
    finally:
        running.allow("audit")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"command": ["true"]}, "succeeded"),
        ({"command": ["false"]}, "failed"),
        ({"script": "sleep 60", "timeout": 0.5}, "timed_out"),
    ],
    ids=["success", "failure", "timeout"],
)
def test_S3_10_nothing_is_left_of_a_job(
    running: Running, far: Far, body: dict[str, Any], status: str
) -> None:
    """And nothing that is not ours is touched."""
    beside = far.sshd.state / "muster" / "somebody-elses"
    beside.mkdir(parents=True, exist_ok=True)
    (beside / "file").write_text("precious")
    assert running.execute("far-1", **body).data["status"] == status
    wait_until(lambda: not far.kept(), far.kept)
    assert (beside / "file").read_text() == "precious"


def test_S3_11_a_wrong_key_fails_at_once_with_what_to_do(running: Running, far: Far, tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "k")], check=True)
    far.set_key("ssh/wrong", tmp_path / "k")
    far.add("far-3", key="ssh/wrong")
    found = running.execute("far-3", command=["true"]).data
    assert (found["status"], found["error"]["type"]) == ("failed", "ssh_auth")
    assert "ssh-copy-id" in found["error"]["message"]
    assert far.sshd.user in found["error"]["message"]
    listed = running.muster("node", "list", role="viewer").stdout.splitlines()
    assert next(line.split()[-1] for line in listed if line.startswith("far-3")) == "failing"


def test_S3_14_a_key_with_a_passphrase_is_never_asked_for_it(
    running: Running, far: Far, tmp_path: Path
) -> None:
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", str(tmp_path / "k")], check=True
    )
    far.set_key("ssh/locked", tmp_path / "k")
    far.add("far-3", "", "--replace", key="ssh/locked")
    found = wait_until(lambda: (one := running.execute("far-3", command=["true"]).data).get("error") and one)
    assert (found["status"], found["error"]["type"]) == ("failed", "ssh_key"), found
    assert "passphrase" in found["error"]["message"]


def test_S3_12_a_timeout_says_after_how_long(running: Running, far: Far, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    found = running.execute("far-2", script=f"sh -c 'sleep 300; : {mark}' & wait", timeout=1).data
    assert (found["status"], found["exit_code"]) == ("timed_out", None)
    assert "1 s" in found["error"]["message"]
    wait_until(lambda: not list(processes_with(str(mark))))


@pytest.mark.long
def test_S3_13_a_machine_that_is_down_is_left_alone_until_it_is_back(running: Running, far: Far) -> None:
    """Three failures open the breaker; what is asked of it then is refused without a try; one probe closes it."""
    far.sshd.stop()
    found = wait_until(lambda: (one := far.node("far-1")["breaker"])["state"] == "open" and one)
    assert found["failures"] >= 3
    assert "cannot be reached" in found["error"]
    assert found["until"]
    far.wait_for("far-1", online=False)
    answer = running.execute("far-1", command=["true"])
    assert (answer.status, answer.data["code"]) == (409, "node-offline")
    assert "cannot be reached" in answer.data["detail"]
    listed = running.muster("node", "list", role="viewer").stdout.splitlines()
    assert next(line.split()[-1] for line in listed if line.startswith("far-1")) == "open"
    far.sshd.start()
    for name in ("far-1", "far-2"):
        wait_until(
            lambda name=name: far.node(name)["breaker"]["state"] == "closed", lambda: far.node("far-1")
        )  # type: ignore[misc]
        far.wait_for(name)
    assert running.execute("far-1", command=["true"]).data["status"] == "succeeded"


def test_S3_14_what_the_machine_is_is_known_before_anything_runs(running: Running, far: Far) -> None:
    node = far.node("far-2")
    uname = os.uname()
    assert (node["versions"]["os"], node["versions"]["arch"]) == (uname.sysname, uname.machine)
    assert int(node["versions"]["free_mb"]) > 0
    assert ("python" in node["shells"]) == bool(node["versions"]["python3"]) == bool(shutil.which("python3"))
    assert "sh" in node["shells"]
    refused = running.execute("far-2", script="Get-Date", language="powershell")
    assert (refused.status, refused.data["code"]) == (422, "no-shell")


def test_S3_15_a_workflow_over_workers_and_machines_over_ssh(running: Running, far: Far) -> None:
    """End to end over the loopback: a value from a worker goes to a machine over SSH, and what that makes goes on."""
    found = running.run(
        {
            "name": "make",
            "action": "core.shell",
            "delegate_to": "web-1",
            "input": {"command": 'printf \'{"n": 20}\' > "$MUSTER_OUTPUT"'},
            "on_success": "grow",
        },
        {
            "name": "grow",
            "action": "core.shell",
            "delegate_to": "far-1",
            "input": {"command": "echo $(( {{ task.make.result.n | int }} + 1 ))"},
            "on_success": "spread",
        },
        {
            "name": "spread",
            "type": "distributed_shell",
            "input": {
                "command": ["echo", "{{ task.grow.result.stdout }}"],
                "nodes": ["far-1", "far-2", "web-2"],
            },
        },
    )
    assert found["status"] == "completed", found
    units = [row for row in running.units(found["id"]) if row["task"] == "spread"]
    assert {row["node"]: row["status"] for row in units} == dict.fromkeys(
        ("far-1", "far-2", "web-2"), "succeeded"
    )
    assert found["output"]["grow"]["stdout"] == "21"
