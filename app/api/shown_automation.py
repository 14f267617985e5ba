"""What goes out about scripts on many nodes."""

from __future__ import annotations

from typing import Any

from marshmallow import Schema, fields

from app.api.shown import Moment, moment


class RanScriptSchema(Schema):
    """The saved script, by the name that it had; it may be gone."""

    id = fields.String()
    name = fields.String()
    version = fields.Integer()


class ScriptExecutionSummarySchema(Schema):
    """`status` is the roll-up of its nodes. In a list `total_count` is null as long as nothing has begun."""

    id = fields.String()
    kind = fields.String()
    script = fields.Nested(RanScriptSchema, allow_none=True)
    status = fields.String()
    gate = fields.String()
    requester = fields.String()
    error_message = fields.String()
    total_count = fields.Integer(allow_none=True)
    succeeded_count = fields.Integer()
    failed_count = fields.Integer()
    skipped_count = fields.Integer()
    created_at = Moment()
    started_at = Moment(allow_none=True)
    completed_at = Moment(allow_none=True)


class ScriptExecutionsSchema(Schema):
    items = fields.List(fields.Nested(ScriptExecutionSummarySchema))
    next_cursor = fields.String(allow_none=True)


class HostSchema(Schema):
    """What became of one node. `truncated`: there is more than is shown; all that was kept is in the execution's
    output. With `fold=output` the texts are in the groups, and null here."""

    host_id = fields.String()
    status = fields.String()
    queued_at = Moment(allow_none=True)
    started_at = Moment(allow_none=True)
    completed_at = Moment(allow_none=True)
    return_code = fields.Integer(allow_none=True)
    stdout = fields.String(allow_none=True)
    stderr = fields.String(allow_none=True)
    truncated = fields.Boolean()
    error = fields.Raw(allow_none=True)


class HostRows(fields.List):
    """Rows that hold what HostSchema tells and nothing else: for a thousand of them its own way takes too long."""

    def _serialize(self, value: Any, attr: Any, obj: Any, **kwargs: Any) -> Any:
        return [{**row, **{name: _moment(row[name]) for name in _MOMENTS}} for row in value]


_MOMENTS = ("queued_at", "started_at", "completed_at")


def _moment(seconds: float | None) -> str | None:
    return None if seconds is None else moment(seconds)


class SkippedHostSchema(Schema):
    host_id = fields.String()
    reason = fields.String()


class OutputGroupSchema(Schema):
    """Nodes on which the script ended alike and wrote the same."""

    hosts = fields.List(fields.String())
    count = fields.Integer()
    status = fields.String()
    return_code = fields.Integer(allow_none=True)
    error = fields.Raw(allow_none=True)
    stdout = fields.String()
    stderr = fields.String()
    truncated = fields.Boolean()


class ScriptExecutionSchema(ScriptExecutionSummarySchema):
    parameters = fields.Dict()
    shell = fields.String(allow_none=True)
    body = fields.String(allow_none=True)
    command = fields.Raw(allow_none=True)
    timeout = fields.Float(allow_none=True)
    batch = fields.Raw(allow_none=True)
    max_failures = fields.Integer()
    requires_approval = fields.Boolean()
    hosts = HostRows(fields.Nested(HostSchema))
    skipped_hosts = fields.List(fields.Nested(SkippedHostSchema))
    groups = fields.List(fields.Nested(OutputGroupSchema))
    summary = fields.String()


class FeaturesSchema(Schema):
    """Parts of Muster by their code, and whether they are switched on here."""

    features = fields.Dict(keys=fields.String(), values=fields.Boolean())
