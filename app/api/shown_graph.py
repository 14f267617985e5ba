"""Graphs and explanations as they go out."""

from __future__ import annotations

from marshmallow import Schema, fields

from app.api.shown import Moment


class NodeUnitsSchema(Schema):
    total = fields.Integer()
    started = fields.Integer()
    over = fields.Integer()
    succeeded = fields.Integer()
    failed = fields.Integer()
    skipped = fields.Integer()
    cancelled = fields.Integer()


class GraphNodeSchema(Schema):
    """A task. From `status` on only in the graph of an execution; `duration` is in seconds."""

    name = fields.String()
    kind = fields.String()
    action = fields.String()
    layer = fields.Integer()
    starts = fields.Boolean()
    join = fields.String()
    block = fields.String(allow_none=True)
    children = fields.List(fields.String())
    is_finally = fields.Boolean(attribute="finally", data_key="finally")
    status = fields.String()
    wait_reason = fields.String()
    started_at = Moment(allow_none=True)
    ended_at = Moment(allow_none=True)
    duration = fields.Float(allow_none=True)
    attempts = fields.Integer()
    retry_count = fields.Integer()
    max_retries = fields.Integer()
    units = fields.Nested(NodeUnitsSchema)


class GraphEdgeSchema(Schema):
    """From one task to another, or to `fail`. `state` is open, fired or dead, in an execution's graph only."""

    source = fields.String(attribute="from", data_key="from")
    target = fields.String(attribute="to", data_key="to")
    on = fields.String()
    when = fields.List(fields.String())
    state = fields.String()


class GraphSchema(Schema):
    execution = fields.String()
    status = fields.String()
    workflow = fields.String()
    nodes = fields.List(fields.Nested(GraphNodeSchema))
    edges = fields.List(fields.Nested(GraphEdgeSchema))


class IncomingSchema(GraphEdgeSchema):
    """An edge that leads to the task that is explained."""

    class Meta:
        exclude = ("target",)

    status = fields.String()
    why = fields.String()


class JoinSchema(Schema):
    """How many tasks must lead here, and how many edges stand how."""

    kind = fields.String()
    needed = fields.Integer()
    open = fields.Integer()
    fired = fields.Integer()
    dead = fields.Integer()


class ConditionSchema(Schema):
    expression = fields.String()
    result = fields.Boolean(allow_none=True)


class WaitSchema(Schema):
    """What stands between a task and its end; fields that say nothing are empty."""

    kind = fields.String()
    name = fields.String()
    until = Moment(allow_none=True)
    since = Moment(allow_none=True)
    task = fields.String()
    unit = fields.Integer()
    job = fields.String()
    node = fields.String()
    approval = fields.String()
    approvers = fields.List(fields.String())
    approved = fields.Integer()
    quorum = fields.Integer()


class CauseSchema(Schema):
    task = fields.String()
    status = fields.String()
    why = fields.String()


class ChildSchema(Schema):
    """An execution that the task started; `says` is the first line of its own explanation."""

    execution = fields.String()
    workflow = fields.String()
    status = fields.String()
    unit = fields.Integer()
    says = fields.String()


class ParentSchema(ChildSchema):
    """The execution that started this one, and for which task."""

    task = fields.String()


class ExplanationSchema(Schema):
    """`verdict` is ran, runs, waits, skipped or never."""

    task = fields.String()
    status = fields.String()
    verdict = fields.String()
    sentences = fields.List(fields.String())
    edges = fields.List(fields.Nested(IncomingSchema))
    join = fields.Nested(JoinSchema, allow_none=True)
    when = fields.Nested(ConditionSchema, attribute="condition", allow_none=True)
    waits = fields.List(fields.Nested(WaitSchema))
    because = fields.List(fields.Nested(CauseSchema))
    error = fields.Raw(allow_none=True)
    children = fields.List(fields.Nested(ChildSchema))


class ExplanationsSchema(Schema):
    items = fields.List(fields.Nested(ExplanationSchema))
    parent = fields.Nested(ParentSchema, allow_none=True)
