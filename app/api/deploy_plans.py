"""What each job tells its node."""

from __future__ import annotations

from typing import Any

from flask_smorest import Blueprint
from marshmallow import Schema, fields

from app.api import within
from app.api.gate import needs
from app.api.strict import Parser
from app.api.wiring import control, reading
from app.services import deploy_plans as service
from app.services import queries

deploy_plans = Blueprint("deploy_plans", __name__, description="What jobs tell their nodes.")
deploy_plans.ARGUMENTS_PARSER = Parser()


class PlanFileSchema(Schema):
    path = fields.String(metadata={"description": "A name in the job's own directory"})
    content = fields.String()
    mode = fields.Integer()


class PlanCommandSchema(Schema):
    argv = fields.List(fields.String())
    timeout = fields.Float(allow_none=True)
    ignore_errors = fields.Boolean()
    description = fields.String()


class DeployPlanSchema(Schema):
    job = fields.String()
    node = fields.String()
    digest = fields.String()
    files = fields.List(fields.Nested(PlanFileSchema))
    commands = fields.List(fields.Nested(PlanCommandSchema))
    env = fields.Dict(keys=fields.String(), values=fields.String())
    cwd = fields.String(allow_none=True)


@deploy_plans.route("/workflow-executions/<ulid:id>/jobs/<job:job>/plan", methods=["GET"])
@needs("viewer", within.EXECUTION)
@deploy_plans.response(200, DeployPlanSchema)
def read_plan(id: str, job: str) -> Any:
    """The files and commands of a job as its node is told them; secrets by their names."""
    with reading() as connection:
        queries.state(connection, id)
        return service.read(control(), connection, id, job)
