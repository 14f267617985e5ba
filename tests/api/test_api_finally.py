"""An execution that failed only in `finally` is tried again there, and nowhere else (semantics R1)."""

from __future__ import annotations

from typing import Any

from api_world import World

WORKFLOW = """
tasks:
  - {name: a, action: core.shell, input: {command: [a]}, publish: [{made: "{{ task.a.result.stdout }}"}]}
finally:
  - {name: f1, action: core.shell, input: {command: [f1]}, publish: [{first: one}]}
  - {name: f2, action: core.shell, input: {command: [f2]}}
  - {name: f3, action: core.shell, input: {command: [f3]}}
"""


def play(world: World, execution: str, **fates: str) -> list[str]:
    """Ends one job after another until none is open: as `fates` say, else well. The tasks that ran."""
    ran = []
    while open_ := world.open_jobs(execution):
        (job,) = open_
        task = job.split(".")[1]
        ran.append(task)
        status = fates.get(task, "succeeded")
        world.end(execution, job, status=status, stdout=task.encode(), code=int(status != "succeeded"))
    return ran


def retry(world: World, execution: str, **body: Any) -> Any:
    return world.post(f"/workflow-executions/{execution}/retry", body, "operator")


def told(world: World, execution: str) -> tuple[str, str]:
    found = world.get(f"/workflow-executions/{execution}")
    return found["status"], found["error_type"]


def test_only_what_failed_runs_again(world: World) -> None:
    execution = world.run(WORKFLOW)
    assert play(world, execution, f1="failed", f3="failed") == ["a", "f1", "f2", "f3"]
    assert told(world, execution) == ("failed", "finally")
    assert retry(world, execution).status_code == 202
    assert play(world, execution, f3="failed") == ["f1", "f3"]
    assert told(world, execution) == ("failed", "finally")
    assert retry(world, execution).status_code == 202
    assert play(world, execution) == ["f3"]
    assert told(world, execution) == ("completed", "")
    assert world.get(f"/workflow-executions/{execution}")["variables"] == {"made": "a", "first": "one"}
    assert world.get(f"/workflow-executions/{execution}/replay", "operator")["is_same"] is True
    refused = retry(world, execution)
    assert (refused.status_code, refused.get_json()["code"]) == (409, "nothing-to-retry")


def test_all_of_it_runs_again_behind_a_task_that_does(world: World) -> None:
    execution = world.run(WORKFLOW)
    play(world, execution, a="failed", f2="failed")
    assert retry(world, execution).status_code == 202
    assert play(world, execution, f1="failed") == ["a", "f1", "f2", "f3"]
    assert retry(world, execution, **{"from": ["a"]}).status_code == 202
    assert play(world, execution) == ["a", "f1", "f2", "f3"]
    assert told(world, execution)[0] == "completed"


def test_one_that_failed_by_a_transition_is_not_mended_there(world: World) -> None:
    execution = world.run(WORKFLOW.replace("publish: [{made", "on_success: fail, publish: [{made"))
    play(world, execution, f1="failed")
    assert told(world, execution) == ("failed", "fail")
    assert retry(world, execution).get_json()["code"] == "nothing-to-retry"


def test_a_pause_behind_the_last_that_runs_again_holds_nothing(world: World) -> None:
    execution = world.run(WORKFLOW)
    play(world, execution, f1="failed")
    assert retry(world, execution).status_code == 202
    assert world.post(f"/workflow-executions/{execution}/pause", {}, "operator").status_code == 202
    assert play(world, execution) == ["f1"]
    assert told(world, execution) == ("completed", "")
