"""A small pack, `shop`, and what its tests ask of the API."""

from __future__ import annotations

from typing import Any

from api_world import World
from sqlalchemy import select
from werkzeug.test import TestResponse

from app.jobs.build import build_job
from app.store import executions as rows
from app.store.tables import Execution, table

FILES = {
    "pack.yaml": "ref: shop\nlabel: Shop\nversion: '1.10'\nauthor: ada\ntags: [a]\n",
    "config.yaml": (
        "place: {type: string, default: here, enum: [here, there, elsewhere]}\n"
        "limit: {type: integer}\nneeded: {required: true}\n"
        "token: {secret: true}\n"
    ),
    "actions/sell.yaml": (
        "runner: sh\nentry: sell.sh\ndescription: Sells.\ntimeout: 30\nidempotent: true\nok_codes: [0, 3]\n"
        "parameters: {what: {required: true}, count: {type: integer, default: 1, enum: [1, 2]}, list: {type: array}}\n"
        "output: {required: [id]}\n"
    ),
    "actions/sell.sh": 'echo "$what"\n',
    "actions/again.yaml": "runner: workflow\nentry: shop.day\n",
    "workflows/day.yaml": (
        "ref: shop.day\nparameters: {what: {default: tea}}\ntasks:\n"
        "  - {name: a, action: shop.sell, input: {what: '{{ parameters.what }} {{ pack.config.place }}'}}\n"
    ),
    "workflows/night.yaml": "ref: shop.night\ntasks: [{name: a, action: core.noop}]\n",
    "rules/on_push.yaml": "trigger: x\n",
    "sensors/poll.py": "pass\n",
    "tests/day.yaml": "x\n",
}
CONFIG = "/packs/shop/config"


def register(world: World, files: dict[str, Any] | None = None, role: str = "author") -> TestResponse:
    return world.post("/packs", {"files": {**FILES, **(files or {})}}, role)


def without(*paths: str) -> dict[str, str]:
    return {path: text for path, text in FILES.items() if path not in paths}


def configure(world: World, config: dict[str, Any], role: str = "author", tag: str = "") -> TestResponse:
    tag = tag or world.ask("GET", f"/api/v1{CONFIG}").headers["ETag"]
    return world.ask("PUT", f"/api/v1{CONFIG}", role, json={"config": config}, headers={"If-Match": tag})


def job_of(world: World, execution: str) -> Any:
    """What a node would be told of the execution's one job."""
    with world.control.store.read() as connection:
        row = connection.execute(select(table(Execution)).where(table(Execution).c.id == execution)).one()
        plan = rows.plan(connection, row.plan_digest)
        (task,) = rows.load_tasks(connection, execution, ["a"]).values()
        (job,) = rows.load_jobs_of(connection, execution, ["a"]).values()
    settings = world.control.settings
    return build_job(
        execution, plan.tasks["a"], task.input, task.timeout, job, settings, plan=plan, trace_id=""
    )
