"""What goes out about saved scripts."""

from __future__ import annotations

from marshmallow import Schema, fields

from app.api.shown import Moment


class ScriptShownSchema(Schema):
    """One version of a script, with what holds for all of them. `author` and `created_at` are the version's."""

    id = fields.String()
    name = fields.String()
    version = fields.Integer()
    revision = fields.Integer()
    shell = fields.String()
    body = fields.String()
    parameters = fields.List(fields.Dict())
    substitution = fields.String()
    digest = fields.String()
    timeout = fields.Float()
    description = fields.String()
    tags = fields.List(fields.String())
    requires_approval = fields.Boolean()
    approval = fields.Dict()
    author = fields.String()
    created_at = Moment()
    updated_by = fields.String()
    updated_at = Moment()


class ScriptSavedSchema(ScriptShownSchema):
    """`change` says what became of it: created, version (a new one), updated (how it is run) or none."""

    change = fields.String()
    warnings = fields.List(fields.Dict())


class ScriptSummarySchema(ScriptShownSchema):
    class Meta:
        exclude = ("body",)


class ScriptListSchema(Schema):
    items = fields.List(fields.Nested(ScriptSummarySchema))
    next_cursor = fields.String(allow_none=True)


class ScriptVersionSchema(Schema):
    version = fields.Integer()
    shell = fields.String()
    parameters = fields.List(fields.Dict())
    substitution = fields.String()
    digest = fields.String()
    author = fields.String()
    created_at = Moment()


class ScriptVersionsSchema(Schema):
    items = fields.List(fields.Nested(ScriptVersionSchema))
    next_cursor = fields.String(allow_none=True)


class ScriptDiffSchema(Schema):
    """`diff` is a unified diff of the bodies; `changed` has what else differs, as it was and as it is."""

    script = fields.String()
    old = fields.Integer()
    new = fields.Integer()
    diff = fields.String()
    changed = fields.Dict()


class ScriptCheckedSchema(Schema):
    warnings = fields.List(fields.Dict())
