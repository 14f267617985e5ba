"""Seed 000, the remote shell of the fleet, row by row as its users meet it (S0.1 to S0.13 of the requirements)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from fleet_processes import ROOT, processes_with
from guide import examples, gist, section
from running import GUIDE, WEB, Running
from waiting import wait_until

pytestmark = [pytest.mark.fleet, pytest.mark.timeout(180)]

EXAMPLE = ROOT / "docs" / "examples" / "parallel_fleet_workflow.py"
CASES = yaml.safe_load((ROOT / "tests" / "cases" / "acceptance" / "commands.yaml").read_text())
LIVE = "/api/v1/nodes/web-1/execute"


def meeting(place: Path, *names: str) -> str:
    """A script that ends only if all who are named run it at the same time."""
    everybody = " && ".join(f"[ -e {place}/{name} ]" for name in names)
    return f"touch {place}/$MUSTER_NODE; until {everybody}; do sleep 0.02; done; echo $MUSTER_NODE met"


# S0.1


@pytest.mark.parametrize("case", CASES["runs"], ids=lambda case: case["name"])
def test_S0_01_a_command_or_a_script_runs(running: Running, case: dict[str, Any]) -> None:
    answer = running.execute("web-1", **case["body"])
    assert (answer.status, answer.data["status"]) == (200, case.get("status", "succeeded")), answer.data
    assert answer.data["stdout"] == case["stdout"]


@pytest.mark.parametrize("case", CASES["refused"], ids=lambda case: case["name"])
def test_S0_01_anything_else_is_422_with_its_place(running: Running, case: dict[str, Any]) -> None:
    before = running.get("/workflow-executions?limit=1").data["items"]
    answer = running.execute("web-1", **case["body"])
    assert (answer.status, answer.headers["Content-Type"]) == (422, "application/problem+json")
    assert case["pointer"] in {one["pointer"] for one in answer.data["errors"]}, answer.data
    assert running.get("/workflow-executions?limit=1").data["items"] == before


# S0.2


def test_S0_02_the_node_that_is_named_runs_it(running: Running) -> None:
    for node in WEB:
        answer = running.execute(node, script='echo "$MUSTER_NODE"')
        assert (answer.data["node_id"], answer.data["stdout"]) == (node, f"{node}\n")


def test_S0_02_404_for_no_node_and_409_for_one_that_is_not_there(running: Running) -> None:
    answer = running.execute("nowhere", command=["true"])
    assert (answer.status, answer.data["code"]) == (404, "unknown-node")
    running.post("/nodes/web-3/drain", {"drain": True})
    answer = running.execute("web-3", command=["true"])
    assert (answer.status, answer.data["code"]) == (409, "node-draining")
    running.post("/nodes/web-3/drain", {"drain": False})
    running.enrol("gone-1", label="role=gone")
    running.kill("gone-1")
    wait_until(lambda: "gone-1" not in running.online())
    answer = running.execute("gone-1", command=["true"])
    assert (answer.status, answer.data["code"]) == (409, "node-offline")
    assert "hint" in answer.data
    assert running.muster("exec", "gone-1", "--", "true", role="operator").returncode == 5


# S0.3


def test_S0_03_both_outputs_come_apart_while_it_runs_and_a_broken_stream_goes_on(running: Running) -> None:
    gates = [running.effects / name for name in ("stream-1", "stream-2")]
    waits = [f"while [ ! -e {gate} ]; do sleep 0.02; done" for gate in gates]
    script = f"echo one; echo oh >&2; {waits[0]}; echo two; echo no >&2; {waits[1]}; echo three"
    stream = running.stream("POST", LIVE, {"script": script, "stream_output": True})
    told = [next(stream) for _ in range(3)]
    begun = {("started", None), ("stdout", "one\n"), ("stderr", "oh\n")}
    assert {(one.event, one.data.get("text")) for one in told} == begun
    gates[0].touch()
    last = next(stream)
    stream.close()  # type: ignore[attr-defined]
    gates[1].touch()
    headers = {"Accept": "text/event-stream", "Last-Event-ID": last.id}
    told += [last, *running.stream("GET", told[0].data["resume"], **headers)]
    for name, text in (("stdout", "one\ntwo\nthree\n"), ("stderr", "oh\nno\n")):
        assert "".join(one.data["text"] for one in told if one.event == name) == text
        assert told[-2].data[name] == text
    assert [one.event for one in told[-2:]] == ["result", "end"]
    assert [one.data["seq"] for one in told[:-1]] == list(range(1, len(told)))


# S0.4


def test_S0_04_the_trail_tells_it_before_and_after(running: Running) -> None:
    gate = running.effects / "audit"
    words = ["sh", "-c", f"while [ ! -e {gate} ]; do sleep 0.02; done; exit 3"]
    answer = running.execute("web-2", wait=0, command=words)
    id = answer.data["execution"]
    # Beside it stands that the allowlist, which only watches, would have refused it.
    (told,) = [one for one in running.audit(id) if one["action"] != "execution.check"]
    assert (told["action"], told["outcome"]) == ("execution.submit", "accepted")
    assert (told["person"], told["detail"]["origin"]) == ("operator", "adhoc")
    assert told["detail"]["commands"] == [{"task": "run", "nodes": "web-2", "argv": words}]
    gate.touch()
    found = running.get(f"/nodes/web-2/execute/{id}?wait=30").data
    assert told["at"] <= found["started_at"]
    end = running.audit(id)[-1]
    assert (end["action"], end["person"], end["outcome"]) == ("execution.end", "operator", "failed")
    expected = {"node": "web-2", "task": "run", "attempt": 1, "status": "failed", "exit_code": 3}
    assert end["detail"]["jobs"] == [expected]


# S0.5


def test_S0_05_a_timeout_is_no_exit_code_and_leaves_no_process(running: Running) -> None:
    """The script and its children ignore TERM; one has left for a session of its own."""
    marker = f"acceptance-{os.getpid()}-timeout"
    script = (
        f"export MARKER={marker}; trap '' TERM\n"
        "sh -c 'trap \"\" TERM; sleep 300 & wait' &\n"
        "setsid sh -c 'trap \"\" TERM; sleep 300' &\n"
        "echo begun; wait"
    )
    answer = running.execute("web-1", wait=0, script=script, timeout=1)
    wait_until(lambda: len(list(processes_with(marker))) >= 4, "its processes")
    found = running.get(f"/nodes/web-1/execute/{answer.data['execution']}?wait=30").data
    assert (found["status"], found["exit_code"], found["stdout"]) == ("timed_out", None, "begun\n")
    assert found["error"]["type"] == "timeout"
    wait_until(lambda: not list(processes_with(marker)), "the end of its processes")
    # 143 is what a script may exit with; nothing was ended there.
    assert running.execute("web-1", script="exit 143", timeout=30).data["status"] == "failed"
    done = running.muster("exec", "web-1", "--timeout", "0.2", "--", "sleep", "60", role="operator")
    assert done.returncode == 124


# S0.6


def test_S0_06_what_is_not_on_the_allowlist_is_refused_told_and_never_starts(running: Running) -> None:
    """The list that is shipped, in the mode in which it is shipped."""
    there = running.effects / "refused"
    running.allow("enforce")
    try:
        for body in (
            {"command": ["touch", str(there)]},
            {"command": f"touch {there}"},
            {"script": f"touch {there}", "language": "bash"},
            {"command": ["uptime", f"--x=$(touch {there})"]},
            {"command": ["uptime", "{{ no.template }}"]},
        ):
            answer = running.execute("web-1", **body)
            assert (answer.status, answer.data["code"]) == (403, "not-allowed"), answer.data
            entry = running.audit(action="execution.submit")[-1]
            assert (entry["outcome"], entry["person"]) == ("refused", "operator")
            assert entry["detail"]["commands"][0]["nodes"] == "web-1"
        refused = running.post("/nodes/execute", {"nodes": list(WEB), "script": f"touch {there}"})
        assert (refused.status, refused.data["code"]) == (403, "not-allowed")
        assert running.execute("web-1", role="viewer", command=["uname"]).data["code"] == "role-required"
        done = running.muster("exec", "web-1", "--", "touch", str(there), role="operator")
        assert done.returncode == 3
        assert "no entry is for the program `touch`" in done.stderr
        allowed = running.execute("web-1", command=["uname", "-s", "-r"])
        assert (allowed.status, allowed.data["exit_code"]) == (200, 0)
    finally:
        running.allow("audit")
    assert not there.exists()
    answer = running.execute("web-1", command=["touch", str(there)])
    assert (answer.status, there.exists()) == (200, True)
    checks = [one["outcome"] for one in running.audit(answer.data["execution"]) if "check" in one["action"]]
    assert set(checks) == {"would_refuse"}


# S0.7

KEYS = {"node_id", "exit_code", "stdout", "stderr", "status", "started_at", "completed_at", "truncated"}


def test_S0_07_the_result_has_a_form(running: Running) -> None:
    found = running.execute("web-3", command="echo out; echo err >&2; exit 7").data
    assert found.keys() == KEYS | {"execution", "error"}
    assert (found["node_id"], found["exit_code"], found["status"]) == ("web-3", 7, "failed")
    assert (found["stdout"], found["stderr"], found["truncated"]) == ("out\n", "err\n", False)
    assert found["started_at"] <= found["completed_at"]
    assert found["error"] == {"type": "exit", "message": "exit code 7"}
    long = running.execute("web-3", command="head -c 3000000 /dev/zero | tr '\\0' x").data
    assert (long["exit_code"], long["truncated"], len(long["stdout"]) <= 1 << 20) == (0, True, True)
    told = running.muster("exec", "web-3", "--json", "--", "true", role="operator")
    assert json.loads(told.stdout).keys() == found.keys()


# S0.8


@pytest.mark.parametrize(
    "kind",
    [{"type": "distributed_shell"}, {"action": "core.distributed_shell"}],
    ids=lambda kind: next(iter(kind)),
)
def test_S0_08_a_step_of_a_workflow_runs_a_script_on_nodes(running: Running, kind: dict[str, str]) -> None:
    asked = {"script": 'echo "$MUSTER_NODE"', "nodes": ["web-2", "web-1"], "timeout": 30}
    definition = {"ref": f"acceptance.{next(iter(kind))}", "tasks": [{"name": "a", **kind, "input": asked}]}
    definition["output_map"] = {"a": "{{ task.a.result }}"}
    stored = running.post("/packs/acceptance/workflows", {"definition": definition}, "author")
    assert stored.status == 201, stored.data
    found = running.post(f"/workflows/{stored.data['ref']}/execute?wait=60", {})
    assert found.data["status"] == "completed"
    rows = found.data["output"]["a"]["results"]
    assert [(row["node_id"], row["stdout"]) for row in rows] == [("web-2", "web-2"), ("web-1", "web-1")]


# S0.9


@pytest.mark.long
def test_S0_09_no_ill_node_hides_the_others(running: Running) -> None:
    """dead-1 is killed and still-1 stopped while they run it, bare-1 has no ksh, nowhere is no node."""
    running.enrol("dead-1", "still-1", label="role=ill")
    bare = running.directory / "bare"
    bare.mkdir()
    (bare / "sh").symlink_to("/bin/sh")
    running.enrol("bare-1", label="role=ill", PATH=str(bare))
    begun, gate = running.effects / "begun", running.effects / "go"
    begun.mkdir()
    script = f"touch {begun}/$MUSTER_NODE; until [ -e {gate} ]; do sleep 0.05; done; echo well"
    nodes = ["dead-1", "web-1", "still-1", "bare-1", "web-2", "nowhere", "web-3"]
    task = {"name": "a", "type": "distributed_shell"}
    given = {"nodes": nodes, "shell": "ksh", "script": script, "max_failures": 3}
    id = running.begin({**task, "input": given})["id"]

    def statuses(*of: str) -> list[str]:
        found = {row["node"]: row["status"] for row in running.units(id)}
        return [found[node] for node in of]

    everybody = {*(ill := ("dead-1", "still-1")), *WEB}
    wait_until(lambda: {path.name for path in begun.iterdir()} == everybody, lambda: running.units(id))
    wait_until(lambda: statuses(*ill) == ["running"] * 2, lambda: running.units(id))
    running.kill("dead-1")
    running.signal("still-1", signal.SIGSTOP)
    gate.touch()
    wait_until(lambda: statuses(*WEB) == ["succeeded"] * 3, lambda: running.units(id))
    assert statuses(*ill) == ["running"] * 2
    assert running.execution(id)["status"] == "running"
    wait_until(lambda: running.execution(id)["status"] == "completed", lambda: running.units(id))
    running.signal("still-1", signal.SIGCONT)
    result = running.execution(id)["output"]["a"]
    rows = {row["node_id"]: (row["status"], row["exit_code"], row["stdout"]) for row in result["results"]}
    assert list(rows) == nodes
    assert rows == {
        **dict.fromkeys(WEB, ("succeeded", 0, "well")),
        **dict.fromkeys(("dead-1", "still-1"), ("unknown", None, "")),
        "bare-1": ("skipped", None, ""),
        "nowhere": ("failed", None, ""),
    }
    counts = [result[key] for key in ("succeeded_count", "failed_count", "total_count", "skipped_nodes")]
    assert counts == [3, 3, 7, ["bare-1"]]
    # One that is known to be away is a row as well, and a name alone that nobody has is told.
    away = {**task, "queue_timeout": 0.5, "input": {"nodes": ["dead-1", "web-1"], "script": "echo well"}}
    told = running.run(away)["output"]["a"]["results"]
    assert [(row["status"], (row["error"] or {}).get("type")) for row in told] == [
        ("failed", "node_offline"),
        ("succeeded", None),
    ]
    wait_until(lambda: "still-1" in running.online(), lambda: running.log("still-1"))
    assert running.execute("still-1", command=["true"]).data["status"] == "succeeded"


# S0.10


def test_S0_10_a_parallel_block_holds_fan_outs(running: Running) -> None:
    """Its children meet: they run at the same time, on all of their nodes."""
    place = running.effects / "block"
    place.mkdir()
    shell = {"type": "distributed_shell", "timeout": 60}
    children = [
        {"name": "pair", **shell, "input": {"nodes": ["web-1", "web-2"], "script": meeting(place, *WEB)}},
        {"name": "single", **shell, "input": {"nodes": ["web-3"], "script": meeting(place, *WEB)}},
        {"name": "bad", **shell, "input": {"nodes": ["nowhere", "local"], "script": "echo told"}},
    ]
    block = {"name": "both", "type": "parallel", "tasks": children}
    found = running.run(block)
    assert found["status"] == "failed"
    told = {
        name: [(row["node_id"], row["status"], row["stdout"]) for row in child["results"]]
        for name, child in found["output"]["both"].items()
    }
    assert told == {
        "pair": [("web-1", "succeeded", "web-1 met"), ("web-2", "succeeded", "web-2 met")],
        "single": [("web-3", "succeeded", "web-3 met")],
        "bad": [("nowhere", "failed", ""), ("local", "succeeded", "told")],
    }


# S0.11


def test_S0_11_the_example_prints_what_each_node_answered(running: Running) -> None:
    """With the standard library alone: -I leaves every package of ours out, -S the installed ones."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(EXAMPLE), *WEB],
        env=running.client_environment("author"),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    for node, step in zip(WEB, ("system", "disk", "memory"), strict=True):
        at = lines.index(f"{node}  {step}  succeeded  exit code 0")
        assert lines[at + 1].startswith("    ")
    assert "    I am web-1" in lines
    assert lines[-1].endswith(": completed")


def test_S0_11_the_guide_has_its_sections() -> None:
    shown = [gist(example.shown) for example in examples(GUIDE) if example.shown]
    assert len(shown) >= 4
    assert all(table and "status=completed" in end for table, _, end in shown)
    parallel, reference = (
        section(GUIDE, f"## {name}") for name in ("Parallel Fleet Execution", "Step config reference")
    )
    assert all(text in parallel for text in ("type: distributed_shell", "type: parallel", "muster run"))
    assert all(f"| `{key}` |" in reference for key in ("script", "nodes", "timeout", "batch", "max_failures"))


# S0.12


def test_S0_12_parallel_steps_run_end_to_end_on_their_nodes(running: Running) -> None:
    place = running.effects / "steps"
    place.mkdir()
    steps = [
        {"name": f"on_{node[-1]}", "action": "core.shell", "delegate_to": node, "timeout": 60}
        | {"input": {"script": meeting(place, *WEB[:2])}}
        for node in WEB[:2]
    ]
    block = {"name": "steps", "type": "parallel", "tasks": steps, "on_success": "after"}
    said = "{{ task.steps.result.on_1.stdout }}, {{ task.on_2.result.stdout }}"
    after = {"name": "after", "action": "core.echo", "input": {"message": said}}
    found = running.run(block, after)
    assert found["status"] == "completed"
    assert found["output"]["after"]["stdout"] == "web-1 met, web-2 met"


# S0.13


def test_S0_13_a_node_comes_rests_and_goes(running: Running) -> None:
    running.enrol("web-5", label="role=passing")
    node = running.get("/nodes/web-5").data
    assert (node["online"], node["state"], node["labels"]) == (True, "active", {"role": "passing"})
    assert {"sh", "python"} <= set(node["shells"])
    assert (node["enrolled_by"], node["open_jobs"]) == ("admin", 0)
    gate = running.effects / "rest"
    held = running.execute("web-5", wait=0, script=f"until [ -e {gate} ]; do sleep 0.02; done; echo done")
    work = f"/nodes/web-5/execute/{held.data['execution']}"
    wait_until(lambda: running.get(work).data["status"] == "running")
    # drained: what runs goes on, nothing new comes
    assert running.post("/nodes/web-5/drain", {"drain": True}).data["state"] == "draining"
    assert running.execute("web-5", command=["true"]).data["code"] == "node-draining"
    labels = {"labels": {"role": "passing"}, "command": ["true"]}
    assert running.post("/nodes/execute", labels).data["code"] == "no-nodes"
    refused = running.ask("DELETE", "/api/v1/nodes/web-5", role="admin")
    assert (refused.status, running.ask("DELETE", "/api/v1/nodes/web-5").status) == (409, 403)
    gate.touch()
    assert running.get(f"{work}?wait=30").data["stdout"] == "done\n"
    assert running.post("/nodes/web-5/drain", {"drain": False}).data["state"] == "active"
    assert running.post("/nodes/execute?wait=30", labels).data["status"] == "completed"
    # removed: nothing that it says counts, and a token that was used makes no other node
    assert running.ask("DELETE", "/api/v1/nodes/web-5", role="admin").status == 204
    assert running.get("/nodes/web-5").status == 404
    assert running.execute("web-5", command=["true"]).status == 404
    assert "web-5" not in running.online()
    used = str(running.directory / "web-5.token")
    place = ("--token-file", used, "--dir", str(running.directory / "thief"))
    again = running.muster("node", "enroll", "web-5", "--url", running.url, *place)
    assert again.returncode != 0
    assert "not valid" in again.stderr
    trail = [(one["action"].removeprefix("node."), one["outcome"]) for one in running.audit("web-5")]
    assert trail == [
        ("token", "accepted"),
        ("enroll", "accepted"),
        ("drain", "accepted"),
        ("remove", "refused"),
        ("undrain", "accepted"),
        ("remove", "accepted"),
    ]
