"""What a job tells its node, as people may see it."""

from __future__ import annotations

from typing import Any

import pytest
from api_world import FANOUT, World
from sqlalchemy import update

from app.compiler.plan import IO
from app.store.tables import Job, table

jobs = table(Job)

SCRIPT = """
parameters: {target: {type: string}, token: {type: secret}}
tasks:
  - name: a
    action: core.script
    timeout: 30
    input:
      shell: bash
      env: {TARGET: "{{ parameters.target }}", TOKEN: "{{ parameters.token }}"}
      script: |
        du -sh "$TARGET"
"""
PROGRAM = """
tasks:
  - {name: a, action: core.shell, input: {command: [df, -h]}}
"""


def plan(world: World, execution: str, job: str) -> Any:
    return world.get(f"/workflow-executions/{execution}/jobs/{job}/plan")


def test_the_plan_of_a_script(world: World) -> None:
    execution = world.run(SCRIPT, target="/var/www; reboot", token="s3cret")
    (job,) = world.open_jobs(execution)
    found = plan(world, execution, job)
    assert found["files"] == [{"path": "script", "content": 'du -sh "$TARGET"\n', "mode": 0o700}]
    assert found["commands"] == [
        {
            "argv": ["bash", "script"],
            "timeout": 30.0,
            "ignore_errors": False,
            "description": "run the script by bash",
        },
        {
            "argv": ["rm", "-f", "script"],
            "timeout": 10.0,
            "ignore_errors": True,
            "description": "remove the script",
        },
    ]
    assert found["env"] == {"TARGET": "/var/www; reboot", "TOKEN": "secretref:parameter:token"}
    assert (found["job"], found["node"], found["cwd"]) == (job, "local", None)
    assert len(found["digest"]) == 64


def test_the_plan_of_a_program(world: World) -> None:
    execution = world.run(PROGRAM)
    (job,) = world.open_jobs(execution)
    found = plan(world, execution, job)
    assert (found["files"], [one["argv"] for one in found["commands"]]) == ([], [["df", "-h"]])


def test_every_node_of_a_fan_out_has_one(world: World) -> None:
    for name in ("web-1", "web-2", "web-3"):
        world.add_node(name)
    execution = world.run(FANOUT)
    found = [plan(world, execution, job) for job in world.open_jobs(execution)]
    assert len({one["node"] for one in found}) == len(found) > 1
    assert all(one["commands"][0]["argv"] == ["uptime"] for one in found)


@pytest.mark.parametrize("job", ["nothing", "01ARZ3NDEKTSV4RRFFQ69G5FAV.a.0.1"])
def test_no_such_job(world: World, job: str) -> None:
    execution = world.run(PROGRAM)
    answer = world.ask("GET", f"/api/v1/workflow-executions/{execution}/jobs/{job}/plan")
    assert (answer.status_code, answer.get_json()["code"]) == (404, "unknown-job")
    # A job of another execution is not this one's.
    other = world.run(PROGRAM)
    (theirs,) = world.open_jobs(other)
    answer = world.ask("GET", f"/api/v1/workflow-executions/{execution}/jobs/{theirs}/plan")
    assert answer.status_code == 404


def test_a_call_has_none(world: World) -> None:
    execution = world.run(PROGRAM)
    (job,) = world.open_jobs(execution)
    with world.control.store.write() as connection:
        connection.execute(update(jobs).where(jobs.c.id == job).values(node=IO))
    answer = world.ask("GET", f"/api/v1/workflow-executions/{execution}/jobs/{job}/plan")
    assert (answer.status_code, answer.get_json()["code"]) == (404, "no-plan")
