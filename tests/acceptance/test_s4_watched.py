"""Seed 004, figures, traces, and what is not done twice, row by row: S4.31, S4.32."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from begun import MEASURED, descendants, over, seconds
from desk import Office
from fleet_processes import after
from gates import Gates
from prometheus_client.parser import text_string_to_metric_families
from running import WEB, Running
from waiting import wait_until

from app.compiler.plan import Plan
from app.language import expressions, template_syntax
from app.store import executions as rows

pytestmark = [pytest.mark.fleet, pytest.mark.timeout(180)]

# S4.31

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
Figures = dict[str, float]


def figures(running: Running) -> Figures:
    """What `/metrics` tells, by name and labels; not what beats by itself."""
    found = {
        " ".join((sample.name, *sample.labels.values())): sample.value
        for family in text_string_to_metric_families(running.text("/metrics", root=""))
        for sample in family.samples
    }
    return {
        name: value for name, value in found.items() if not name.startswith(("muster_tick", "muster_settle"))
    }


def at_rest(running: Running) -> Figures:
    """Figures when no process has anything to add to what is counted: they carry it every two seconds."""

    def counted() -> Figures:
        return {
            name: value for name, value in figures(running).items() if "_total" in name or "_count" in name
        }

    def same() -> bool:
        before = counted()
        wait_until(after(2.5))
        return counted() == before

    wait_until(same, counted)
    return figures(running)


def test_S4_31_metrics(running: Running) -> None:
    """Durations of executions and tasks, how they ended, and retries: exactly those of two executions."""
    before = at_rest(running)
    first, second = (
        running.run(*MEASURED),
        running.run({"name": "a", "action": "core.fail", "input": {"message": "no"}}),
    )
    assert (first["status"], second["status"]) == ("completed", "failed")
    expected = {
        "muster_executions_created_total": 2,
        "muster_executions_finished_total completed": 1,
        "muster_executions_finished_total failed": 1,
        "muster_executions completed": 1,
        "muster_executions failed": 1,
        "muster_outcomes_total failed": 3,
        "muster_outcomes_total succeeded": 1,
        "muster_retries_total": 2,
        "muster_execution_duration_seconds_count completed": 1,
        "muster_execution_duration_seconds_count failed": 1,
        "muster_task_duration_seconds_count failed": 2,
        "muster_task_duration_seconds_count succeeded": 2,
    }

    def grown() -> Figures:
        now = figures(running)
        return {
            name: value - before.get(name, 0) for name, value in now.items() if value != before.get(name, 0)
        }

    def counted() -> Figures:
        ours = ("muster_execution", "muster_outcomes", "muster_retries", "muster_task")
        whole = {name: value for name, value in grown().items() if name.startswith(ours)}
        return {name: value for name, value in whole.items() if "_bucket" not in name and "_sum" not in name}

    wait_until(lambda: counted() == expected, counted)
    took = seconds(first, "created_at", "ended_at")
    assert grown()["muster_execution_duration_seconds_sum completed"] == pytest.approx(took, abs=0.01)
    assert took > 0.3
    assert grown()["muster_task_duration_seconds_sum succeeded"] == pytest.approx(0.3, abs=took - 0.3)


def test_S4_31_the_depth_of_a_queue(running: Running) -> None:
    """A node holds twice as many orders as it has slots; what is more waits for it."""
    gate = running.effects / "gate-of-depth"
    slots = running.get("/nodes/web-3").data["slots"]
    units = list(range(2 * slots + 3))
    script = f"until [ -e {gate} ]; do sleep 0.1; done"
    id = running.begin(
        {
            **{"name": "a", "action": "core.shell", "delegate_to": "web-3", "with_items": units},
            "input": {"command": script},
        }
    )["id"]
    wait_until(lambda: figures(running).get("muster_queue_jobs web-3 queued") == 3, lambda: figures(running))
    assert figures(running)["muster_queue_oldest_seconds web-3 queued"] < seconds_since(running, id)
    gate.touch()
    assert over(running, id)["status"] == "completed"
    assert "muster_queue_jobs web-3 queued" not in figures(running)


def seconds_since(running: Running, id: str) -> float:
    created = datetime.fromisoformat(running.execution(id)["created_at"])
    return datetime.now(created.tzinfo).timestamp() - created.timestamp() + 0.001


def test_S4_31_one_trace_through_all_tasks(gates: Gates) -> None:
    """From the caller's traceparent over both executions to the lines of every node that took part."""
    running = gates.running
    gate = running.effects / "gate-of-trace"
    gate.touch()
    body = {"parameters": {"gate": str(gate)}}
    header = f"00-{TRACE}-00f067aa0ba902b7-01"
    begun = running.post("/workflows/acceptance.caller/execute?wait=60", body, traceparent=header)
    assert (begun.data["status"], begun.data["trace_id"]) == ("completed", TRACE)
    (child,) = descendants(running, begun.data["id"])
    assert running.execution(child)["trace_id"] == TRACE
    expected = {
        "node-web-1": ["first"],
        "node-web-2": ["held"],
        "node-web-3": ["last"],
        "node-local": ["tidy"],
    }

    def told() -> dict[str, list[str]]:
        return {name: [line["task"] for line in lines(running, name) if line["job"]] for name in expected}

    wait_until(lambda: told() == expected, told)
    ends = [(line["execution"], line["status"]) for line in lines(running, "control") if line["status"]]
    assert ends == [(child, "completed"), (begun.data["id"], "completed")]


def lines(running: Running, process: str) -> list[dict[str, str]]:
    """What a process logged about our trace: what happened, and the ids that stand there."""
    text = (running.data / "logs" / f"{process}.log").read_text()
    found = []
    for line in text.splitlines():
        if f"trace_id={TRACE}" in line and (" job over " in line or " execution over " in line):
            pairs = dict(word.split("=", 1) for word in line.split() if "=" in word)
            over_ = " execution over " in line
            found.append(
                {
                    "execution": pairs["execution"],
                    "task": pairs.get("task", ""),
                    "job": "" if over_ else pairs["job"],
                    "status": pairs["status"] if over_ else "",
                }
            )
    return found


# S4.32


def test_S4_32_independent_tasks_are_scheduled_at_once(running: Running) -> None:
    """They end only if all three run at the same time, each on its node."""
    place = running.effects / "at-once"
    place.mkdir()
    met = " && ".join(f"[ -e {place}/{node} ]" for node in WEB)
    script = f"touch {place}/$MUSTER_NODE; until {met}; do sleep 0.02; done"
    tasks = [
        {
            "name": f"t{node[-1]}",
            "action": "core.shell",
            "delegate_to": node,
            "timeout": 60,
            "input": {"command": script},
        }
        for node in WEB
    ]
    found = running.run(*tasks)
    assert found["status"] == "completed"
    (begun, *_) = running.get(f"/workflow-executions/{found['id']}/events").data["items"]
    assert [(line["task"], line["status"]) for line in begun["log"]] == [
        (f"t{n}", "running") for n in (1, 2, 3)
    ]


def wide(count: int) -> str:
    return "tasks:\n" + "".join(
        f"  - {{name: t{n}, action: core.echo, input: {{message: x}}}}\n" for n in range(count)
    )


def calls(function: Callable[..., Any], during: Callable[[], Any]) -> int:
    """How often a function is called meanwhile."""
    code = getattr(function, "__func__", function).__code__
    found = 0

    def seen(frame: FrameType, event: str, _: Any) -> None:
        nonlocal found
        found += event == "call" and frame.f_code is code

    before = sys.getprofile()
    sys.setprofile(seen)
    try:
        during()
    finally:
        sys.setprofile(before)
    return found


def test_S4_32_rows_are_written_in_batches(tmp_path: Path) -> None:
    """Ten times as many tasks that start are as many statements."""
    office = Office(tmp_path, ["local"])
    try:
        found = []
        for count in (4, 40):
            with office.statements() as said:
                office.submit(wide(count))
            found.append({name: number for name, number in said.items() if not name.startswith("SELECT")})
        assert found[0] == found[1]
        assert found[0]["INSERT INTO jobs"] == 1
    finally:
        office.store.close()


def test_S4_32_graphs_and_templates_are_read_once(tmp_path: Path) -> None:
    office = Office(tmp_path, ["local"])
    try:
        first = office.submit(wide(20))
        digest = office.execution(first).plan_digest
        assert office.execution(office.submit(wide(20))).plan_digest == digest

        def look() -> None:
            with office.store.read() as connection:
                assert len(rows.plan(connection, digest).tasks) == 20

        assert calls(Plan.from_json, lambda: [look() for _ in range(5)]) <= 1
        assert calls(Plan.from_json, look) == 0
    finally:
        office.store.close()
    text, scope = "of {{ vars.acceptance_of_caches | upper }}", {"vars": {"acceptance_of_caches": "x"}}
    again = [lambda: expressions.render(text, scope)] * 5
    assert [calls(template_syntax.parse, one) for one in again] == [1, 0, 0, 0, 0]
