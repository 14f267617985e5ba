"""docker-compose.yml does what it says: its own commands, in its own order, until a workflow ran on all nodes."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from fleet_compose import Containers
from fleet_processes import ROOT, processes_with
from waiting import wait_until

pytestmark = [pytest.mark.long, pytest.mark.fleet, pytest.mark.timeout(300)]

WEB = ["web-1", "web-2", "web-3"]
NODES = {"local", *WEB}
STEPS = ("system", "disk", "memory")
WORKFLOW = """\
ref: tests.everywhere
tasks:
  - name: greet
    type: distributed_shell
    input:
      nodes: {labels: {role: web}}
      script: echo "hello from $MUSTER_NODE"
    on_success: report
  - name: report
    action: core.shell
    input:
      command: echo {{ task.greet.result.succeeded_count }}" machines answered"
"""


@pytest.fixture(scope="module")
def containers() -> Iterator[Containers]:
    with Containers(os.environ.get("MUSTER_TEST_DATABASE_URL", "")) as running:
        wait_until(lambda: online(running) == NODES, lambda: "\n".join(map(running.log, sorted(NODES))))
        yield running


def muster(containers: Containers, *words: str) -> Any:
    """`docker compose exec control muster …`: no URL and no token need be given there."""
    done = containers.run("control", "muster", *words, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def online(containers: Containers) -> set[str]:
    return {one["name"] for one in muster(containers, "node", "list")["items"] if one["online"]}


def heard(containers: Containers, node: str) -> datetime:
    return datetime.fromisoformat(muster(containers, "node", "show", node)["last_seen"])


def test_a_workflow_runs_on_every_node(containers: Containers, tmp_path: Path) -> None:
    (tmp_path / "everywhere.yaml").write_text(WORKFLOW)
    assert containers.is_healthy("api")
    done = containers.run("control", "muster", "run", str(tmp_path / "everywhere.yaml"))
    assert done.returncode == 0, done.stdout + done.stderr
    for node in WEB:
        assert f"hello from {node}" in done.stdout
    assert "3 machines answered" in done.stdout


def test_the_example_of_the_documents(containers: Containers) -> None:
    """With nothing but the standard library: -I leaves every package of ours out, -S the installed ones."""
    client = (containers.volume("control") / "client.env").read_text()
    token = client.partition("MUSTER_TOKEN=")[2].strip()
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(ROOT / "docs" / "examples" / "parallel_fleet_workflow.py"), *WEB],
        env={"MUSTER_URL": containers.url, "MUSTER_TOKEN": token},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    for node, step in zip(WEB, STEPS, strict=True):
        at = lines.index(f"{node}  {step}  succeeded  exit code 0")
        assert lines[at + 1].startswith("    ")
    assert "    I am web-1" in lines
    assert lines[-1] == f"execution {lines[0].split()[1]}: completed"
    began, ended = ([lines.index(f"  {step}: {word}") for step in STEPS] for word in ("running", "succeeded"))
    assert max(began) < min(ended), "they start together"


def test_flower_answers(containers: Containers) -> None:
    known = {"Authorization": f"Basic {base64.b64encode(containers.flower_auth.encode()).decode()}"}

    def status(headers: dict[str, str]) -> int:
        request = urllib.request.Request(f"{containers.flower}/healthcheck", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return int(error.code)
        except OSError:
            return 0

    wait_until(lambda: status(known) == 200, lambda: containers.log("flower"))
    assert status({}) == 401


def test_a_container_has_its_own_secrets_and_no_others(containers: Containers) -> None:
    names = ("control.keys", "node.keys", "client.env", "token")
    found = {
        str(path.relative_to(containers.directory))
        for path in containers.directory.rglob("*")
        if path.name in names
    }
    assert found == {
        "setup/var/lib/muster/control.keys",
        "setup/var/lib/muster/client.env",
        *(f"setup/enrolment/{node}/token" for node in NODES),
        *(f"{node}/var/lib/muster-node/node.keys" for node in NODES),
    }


@pytest.mark.long
def test_a_second_start_changes_nothing(containers: Containers) -> None:
    """`setup` again; then a node whose container ended, worker, runner and all, and whose token is long gone."""
    before = {node: (containers.volume(node) / "node.keys").read_bytes() for node in NODES}
    token = (containers.volume("control") / "client.env").read_text()
    done = containers.run("setup")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("active, nothing to do") == 4
    assert (containers.volume("control") / "client.env").read_text() == token

    (containers.volume("web-1-token") / "token").unlink()
    for pid in list(processes_with(str(containers.root("web-1")))):
        os.kill(pid, signal.SIGKILL)
    ended = datetime.now(UTC)
    wait_until(lambda: heard(containers, "web-1") > ended, lambda: containers.log("web-1"))
    assert "enrolled already: web-1" in containers.log("web-1")
    assert {node: (containers.volume(node) / "node.keys").read_bytes() for node in NODES} == before
    done = containers.run(
        "control", "muster", "run", "config/examples/demo.yaml", "-p", f"directory={containers.directory}/x"
    )
    assert done.returncode == 0, done.stdout + done.stderr
