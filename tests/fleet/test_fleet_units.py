"""The systemd units do what they say: a fleet from nothing, and scripts that outlive their worker's restart."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fleet_compose import free_port
from fleet_units import Machine
from waiting import wait_until

from app.node import endpoint

pytestmark = [pytest.mark.long, pytest.mark.fleet, pytest.mark.timeout(300)]

NAMES = ("local", "web-1", "web-2", "web-3")
EVERYWHERE = """\
ref: tests.everywhere
tasks:
  - name: greet
    type: distributed_shell
    input:
      nodes: [web-1, web-2, web-3]
      script: echo "hello from $MUSTER_NODE"
    on_success: report
  - {name: report, action: core.shell, input: {command: [echo, said on local]}}
"""
PATIENT = """\
ref: tests.patient
parameters: {gate: {type: string, required: true}}
tasks:
  - name: wait
    action: core.shell
    delegate_to: web-1
    input:
      command: echo $$ > {{ parameters.gate }}.pid; while [ ! -e {{ parameters.gate }} ]; do sleep 0.05; done
"""


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    """One machine for everything; docs/user/guides/nodes.md tells these steps."""
    with Machine() as running:
        address = f"127.0.0.1:{free_port()}"
        etc = running.configuration
        (etc / "server.env").write_text(
            f"REDIS_URL={running.redis_url}\nMUSTER_API_BIND={address}\nMUSTER_HEARTBEAT_EVERY=1\n"
        )
        (etc / "node.env").write_text(
            f"# of every node\nREDIS_URL={running.redis_url}\nMUSTER_URL=http://{address}\nMUSTER_HEARTBEAT_EVERY=1\n"
        )
        running.start("muster-setup")
        for name in ("muster-api", "muster-control", "muster-beat"):
            running.start(name)
        (etc / "local.token").write_text((running.state / "muster" / "local.token").read_text())
        wait_until(lambda: running.muster("node", "list").returncode == 0, lambda: running.log("muster-api"))
        for name in NAMES[1:]:
            (etc / f"{name}.token").write_text(muster(running, "node", "token", name)[1])
        for name in NAMES:
            running.start(f"muster-runner@{name}")
            running.start(f"muster-node@{name}")
        wait_until(lambda: online(running) == set(NAMES), lambda: "".join(map(running.log, nodes())))
        yield running


def nodes() -> list[str]:
    return [f"muster-node@{name}" for name in NAMES]


def muster(machine: Machine, *words: str) -> tuple[Any, str]:
    """What `muster … --json` printed, read and as text."""
    done = machine.muster(*words, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout), done.stdout


def online(machine: Machine) -> set[str]:
    return {one["name"] for one in muster(machine, "node", "list")[0]["items"] if one["online"]}


def runner_pid(machine: Machine) -> int:
    return int(endpoint.read(str(machine.state / "muster-node" / "web-1")).get("pid", 0))


def test_a_workflow_runs_on_every_node(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "everywhere.yaml").write_text(EVERYWHERE)
    done = machine.muster("run", str(tmp_path / "everywhere.yaml"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert {node for node in NAMES[1:] if f"hello from {node}" in done.stdout} == set(NAMES[1:])
    assert "said on local" in done.stdout


def test_a_script_outlives_the_restart_of_its_worker(machine: Machine, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    (tmp_path / "patient.yaml").write_text(PATIENT)
    started, _ = muster(machine, "run", str(tmp_path / "patient.yaml"), "-p", f"gate={gate}", "--no-follow")
    pid_file = tmp_path / "gate.pid"
    wait_until(lambda: pid_file.exists() and pid_file.read_text().strip(), "the script")
    script, runner = int(pid_file.read_text()), runner_pid(machine)
    machine.stop("muster-node@web-1")
    os.kill(script, 0)
    assert runner_pid(machine) == runner == machine.keeper.parts["muster-runner@web-1"].pid
    machine.start("muster-node@web-1")
    gate.touch()
    done = machine.muster("execution", "follow", started["id"], "--timeout", "60")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_runner_of_the_unit_is_the_only_one(machine: Machine, tmp_path: Path) -> None:
    """Killed, it comes back as the unit's: the worker starts none, and goes on with the new one."""
    before = runner_pid(machine)
    os.kill(before, signal.SIGKILL)
    part = machine.keeper.parts["muster-runner@web-1"]
    wait_until(lambda: runner_pid(machine) not in (0, before), lambda: machine.log(part.name))
    (tmp_path / "everywhere.yaml").write_text(EVERYWHERE)
    done = machine.muster("run", str(tmp_path / "everywhere.yaml"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert runner_pid(machine) == part.pid


def test_units_may_start_again_and_again(machine: Machine) -> None:
    machine.start("muster-setup")
    os.unlink(machine.configuration / "web-1.token")
    machine.stop("muster-node@web-1")
    machine.start("muster-node@web-1")
    wait_until(lambda: online(machine) == set(NAMES), lambda: machine.log("muster-node@web-1"))
