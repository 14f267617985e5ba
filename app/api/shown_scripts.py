"""What goes out about saved scripts."""

from __future__ import annotations

from marshmallow import Schema, fields

from app.api.shown import Moment


class ScriptSummarySchema(Schema):
    id = fields.String()
    name = fields.String()
    description = fields.String()
    tags = fields.List(fields.String())
    shell = fields.String()
    version = fields.Integer()
    timeout = fields.Float()
    requires_approval = fields.Boolean()
    revision = fields.Integer()
    updated_by = fields.String()
    created_at = Moment()
    updated_at = Moment()


class ScriptsSchema(Schema):
    items = fields.List(fields.Nested(ScriptSummarySchema))
    next_cursor = fields.String(allow_none=True)


class SavedScriptSchema(Schema):
    """A script in one version. `author` and `created_at` are those of the version."""

    id = fields.String()
    name = fields.String()
    description = fields.String()
    tags = fields.List(fields.String())
    timeout = fields.Float()
    requires_approval = fields.Boolean()
    approval = fields.Dict()
    revision = fields.Integer()
    version = fields.Integer()
    shell = fields.String()
    body = fields.String()
    parameters = fields.List(fields.Dict())
    substitution = fields.String()
    digest = fields.String()
    author = fields.String()
    created_at = Moment()


class ScriptSavedSchema(SavedScriptSchema):
    """`result` is created, updated or unchanged; `changed` are the fields that are different now."""

    result = fields.String()
    changed = fields.List(fields.String())
    warnings = fields.List(fields.Dict())


class ScriptCheckedSchema(Schema):
    warnings = fields.List(fields.Dict())


class ScriptVersionSchema(Schema):
    version = fields.Integer()
    shell = fields.String()
    digest = fields.String()
    author = fields.String()
    created_at = Moment()
    characters = fields.Integer()


class ScriptVersionsSchema(Schema):
    items = fields.List(fields.Nested(ScriptVersionSchema))
    next_cursor = fields.String(allow_none=True)


class FieldChangeSchema(Schema):
    old = fields.Raw()
    new = fields.Raw()


class ScriptDiffSchema(Schema):
    """`diff` is a unified diff of the bodies; `fields` are the other things that differ, by name."""

    id = fields.String()
    name = fields.String()
    old = fields.Integer()
    new = fields.Integer()
    changed = fields.List(fields.String())
    fields_ = fields.Dict(keys=fields.String(), values=fields.Nested(FieldChangeSchema), data_key="fields")
    diff = fields.String()
