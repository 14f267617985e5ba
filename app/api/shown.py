"""What goes out. Moments are ISO 8601 in UTC, with their offset."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from flask_smorest import Api
from marshmallow import Schema, fields

from app.api.shown_approvals import SubjectSchema


class Moment(fields.Field):
    """Unix seconds inside, ISO 8601 outside."""

    def _serialize(self, value: Any, attr: Any, obj: Any, **kwargs: Any) -> str | None:
        return None if value is None else moment(value)


def moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def document(api: Api) -> None:
    """Say the form of our own fields in the OpenAPI document."""
    api.register_field(Moment, "string", "date-time")


class WorkflowSummarySchema(Schema):
    ref = fields.String()
    pack = fields.String(attribute="pack_ref")
    label = fields.String()
    description = fields.String()
    tags = fields.List(fields.String())
    enabled = fields.Boolean()
    version = fields.String()
    revision = fields.Integer()
    parameters = fields.Raw(attribute="param_schema")
    output = fields.Raw(attribute="out_schema", allow_none=True)
    created_at = Moment()
    updated_at = Moment()


class WorkflowSchema(WorkflowSummarySchema):
    author = fields.String()
    source = fields.String()


class WorkflowsSchema(Schema):
    items = fields.List(fields.Nested(WorkflowSummarySchema))
    next_cursor = fields.String(allow_none=True)


class VersionSchema(Schema):
    revision = fields.Integer()
    version = fields.String()
    author = fields.String()
    created_at = Moment()


class VersionsSchema(Schema):
    items = fields.List(fields.Nested(VersionSchema))
    next_cursor = fields.String(allow_none=True)


class ExecutionSummarySchema(Schema):
    id = fields.String()
    workflow = fields.String(attribute="workflow_ref")
    revision = fields.Integer(attribute="workflow_revision", allow_none=True)
    status = fields.String()
    intent = fields.String()
    degraded = fields.Boolean()
    requester = fields.String()
    trace_id = fields.String()
    parent = fields.String(allow_none=True)
    error_type = fields.String(attribute="ended_badly")
    error_message = fields.String()
    created_at = Moment()
    started_at = Moment(allow_none=True)
    ended_at = Moment(allow_none=True)


class EdgeSchema(Schema):
    to = fields.String()
    on = fields.String()


class ExecutionSchema(ExecutionSummarySchema):
    parameters = fields.Dict()
    variables = fields.Dict()
    current_tasks = fields.List(fields.String())
    completed_tasks = fields.List(fields.String())
    failed_tasks = fields.List(fields.String())
    task_graph = fields.Dict(keys=fields.String(), values=fields.List(fields.Nested(EdgeSchema)))
    output = fields.Raw(allow_none=True)
    children = fields.List(fields.String())


class ExecutionsSchema(Schema):
    items = fields.List(fields.Nested(ExecutionSummarySchema))
    next_cursor = fields.String(allow_none=True)


class UnitSchema(Schema):
    """A unit of a task. `duration` is in seconds."""

    task = fields.String()
    task_index = fields.Integer()
    unit = fields.Integer()
    node = fields.String(allow_none=True)
    status = fields.String()
    wait_reason = fields.String()
    attempt = fields.Integer(allow_none=True)
    retry_count = fields.Integer()
    max_retries = fields.Integer()
    exit_code = fields.Integer(allow_none=True)
    error = fields.Raw(allow_none=True)
    result = fields.Raw(allow_none=True)
    started_at = Moment(allow_none=True)
    ended_at = Moment(allow_none=True)
    duration = fields.Float(allow_none=True)
    job = fields.String(allow_none=True)
    effect_unknown = fields.Boolean()


class UnitsSchema(Schema):
    items = fields.List(fields.Nested(UnitSchema))


def _text(row: Any) -> str | None:
    content: bytes | None = row["content"]
    return None if content is None else content.decode("utf-8", "backslashreplace")


class OutputSchema(Schema):
    """What was kept of one stream. `bytes` were written, `kept` of them are here; `sha256` is that of what was kept,
    as its node signed it; `text` is for reading, null where it was not wanted."""

    job = fields.String()
    task = fields.String()
    unit = fields.Integer()
    attempt = fields.Integer()
    node = fields.String()
    stream = fields.String()
    bytes = fields.Integer()
    kept = fields.Integer()
    truncated = fields.Boolean()
    verified = fields.Boolean()
    sha256 = fields.String()
    text = fields.Function(_text)


class OutputsSchema(Schema):
    items = fields.List(fields.Nested(OutputSchema))
    next_cursor = fields.String(allow_none=True)


class EventSchema(Schema):
    seq = fields.Integer()
    kind = fields.String()
    at = Moment()
    log = fields.List(fields.Dict())


class EventsSchema(Schema):
    items = fields.List(fields.Nested(EventSchema))


class DifferenceSchema(Schema):
    """Where a replay and the rows are not the same; values are not told, for they may be anybody's."""

    place = fields.String()
    column = fields.String()


class ReplaySchema(Schema):
    execution = fields.String()
    status = fields.String()
    events = fields.Integer()
    is_same = fields.Boolean()
    differences = fields.List(fields.Nested(DifferenceSchema))


class StatusSchema(Schema):
    status = fields.String()


class CommandSchema(Schema):
    """What became of a command on one node. The texts are whole unless `truncated`; `exit_code` is null where the
    process did not end by itself."""

    node_id = fields.String()
    execution = fields.String()
    status = fields.String()
    exit_code = fields.Integer(allow_none=True)
    stdout = fields.String()
    stderr = fields.String()
    truncated = fields.Boolean()
    error = fields.Raw(allow_none=True)
    started_at = Moment(allow_none=True)
    completed_at = Moment(allow_none=True)


class TokenRowSchema(Schema):
    id = fields.String()
    login = fields.String()
    role = fields.String()
    name = fields.String()
    created_at = Moment()
    expires_at = Moment(allow_none=True)
    used_at = Moment(allow_none=True)
    revoked_at = Moment(allow_none=True)


class NewTokenSchema(TokenRowSchema):
    """Shown once."""

    token = fields.String()


class TokensSchema(Schema):
    items = fields.List(fields.Nested(TokenRowSchema))
    next_cursor = fields.String(allow_none=True)


class AuditEntrySchema(Schema):
    id = fields.Integer()
    at = Moment()
    person = fields.String()
    action = fields.String()
    subject = fields.String()
    outcome = fields.String()
    detail = fields.Dict()
    seq = fields.Integer(allow_none=True)
    hash = fields.String()


class AuditSchema(Schema):
    items = fields.List(fields.Nested(AuditEntrySchema))
    next_cursor = fields.String(allow_none=True)


class PrunedSchema(Schema):
    executions = fields.Integer(required=True)
    outputs = fields.Integer(required=True)
    others = fields.Integer(required=True)
    blobs = fields.Integer(required=True)
    bytes = fields.Integer(required=True)
    snapshots = fields.Integer(required=True)


class HealthSchema(Schema):
    status = fields.String()


class ReadySchema(Schema):
    status = fields.String()
    checks = fields.Dict(keys=fields.String(), values=fields.String())


class AboutSchema(Schema):
    version = fields.String()
    api = fields.String()
    celery = fields.String()


class DecisionSchema(Schema):
    person = fields.String()
    decision = fields.String()
    reason = fields.String()
    at = Moment()


class ApprovalSummarySchema(Schema):
    id = fields.String()
    execution = fields.String()
    workflow = fields.String(attribute="workflow_ref")
    task = fields.String()
    unit = fields.Integer()
    kind = fields.String()
    prompt = fields.String()
    approvers = fields.List(fields.String())
    quorum = fields.Integer()
    schema = fields.Raw(attribute="answer_schema", allow_none=True)
    digest = fields.String()
    requester = fields.String()
    status = fields.String()
    answer = fields.Raw(allow_none=True)
    created_at = Moment()
    expires_at = Moment(allow_none=True)
    decided_at = Moment(allow_none=True)


class ApprovalSchema(ApprovalSummarySchema):
    decisions = fields.List(fields.Nested(DecisionSchema))
    about = fields.Nested(SubjectSchema)


class ApprovalsSchema(Schema):
    items = fields.List(fields.Nested(ApprovalSummarySchema))
    next_cursor = fields.String(allow_none=True)


class KeyValueSchema(Schema):
    key = fields.String()
    value = fields.Raw(allow_none=True)
    revision = fields.Integer()
    updated_by = fields.String()
    updated_at = Moment()
    expires_at = Moment(allow_none=True)


class KeyValuesSchema(Schema):
    items = fields.List(fields.Nested(KeyValueSchema))
    next_cursor = fields.String(allow_none=True)


class SecretSchema(Schema):
    """`users`: the logins and roles that may use it; empty: every operator. Values are never shown."""

    name = fields.String()
    version = fields.Integer()
    users = fields.List(fields.String())
    updated_by = fields.String()
    created_at = Moment()
    updated_at = Moment()


class SecretSetSchema(SecretSchema):
    warnings = fields.List(fields.String())


class SecretsSchema(Schema):
    items = fields.List(fields.Nested(SecretSchema))
    next_cursor = fields.String(allow_none=True)
