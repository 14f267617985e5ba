"""Seed 000 under strain: a flood of output, scripts that will not end, nodes of which few are well."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from fleet_processes import processes_with
from running import WEB, Running, peak

pytestmark = [pytest.mark.fleet, pytest.mark.timeout(180)]


FLOOD = "yes 0123456789abcdefghijklmnopqrstuvwxyz | head -c 1000000000; touch {gate}"
DRIP = "until [ -e {gate} ]; do date +%s.%N; sleep 0.1; done"


def test_S0_03_a_gigabyte_of_one_node_holds_up_no_other(running: Running) -> None:
    """web-1 writes 1 GB; web-2 and web-3 print the time. Who follows all of them gets their lines at once."""
    gate = running.effects / "flood"
    fleet = [*processes_with(str(running.data))]
    before = peak(fleet)
    flood, drip = (text.format(gate=gate) for text in (FLOOD, DRIP))
    body = {"nodes": list(WEB), "script": f"case $MUSTER_NODE in web-1) {flood};; *) {drip};; esac"}
    id = running.post("/nodes/execute", body).data["id"]
    late: dict[str, list[float]] = {node: [] for node in WEB}
    path = f"/api/v1/workflow-executions/{id}/events?output=1"
    for message in running.stream("GET", path, Accept="text/event-stream"):
        if message.event == "output":
            now = time.time()
            times = re.findall(r"^(\d+\.\d+)$", message.data["text"], re.M)
            late[message.data["node"]] += [now - float(one) for one in times]
    for node in WEB[1:]:
        assert len(late[node]) >= 3, late
        assert max(late[node]) < 5, f"{node}'s lines came late: {late[node]}"
    rows = {row["node"]: row for row in running.units(id)}
    assert {row["status"] for row in rows.values()} == {"succeeded"}
    assert rows["web-1"]["result"]["truncated"]
    after = peak(before)
    grown = {pid: size - before[pid] for pid, size in after.items() if size - before[pid] > 100_000_000}
    assert not grown, "a process held the output in memory"
    runners = [size for pid, size in after.items() if "runner" in words_of(pid)]
    assert len(runners) == 4
    assert max(runners) < 60_000_000


def words_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()


def test_S0_05_nor_is_it_in_a_row_of_many_even_if_the_script_leaves_with_0(running: Running) -> None:
    script = "trap 'exit 0' TERM; while :; do sleep 0.05; done"
    nodes = ["web-1", "web-2"]
    given = {"nodes": nodes, "script": script, "timeout": 0.5}
    task = {"name": "a", "type": "distributed_shell", "input": given}
    found = running.run(task)
    rows = found["output"]["a"]["results"]
    assert [(row["status"], row["exit_code"]) for row in rows] == [("timed_out", None)] * 2
    jobs = running.audit(found["id"])[-1]["detail"]["jobs"]
    assert [(job["status"], job["exit_code"]) for job in jobs] == [("timed_out", None)] * 2


def test_S0_12_many_nodes_make_one_result(running: Running) -> None:
    """One succeeds, one fails, one takes too long, one does not exist; the command line folds what is the same."""
    script = "echo here; case $MUSTER_NODE in web-2) exit 3;; web-3) sleep 60;; esac"
    body = {"nodes": [*WEB, "nowhere"], "allow_unknown": True, "script": script, "timeout": 1}
    id = running.post("/nodes/execute?wait=60", {**body, "max_failures": 2}).data["id"]
    assert running.execution(id)["status"] == "failed"
    assert [(row["node"], row["status"], row["exit_code"]) for row in running.units(id)] == [
        ("web-1", "succeeded", 0),
        ("web-2", "failed", 3),
        ("web-3", "timed_out", None),
        ("nowhere", "failed", None),
    ]
    words = ("--diff", "--shell", "sh", "--", "[ $MUSTER_NODE = web-2 ] || echo same")
    done = running.muster("exec", *WEB, *words, role="operator")
    assert done.returncode == 0, done.stderr
    assert "2 the same, 1 differ" in done.stdout
    assert "--- stdout of web-1, web-3" in done.stdout
