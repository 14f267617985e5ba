"""Seed 004 as it must be shown: deployments end to end on three nodes, whatever fails, and whatever people do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from begun import graph, over, question, statuses
from fleet_processes import ROOT, after
from running import WEB, Running
from stubs import install
from waiting import wait_until

pytestmark = [pytest.mark.fleet, pytest.mark.timeout(180)]

CASES = yaml.safe_load((ROOT / "tests" / "cases" / "acceptance" / "deploy.yaml").read_text())
EXAMPLE = (ROOT / "docs" / "examples" / "deploy-workflow.yaml").read_text()
LOCKED = EXAMPLE.replace("examples.deploy", "examples.locked").replace(
    "output_map:",
    "finally:\n  - {name: unlock, action: core.shell, input: {command: install-image unlocked}}\noutput_map:",
)
HASTY = EXAMPLE.replace("examples.deploy", "examples.hasty").replace("expires_in: 3600", "expires_in: 1")


class Stage:
    """The programs are on the nodes, ada and bob are there, and every case that has only to be watched is begun."""

    def __init__(self, running: Running) -> None:
        self.running = running
        self.place = running.effects / "deployments"
        install(running.directory / "shells", self.place)
        for login in ("ada", "bob"):
            made = running.muster("token", "create", login, "--role", "operator", "--json", role="admin")
            running.tokens[login] = yaml.safe_load(made.stdout)["token"]
        for pack, text in (
            *(("examples", text) for text in (EXAMPLE, LOCKED, HASTY)),
            ("acceptance", CASES["workflow"]),
        ):
            stored = running.post(f"/packs/{pack}/workflows", {"definition": text}, "author")
            assert stored.status == 201, stored.data
        self.example = {case["name"]: self._begin_example(case) for case in CASES["example"]}
        self.seed = {tuple(case["failing"]): self._begin_seed(case["failing"]) for case in CASES["seed"]}

    def _begin_example(self, case: dict[str, Any]) -> str:
        ref = "examples.hasty" if "expires_in" in case else "examples.deploy"
        return self.begin(ref, version=case["version"])

    def _begin_seed(self, failing: list[str]) -> str:
        given = {"app_name": "shop", "version": "1.4", "failing": ",".join(failing)}
        return self.begin("acceptance.deploy_application", **given)

    def begin(self, ref: str, **parameters: Any) -> str:
        begun = self.running.post(f"/workflows/{ref}/execute", {"parameters": parameters})
        assert begun.status == 201, begun.data
        return str(begun.data["id"])

    def say(self, id: str, verb: str, role: str = "ada") -> None:
        """What somebody decides on the one question of an execution."""
        (asked,) = question(self.running, id)
        answer = self.running.post(f"/automation/approvals/{asked['id']}/{verb}", {"reason": "seen"}, role)
        assert answer.status == 200, answer.data

    def file(self, id: str, name: str) -> Path:
        return self.place / f"{id}.{name}"

    def ran(self, id: str) -> list[str]:
        """`TASK NODE` each time that one of the programs ran."""
        return self.file(id, "ran").read_text().splitlines() if self.file(id, "ran").exists() else []

    def order(self, id: str) -> list[str]:
        """The tasks that started, in that order."""
        begun = [node for node in graph(self.running, id)["nodes"] if node["started_at"]]
        return [node["name"] for node in sorted(begun, key=lambda node: (node["started_at"], node["layer"]))]

    def errors(self, id: str) -> dict[str, str]:
        """Tasks that failed or timed out, with the types of their errors."""
        told = self.running.get(f"/workflow-executions/{id}/explain").data["items"]
        return {one["task"]: one["error"]["type"] for one in told if one["status"] in ("failed", "timed_out")}


@pytest.fixture(scope="module")
def stage(running: Running) -> Stage:
    return Stage(running)


@pytest.mark.parametrize("case", CASES["example"], ids=lambda case: case["name"])
def test_the_example_whatever_becomes_of_it(stage: Stage, case: dict[str, Any]) -> None:
    id = stage.example[case["name"]]
    if "ask" in case:
        stage.say(id, case["ask"])
    found = over(stage.running, id)
    assert stage.order(id) == case["order"]
    keys = ("status", "degraded", "output")
    assert {key: found[key] for key in keys} == {key: case[key] for key in keys}
    told = statuses(stage.running, id)
    assert {name for name, status in told.items() if status == "not_reached"} == set(told) - set(
        case["order"]
    )
    assert stage.errors(id) == case.get("errors", {})


@pytest.mark.parametrize("case", CASES["seed"], ids=lambda case: "-".join(case["failing"]) or "nothing")
def test_the_example_of_the_seed_and_what_runs_after_each_failure(stage: Stage, case: dict[str, Any]) -> None:
    """Probe (b). Each task runs once, but for attempts; so does its only notification."""
    id = stage.seed[tuple(case["failing"])]
    found = over(stage.running, id)
    assert [line.split()[0] for line in stage.ran(id)] == case["ran"]
    assert (found["status"], found["degraded"]) == (case["status"], case["degraded"])
    told = statuses(stage.running, id)
    assert {name for name, status in told.items() if status == "not_reached"} == set(told) - set(case["ran"])
    assert {name for name, status in told.items() if status == "failed"} == set(case["failing"])
    rolled_back = "rollback_deployment" in set(case["ran"]) - set(case["failing"])
    assert found["variables"]["rollback_required"] is rolled_back
    reached = "update_deployment_status" in set(case["ran"]) - set(case["failing"])
    assert found["output"] == {
        "deployment_id": None if "create_deployment" in case["failing"] else "d-1",
        "status": "success" if reached else None,
        "deployed_version": "1.4",
    }


def test_the_example_of_the_seed_hands_its_values_on(stage: Stage) -> None:
    id = stage.seed[()]
    over(stage.running, id)
    results = {row["task"]: row["result"] for row in stage.running.units(id)}
    assert results["deploy_containers"]["image"] == "registry/shop:1.4"
    assert results["health_check"]["url"] == "http://shop/health"
    assert results["update_deployment_status"]["id"] == "d-1"
    assert results["notify_success"]["message"] == "✅ Deployed shop v1.4 to dev"
    assert [line.split()[1] for line in stage.ran(id)] == [
        *("web-1", "web-2", "web-3", "web-3", "web-1", "web-1"),
        "local",
    ]


# what people do meanwhile


def test_an_approval_is_for_those_who_are_named_and_not_for_who_asked(stage: Stage) -> None:
    running = stage.running
    begun = running.post("/workflows/examples.deploy/execute", {"parameters": {"version": "1.4"}}, "ada")
    id = begun.data["id"]
    (asked,) = question(running, id)
    assert (asked["prompt"], asked["approvers"]) == ("Deploy app:1.4?", ["ada", "bob"])
    path = f"/automation/approvals/{asked['id']}/approve"
    assert running.post(path, {}, "approver").data["code"] == "not-approver"
    assert running.post(path, {}, "ada").data["code"] == "own-request"
    done = running.muster("approval", "approve", asked["id"], "--reason", "looks fine", role="bob")
    assert done.returncode == 0, done.stderr
    assert over(running, id)["status"] == "completed"
    (row,) = [row for row in running.units(id) if row["task"] == "ask"]
    assert row["result"] == {"outcome": "approved", "decided_by": ["bob"], "reason": "looks fine"}
    assert running.post(path, {}, "bob").data["code"] == "already-decided"


def waiting(stage: Stage, ref: str) -> str:
    """A deployment to all of the nodes that is in the middle of its loop: web-1 is being installed, and waits."""
    id = stage.begin(ref, version="1.4 deploy waits", hosts=list(WEB))
    stage.say(id, "approve")
    wait_until(lambda: "deploy web-1" in stage.ran(id), lambda: stage.running.units(id))
    return id


def deployed(stage: Stage, id: str) -> list[tuple[str, str]]:
    return [(row["node"], row["status"]) for row in stage.running.units(id) if row["task"] == "deploy"]


def test_a_pause_in_mid_loop_holds_the_rest_until_the_resume(stage: Stage) -> None:
    running, id = stage.running, waiting(stage, "examples.deploy")
    assert running.muster("execution", "pause", id, "--reason", "lunch", role="operator").returncode == 0
    assert running.execution(id)["status"] == "pausing"
    stage.file(id, "go").touch()
    wait_until(lambda: running.execution(id)["status"] == "paused", lambda: running.units(id))
    wait_until(after(1.5))
    assert stage.ran(id) == ["build local", "deploy web-1"]
    assert deployed(stage, id)[0] == ("web-1", "succeeded")
    assert not {status for _, status in deployed(stage, id)[1:]} & {"running", "succeeded"}
    assert running.execution(id)["status"] == "paused"
    assert running.muster("execution", "resume", id, role="operator").returncode == 0
    assert over(running, id)["status"] == "completed"
    assert stage.ran(id) == ["build local", *(f"deploy {node}" for node in WEB), "check local"]
    assert deployed(stage, id) == [(node, "succeeded") for node in WEB]


def test_a_retry_runs_what_failed_and_what_follows_and_nothing_else(stage: Stage) -> None:
    """The file of effects proves it: web-1 is not deployed again, nothing is built again, and nobody is asked again."""
    running, id = stage.running, stage.begin("examples.deploy", version="1.4 deploy fails")
    stage.say(id, "approve")
    first = over(running, id)
    assert (first["status"], first["degraded"]) == ("completed", True)
    before = ["build local", "deploy web-1", "deploy web-2", "rollback local"]
    assert stage.ran(id) == before
    stage.file(id, "mended").touch()
    done = running.muster("execution", "retry", id, "--reason", "made room", role="operator")
    assert done.returncode == 0, done.stderr
    found = over(running, id)
    assert (found["status"], found["degraded"], found["output"]) == ("completed", False, {"image": "app:1.4"})
    assert stage.ran(id) == [*before, "deploy web-2", "check local"]
    tried = [
        (row["node"], row["status"], row["attempt"]) for row in running.units(id) if row["task"] == "deploy"
    ]
    assert tried == [("web-1", "succeeded", 1), ("web-2", "succeeded", 2)]
    told = statuses(running, id)
    assert {name for name, status in told.items() if status == "not_reached"} == {
        *("rollback", "cleanup", "notify_failure"),
    }
    again = running.muster("execution", "retry", id, role="operator")
    assert again.returncode == 5
    assert "nothing" in again.stderr


def test_a_cancel_ends_what_runs_and_only_finally_runs_after_it(stage: Stage) -> None:
    running, id = stage.running, waiting(stage, "examples.locked")
    done = running.muster("execution", "cancel", id, "--reason", "wrong version", role="operator")
    assert done.returncode == 0, done.stderr
    found = over(running, id)
    assert (found["status"], found["intent"]) == ("cancelled", "cancel")
    assert stage.ran(id) == ["build local", "deploy web-1", "unlock local"]
    assert statuses(running, id) == {
        **dict.fromkeys(("build", "ask", "unlock"), "succeeded"),
        "deploy": "cancelled",
        **dict.fromkeys(("check", "rollback", "cleanup", "notify_failure"), "not_reached"),
    }
    assert {status for _, status in deployed(stage, id)} == {"cancelled"}
