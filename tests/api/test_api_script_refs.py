"""Workflows that run saved scripts: pinned when they start, as their plan says, with values that were looked at."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import script_shop
from api_world import World
from sqlalchemy import delete, select, update

from app.errors import InvalidInput
from app.jobs.build import build_job
from app.services.run import Run
from app.store import executions as rows
from app.store.tables import Execution, Job, Script, table
from app.transport import deploy, messages

executions, jobs, scripts = table(Execution), table(Job), table(Script)

WORKFLOW = """\
ref: demo.ship
parameters:
  target: {type: string, required: true}
  token: {type: secret}
tasks:
  - name: ship
    action: core.script
    input:
      script_ref: # the newest one
        deploy
      parameters: {target: "{{ parameters.target }}", token: "{{ parameters.token }}"}
"""
DECLARED = [
    {"name": "target", "type": "string", "required": True, "pattern": "[a-z/]+"},
    {"name": "share", "type": "float", "required": False, "default": 1e-07},
    {"name": "token", "type": "secret", "required": False},
]


@pytest.fixture
def shop(world: World) -> World:
    script_shop.put(world, "deploy", "echo {{ x }} ${target}\n", DECLARED, shell="bash")
    answer = world.post("/packs/demo/workflows", {"definition": WORKFLOW})
    assert answer.status_code == 201, answer.text
    return world


def execute(world: World, **parameters: Any) -> str:
    answer = world.post("/workflows/demo.ship/execute", {"parameters": parameters}, "operator")
    assert answer.status_code == 201, answer.text
    return str(answer.get_json()["id"])


def job_of(world: World, execution: str) -> messages.Job:
    """What the node would be told to run."""
    with world.control.store.write() as connection:
        run = Run.lock(world.control, connection, execution)
        id_ = connection.execute(select(jobs.c.id).where(jobs.c.execution == execution)).scalar_one()
        run.load_tasks(run.plan.tasks)
        given, timeout = run.input_of("ship")
        job = rows.load_job(connection, id_)
        assert job is not None
        return build_job(
            execution,
            run.plan.tasks["ship"],
            given,
            timeout,
            job,
            world.control.settings,
            plan=run.plan,
            trace_id="0" * 32,
        )


def test_the_script_goes_as_it_was_saved(shop: World) -> None:
    job = job_of(shop, execute(shop, target="srv", token="hunter2-hunter2"))
    assert job.files == deploy.of_script("bash", "echo {{ x }} ${target}\n", 60.0).files
    assert job.action == "script.deploy"
    assert (job.env["target"], job.env["share"]) == ("srv", "0.0000001")
    assert "hunter2" not in str(job)
    assert "parameter:token" in job.env["token"]


def test_a_value_that_a_template_gave_is_looked_at(shop: World) -> None:
    with pytest.raises(InvalidInput, match="does not match its pattern"):
        job_of(shop, execute(shop, target="; reboot"))


def test_a_secret_goes_into_a_secret_parameter_only(shop: World) -> None:
    wrong = WORKFLOW.replace('target: "{{ parameters.target }}"', 'target: "{{ parameters.token }}"')
    assert shop.post("/packs/demo/workflows", {"definition": wrong}).status_code == 201
    with pytest.raises(InvalidInput, match="`target` was given a secret"):
        job_of(shop, execute(shop, target="srv", token="hunter2-hunter2"))


def test_the_newest_version_counts_when_it_starts_and_stays(shop: World) -> None:
    first = execute(shop, target="srv")
    script_shop.put(shop, "deploy", "echo two\n", DECLARED, version=2)
    second = execute(shop, target="srv")
    assert job_of(shop, first).files[0].content.startswith("echo {{")
    assert job_of(shop, second).files[0].content == "echo two\n"


@pytest.mark.parametrize(
    ("change", "code"),
    [("delete", "unknown-script"), ("requires_approval", "needs-approval"), ("parameters", "missing-key")],
)
def test_what_no_longer_fits_is_refused(shop: World, change: str, code: str) -> None:
    with shop.control.store.write() as connection:
        if change == "delete":
            connection.execute(delete(scripts))
        elif change == "requires_approval":
            connection.execute(update(scripts).values(requires_approval=True))
    if change == "parameters":
        more = {"name": "more", "type": "string", "required": True}
        script_shop.put(shop, "deploy", "echo two\n", [*DECLARED, more], version=2)
    before = shop.counts()
    answer = shop.post("/workflows/demo.ship/execute", {"parameters": {"target": "a"}}, "operator")
    assert answer.status_code == 422, answer.text
    assert code in {one["code"] for one in answer.get_json()["errors"]}
    assert shop.counts() == before


def test_a_name_that_is_none_has_a_hint(shop: World) -> None:
    wrong = WORKFLOW.replace("deploy\n", "deplyo\n")
    answer = shop.post("/packs/demo/workflows", {"definition": wrong})
    problem = answer.get_json()["errors"][0]
    assert (answer.status_code, problem["code"]) == (422, "unknown-script")
    assert problem["hint"] == "did you mean `deploy`?"


def test_an_inline_workflow_may_run_what_was_saved(shop: World) -> None:
    """As it may run actions of packs: who saved it said what runs."""
    object.__setattr__(shop.control, "settings", replace(shop.control.settings, allowlist_mode="enforce"))
    definition = (
        "tasks: [{name: a, action: core.script, input: {script_ref: deploy, parameters: {target: a}}}]"
    )
    answer = shop.post("/workflow-executions", {"definition": definition}, "author")
    assert answer.status_code == 201, answer.text
    refused = definition.replace("script_ref: deploy, parameters: {target: a}", "script: echo hi")
    assert shop.post("/workflow-executions", {"definition": refused}, "author").status_code == 403
