"""What goes out about packs."""

from __future__ import annotations

from marshmallow import Schema, fields

from app.api.shown import Moment


class PackSummarySchema(Schema):
    ref = fields.String()
    label = fields.String()
    description = fields.String()
    version = fields.String()
    author = fields.String()
    tags = fields.List(fields.String())
    revision = fields.Integer()
    workflows = fields.Integer()
    actions = fields.Integer()
    created_at = Moment()
    updated_at = Moment()


class PacksSchema(Schema):
    items = fields.List(fields.Nested(PackSummarySchema))
    next_cursor = fields.String(allow_none=True)


class ActionSchema(Schema):
    """`runner` is a shell, python, workflow or core."""

    ref = fields.String()
    pack = fields.String()
    label = fields.String()
    description = fields.String()
    runner = fields.String()
    entry = fields.String()
    parameters = fields.List(fields.Dict())
    output = fields.Raw(allow_none=True)
    timeout = fields.Float(allow_none=True)
    idempotent = fields.Boolean()
    ok_codes = fields.List(fields.Integer())
    is_workflow = fields.Boolean()
    enabled = fields.Boolean()
    revision = fields.Integer()
    created_at = Moment()
    updated_at = Moment()


class ActionsSchema(Schema):
    items = fields.List(fields.Nested(ActionSchema))
    next_cursor = fields.String(allow_none=True)


class PackFileSchema(Schema):
    path = fields.String()
    bytes = fields.Integer()
    sha256 = fields.String()


class PackSchema(PackSummarySchema):
    workflows = fields.List(fields.Nested(ActionSchema))
    actions = fields.List(fields.Nested(ActionSchema))
    rules = fields.List(fields.String())
    sensors = fields.List(fields.String())
    tests = fields.List(fields.String())
    files = fields.List(fields.Nested(PackFileSchema))


class RegisteredSchema(Schema):
    """`changed` are actions and workflows that are new or different, `disabled` those that are gone."""

    ref = fields.String()
    revision = fields.Integer()
    created = fields.Boolean()
    changed = fields.List(fields.String())
    disabled = fields.List(fields.String())
    files = fields.Integer()
    warnings = fields.List(fields.Dict())


class PackConfigSchema(Schema):
    ref = fields.String()
    keys = fields.List(fields.Dict())
    config = fields.Dict()
