"""Seed 001, delegation: S1.2 to S1.6, on nodes that are run by hand, through the command line."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from by_hand import ByHand, health, token, typed
from fleet_processes import ROOT, processes_with
from guide import Example, examples, gist
from running import GUIDE, Running
from waiting import wait_until

pytestmark = [pytest.mark.fleet, pytest.mark.timeout(180)]

CASES = yaml.safe_load((ROOT / "tests" / "cases" / "acceptance" / "s1.yaml").read_text())
DELEGATION = GUIDE.with_name("delegation.md")
ADDRESSES = {"agent-1": "localhost:50051", "agent-2": "localhost:50052"}


class Agents:
    """agent-1 and agent-2, at work."""

    def __init__(self, running: Running) -> None:
        self.running = running
        files = {"agent-1": token(running, "agent-1", "role=agent"), "agent-2": token(running, "agent-2")}
        self.nodes = {
            name: ByHand(
                running,
                name,
                "-p",
                "0",
                "--address",
                ADDRESSES[name],
                "--token-file",
                str(file),
                "--slots",
                "3",
            )
            for name, file in files.items()
        }
        self.told = {name: node.ready() for name, node in self.nodes.items()}

    def close(self) -> None:
        for node in self.nodes.values():
            node.interrupt()
        for node in self.nodes.values():
            assert node.end() == 0
            remove(self.running, node.name)


def remove(running: Running, name: str) -> None:
    """The other rows are to meet the fleet that they know."""
    done = running.muster("node", "remove", name, role="admin")
    assert done.returncode == 0, done.stderr


def command_line(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()


@pytest.fixture(scope="module")
def agents(running: Running) -> Iterator[Agents]:
    found = Agents(running)
    yield found
    found.close()


def of(row: str) -> pytest.MarkDecorator:
    """A test for each placement of a row."""
    found = [case for case in CASES["placements"] if case["row"] == row]
    assert found
    return pytest.mark.parametrize("case", found, ids=lambda case: str(case["name"]))


def run(running: Running, text: str) -> tuple[subprocess.CompletedProcess[str], list[dict[str, Any]]]:
    """A workflow run from a file by the command line, and the rows of its jobs."""
    file = running.directory / "s1.yaml"
    file.write_text(text)
    done = running.muster("run", str(file), "--json")
    assert done.stdout, done.stderr
    return done, running.units(json.loads(done.stdout)["id"])


def check(agents: Agents, case: dict[str, Any]) -> None:
    done, rows = run(agents.running, case["text"])
    if "errors" in case:
        assert done.returncode == 1
        for task, (kind, *parts) in case["errors"].items():
            (error,) = [row["error"] for row in rows if row["task"] == task]
            assert (error["type"], [part for part in parts if part not in error["message"]]) == (kind, [])
        return
    assert done.returncode == 0, done.stderr
    ran = {(row["task"], row["node"]) for row in rows if row["node"]}
    assert ran == set(case["nodes"].items())


# S1.2, S1.3, S1.4: where tasks run


@of("S1.2")
def test_S1_02_a_group_s_place_is_inherited(agents: Agents, case: dict[str, Any]) -> None:
    check(agents, case)


@of("S1.3")
def test_S1_03_the_innermost_place_wins(agents: Agents, case: dict[str, Any]) -> None:
    check(agents, case)


@of("S1.4")
def test_S1_04_without_a_place_a_task_is_local(agents: Agents, case: dict[str, Any]) -> None:
    check(agents, case)


@pytest.mark.parametrize("example", examples(DELEGATION), ids=lambda example: example.ref)
def test_S1_02_the_seed_s_examples_do_what_the_guide_shows(agents: Agents, example: Example) -> None:
    running = agents.running
    done = running.muster("run", str(ROOT / "docs" / "examples" / f"{example.ref.partition('.')[2]}.yaml"))
    assert done.returncode == 0, done.stderr
    assert gist(done.stdout) == gist(example.shown)


@pytest.mark.parametrize("example", examples(DELEGATION), ids=lambda example: example.ref)
def test_S1_02_the_guide_shows_the_examples(example: Example) -> None:
    file = ROOT / "docs" / "examples" / f"{example.ref.partition('.')[2]}.yaml"
    assert example.source == file.read_text()


@pytest.mark.parametrize("case", CASES["refused"], ids=lambda case: str(case["name"]))
def test_S1_03_a_place_that_is_none_is_a_problem_with_its_line(
    running: Running, case: dict[str, Any]
) -> None:
    file = running.directory / "refused.yaml"
    file.write_text(
        "tasks:\n"
        "  - name: one\n"
        "    action: core.shell\n"
        f"    delegate_to: {case['place']}\n"
        "    input: {command: echo}\n"
    )
    done = running.muster("validate", str(file))
    assert done.returncode == 2
    assert "refused.yaml:4:" in done.stdout + done.stderr
    assert case["says"] in done.stdout + done.stderr


# S1.5: a node by hand


def test_S1_05_it_says_where_it_is_and_how_it_is(agents: Agents) -> None:
    for name, told in agents.told.items():
        assert (told["node"], told["address"], told["slots"]) == (name, ADDRESSES[name], "3")
        status, found = health(told["health"])
        age = found.pop("heartbeat_age")
        assert 0 <= age < 10
        parts = dict.fromkeys(("worker", "broker", "runner", "journal"), True)
        facts = {"status": "ok", "failing": [], "node": name, "address": ADDRESSES[name], **parts}
        assert (status, found) == (200, facts)
        shown = agents.running.get(f"/nodes/{name}").data
        assert (shown["address"], shown["slots"], shown["online"]) == (ADDRESSES[name], 3, True)


def test_S1_05_its_health_port_has_no_time_for_the_idle_and_the_strange(agents: Agents) -> None:
    place = urlsplit(agents.told["agent-1"]["health"])
    where = (str(place.hostname), int(place.port or 0))
    asked = {
        b"GET /other HTTP/1.1": b"404",
        b"POST /healthz HTTP/1.1": b"405",
        b"GET /healthz?x HTTP/1.1": b"200",
        b"\x16\x03\x01": b"400",
    }
    for line, status in asked.items():
        with socket.create_connection(where, timeout=10) as sock:
            sock.sendall(line + b"\r\n\r\n")
            assert sock.recv(4096).split(b" ")[1] == status
    with socket.create_connection(where, timeout=10) as silent:
        with socket.create_connection(where, timeout=10) as flood, suppress(OSError):
            flood.sendall(b"GET /healthz HTTP/1.1\r\n" + b"x" * 20_000)
            assert flood.recv(1) == b""
        assert health(agents.told["agent-1"]["health"])[0] == 200
        began = time.monotonic()
        assert silent.recv(1) == b""
        assert time.monotonic() - began < 60


def test_S1_05_a_worker_that_is_gone_is_seen_and_started_again(agents: Agents) -> None:
    told = agents.told["agent-2"]
    (worker,) = [pid for pid in processes_with(told["dir"]) if "workers.node" in command_line(pid)]
    os.kill(worker, signal.SIGSTOP)
    try:
        # Heartbeats come every second, and three may be missing.
        wait_until(lambda: health(told["health"])[1]["failing"] == ["heartbeat"])
        assert health(told["health"])[0] == 503
    finally:
        os.kill(worker, signal.SIGKILL)
    wait_until(lambda: "it is started again" in agents.nodes["agent-2"].said())
    wait_until(lambda: health(told["health"])[0] == 200)


def test_S1_05_the_port_is_50051_unless_it_is_said_and_a_taken_one_is_told(agents: Agents) -> None:
    running = agents.running
    told = typed(running, "--help").stdout
    assert "50051" in told.partition("--port")[2].partition("--bind")[0]
    taken = str(urlsplit(agents.told["agent-1"]["health"]).port)
    done = typed(running, "--name", "agent-1", "--port", taken)
    assert done.returncode == 2
    assert f"127.0.0.1:{taken} cannot be listened on" in done.stderr
    again = typed(running, "--name", "agent-1", "--port", "0")
    assert again.returncode == 5
    assert "another `muster node start`" in again.stderr


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("--name", "agent-7"), 4, "muster node start --name agent-7 --token-file agent-7.token"),
        (("--name", "Agent"), 2, "cannot be a node's name"),
        (("--name", "local"), 5, "control side's own node"),
        (("--name", "agent-1", "--port", "0", "--address", "nowhere"), 2, "is not HOST:PORT"),
        (("--name", "agent-1", "--port", "0", "--address", "web-1:70000"), 2, "is not HOST:PORT"),
        (("--name", "agent-7", "--token", "x", "--token-file", "y"), 2, "one of --token and --token-file"),
        (("--name", "agent-7", "--token", "mse_wrong"), 3, "muster node token"),
    ],
    ids=["not enrolled", "no name", "local", "no port", "too high a port", "two tokens", "a wrong token"],
)
def test_S1_05_what_cannot_be_started_says_what_to_do(
    agents: Agents, words: tuple[str, ...], code: int, says: str
) -> None:
    done = typed(agents.running, *words)
    assert done.returncode == code, done.stderr
    assert says in done.stderr


def test_S1_05_two_nodes_with_one_address_are_both_named(agents: Agents) -> None:
    running = agents.running
    place = ("-p", "0", "--address", ADDRESSES["agent-1"])
    other = ByHand(running, "agent-3", *place, "--token-file", str(token(running, "agent-3")))
    try:
        other.ready()
        wait_until(lambda: running.get("/nodes/agent-3").data["address"] == ADDRESSES["agent-1"])
        text = "tasks: [{name: one, action: core.noop, on_success: two}, {name: two, action: core.shell, "
        text += 'delegate_to: {address: "localhost:50051"}, input: {command: echo}}]'
        wait_until(lambda: run(running, text)[1][-1]["error"])
        error = run(running, text)[1][-1]["error"]
        assert error["type"] == "ambiguous_node"
        assert "agent-1, agent-3" in error["message"]
    finally:
        other.interrupt()
        assert other.end() == 0
    remove(running, "agent-3")
    done, rows = run(running, text)
    assert (done.returncode, rows[-1]["node"]) == (0, "agent-1")


def begin_and_wait(running: Running, node: str, command: str) -> str:
    """An execution whose one script runs on a node."""
    task = {"name": "one", "action": "core.shell", "delegate_to": node, "input": {"command": command}}
    id = str(running.begin(task)["id"])
    wait_until(lambda: running.units(id)[0]["status"] == "running", lambda: running.units(id))
    return id


@pytest.mark.long
def test_S1_05_ctrl_c_lets_scripts_end_and_again_cancels_them(running: Running) -> None:
    file = str(token(running, "agent-4"))
    gate = running.effects / "agent-4.gate"
    node = ByHand(running, "agent-4", "-p", "0", "--token-file", file)
    directory = node.ready()["dir"]
    first = begin_and_wait(running, "agent-4", f"until test -e {gate}; do sleep 0.05; done; echo whole")
    node.interrupt()
    wait_until(lambda: "scripts that run: 1" in node.said())
    # It takes no more: control is told at once that it has no slots.
    wait_until(lambda: running.get("/nodes/agent-4").data["slots"] == 0)
    late = str(
        running.begin(
            {
                "name": "one",
                "action": "core.shell",
                "delegate_to": "agent-4",
                "input": {"command": "echo late"},
            }
        )["id"]
    )
    gate.touch()
    assert node.end() == 0
    found = wait_until(lambda: (found := running.execution(first))["status"] == "completed" and found)
    assert found["output"]["one"]["stdout"] == "whole"
    assert list(processes_with(directory)) == []
    # What came too late waits for the node, and a script is cancelled by the second Ctrl-C.
    assert running.units(late)[0]["status"] == "queued"
    node = ByHand(running, "agent-4", "-p", "0")
    node.ready()
    wait_until(lambda: running.execution(late)["status"] == "completed", lambda: running.units(late))
    second = begin_and_wait(running, "agent-4", "sleep 60")
    node.interrupt()
    wait_until(lambda: "scripts that run: 1" in node.said())
    node.interrupt()
    assert node.end() == 0
    wait_until(lambda: running.execution(second)["status"] == "failed", lambda: running.units(second))
    assert running.units(second)[0]["error"]["type"] == "cancelled"
    assert list(processes_with(directory)) == []
    remove(running, "agent-4")


# S1.6: what a task is


def test_S1_06_a_command_is_a_string_or_a_program_that_says_how_it_went(agents: Agents) -> None:
    """The seed's callable returns (ok, message): here a script's exit code and what it writes to $MUSTER_OUTPUT."""
    text = """
ref: acceptance.described
description: A group with described tasks.
tasks:
  - name: group
    description: Two of them.
    type: parallel
    delegate_to: {address: "localhost:50051"}
    tasks:
      - {name: text, description: A string., action: core.shell, input: {command: "echo 'Hello from remote agent!'"}}
      - name: program
        description: A program.
        action: core.script
        input:
          shell: bash
          script: |
            echo "Hello from remote agent!" >&2
            echo '{"message": "Remote task executed."}' > "$MUSTER_OUTPUT"
output_map:
  said: "{{ task.text.result.stdout }}"
  ok: "{{ task.program.result.exit_code == 0 }}"
  message: "{{ task.program.result.message }}"
"""
    running = agents.running
    done, rows = run(running, text)
    assert done.returncode == 0, done.stderr
    assert {row["node"] for row in rows if row["node"]} == {"agent-1"}
    output = json.loads(done.stdout)["output"]
    assert output == {"said": "Hello from remote agent!", "ok": True, "message": "Remote task executed."}
    assert running.post("/packs/acceptance/workflows", {"definition": text}, "author").status == 201
    shown = running.get("/workflows/acceptance.described").data
    assert shown["description"] == "A group with described tasks."
    assert "description: Two of them." in shown["source"]
