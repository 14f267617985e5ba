"""Workflows of a case file, stored and begun over the API before the first is looked at: they run side by side."""

from __future__ import annotations

from datetime import datetime
from itertools import accumulate
from typing import Any

import pytest
import yaml
from fleet_api import Answer
from fleet_processes import ROOT
from running import Running
from waiting import wait_until

from app.engine.status import EXECUTION_OVER

CASES: dict[str, list[dict[str, Any]]] = yaml.safe_load(
    (ROOT / "tests" / "cases" / "acceptance" / "s4.yaml").read_text()
)
LONG = 60.0
"""Seconds: what is begun beside many others ends within these on a busy machine."""

MEASURED = [
    {
        "name": "a",
        "action": "core.shell",
        "input": {"command": "exit 1"},
        "retry": {"count": 2},
        "on_failure": "b",
    },
    {"name": "b", "action": "core.shell", "input": {"command": "sleep 0.3"}, "on_success": "c"},
    {"name": "c", "action": "core.noop"},
]
"""Tasks of which one is tried three times, and one takes 0.3 seconds."""


def of(*rows: str) -> pytest.MarkDecorator:
    """A test for each case of these rows of the requirements."""
    found = [case for case in CASES["runs"] if case["row"] in rows]
    assert {case["row"] for case in found} == set(rows)
    return pytest.mark.parametrize("case", found, ids=lambda case: str(case["name"]))


def each(name: str) -> pytest.MarkDecorator:
    """A test for each case of another list of the file."""
    return pytest.mark.parametrize(
        "case", CASES[name], ids=lambda case: str(case.get("name", case.get("given")))
    )


def over(running: Running, id: str) -> dict[str, Any]:
    """The execution once it is over."""
    return wait_until(
        lambda: (found := running.execution(id))["status"] in EXECUTION_OVER and found,
        lambda: (running.execution(id), running.units(id)),
    )


def statuses(running: Running, id: str) -> dict[str, str]:
    """Tasks with their statuses."""
    return {node["name"]: node["status"] for node in graph(running, id)["nodes"]}


def seconds(shown: dict[str, Any], since: str, until: str) -> float:
    """Between two moments of what the API shows."""
    begin, end = (datetime.fromisoformat(shown[key]).timestamp() for key in (since, until))
    return end - begin


def graph(running: Running, id: str) -> dict[str, Any]:
    found: dict[str, Any] = running.get(f"/workflow-executions/{id}/graph").data
    return found


def log(running: Running, id: str) -> list[dict[str, Any]]:
    """What came of the events of an execution, in order."""
    events = running.get(f"/workflow-executions/{id}/events?limit=1000").data["items"]
    return [line for event in events for line in event["log"]]


def question(running: Running, id: str) -> list[dict[str, Any]]:
    """The open questions of an execution, once there is one."""

    def found() -> list[dict[str, Any]]:
        inbox = running.get("/automation/approvals?status=pending&limit=200").data["items"]
        return [one for one in inbox if one["execution"] == id]

    return wait_until(found, lambda: running.execution(id))


class Begun:
    """The executions of `runs`, by the names of their cases."""

    def __init__(self, running: Running) -> None:
        self.running = running
        for text in CASES["library"]:
            stored = running.post("/packs/acceptance/workflows", {"definition": text}, "author")
            assert stored.status in (200, 201), stored.data
        self._answers = {case["name"]: self._begin(case) for case in CASES["runs"]}

    def id(self, name: str) -> str:
        """The execution of a case."""
        answer = self._answers[name]
        assert answer.status == 201, answer.data
        return str(answer.data["id"])

    def _effects(self, case: dict[str, Any]) -> Any:
        return self.running.effects / case["name"].replace(" ", "-")

    def _begin(self, case: dict[str, Any]) -> Answer:
        parameters = dict(case.get("parameters", {}))
        if "parameters.effects" in case["text"]:
            self._effects(case).touch()
            parameters["effects"] = str(self._effects(case))
        body = {"definition": case["text"], "parameters": parameters}
        return self.running.post("/workflow-executions", body, "author")

    def check(self, case: dict[str, Any]) -> None:
        """One case to its end: everything that it expects, and no task with another status."""
        running, id, expected = self.running, self.id(case["name"]), case["expect"]
        found = over(running, id)
        told = {"status": found["status"], "degraded": found["degraded"], "tasks": statuses(running, id)}
        assert told == {
            "status": expected.get("status", "completed"),
            "degraded": expected.get("degraded", False),
            "tasks": {**dict.fromkeys(told["tasks"], "succeeded"), **expected.get("tasks", {})},
        }, running.units(id)
        for given, key in (("vars", "variables"), ("output", "output")):
            if given in expected:
                assert found[key] == expected[given]
        assert found["error_type"] == expected.get("error_type", "")
        self._check_units(running.units(id), expected)
        self._check_ran(case)
        if "waits" in expected:
            assert [line["wait"] for line in log(running, id) if line["what"] == "retry"] == expected["waits"]
            assert seconds(found, "started_at", "ended_at") >= sum(expected["waits"])
        nodes = {node["name"]: node for node in graph(running, id)["nodes"]}
        for task, others in expected.get("behind", {}).items():
            assert max(nodes[other]["ended_at"] for other in others) <= nodes[task]["started_at"]

    def _check_units(self, rows: list[dict[str, Any]], expected: dict[str, Any]) -> None:
        for task, error in expected.get("errors", {}).items():
            assert [row["error"]["type"] for row in rows if row["task"] == task] == [error], rows
        for task, columns in expected.get("units", {}).items():
            mine = [row for row in rows if row["task"] == task]
            found = {
                name: [(row["result"] or {}).get(name, row.get(name)) for row in mine] for name in columns
            }
            assert found == columns

    def _check_ran(self, case: dict[str, Any]) -> None:
        expected = case["expect"]
        file = self._effects(case)
        lines = file.read_text().splitlines() if file.exists() else []
        if "in_flight" in expected:
            assert max(accumulate(1 if line == "+" else -1 for line in lines)) == expected["in_flight"]
        if expected.get("any_order"):
            lines.sort()
        assert lines == expected.get("ran", [])


def descendants(running: Running, id: str) -> list[str]:
    """Executions that an execution called, and those that they called."""
    found = running.execution(id)["children"]
    return [*found, *(below for child in found for below in descendants(running, child))]
