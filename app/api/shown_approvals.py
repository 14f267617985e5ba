"""What goes out of a question: what would run where."""

from __future__ import annotations

from marshmallow import Schema, fields


class RunSchema(Schema):
    """What one task would run on which nodes. `script` is the sha256 of the text in `body`, which is null where a
    command runs without a shell; `timeout` is in seconds. `secrets` are by name and version."""

    task = fields.String()
    nodes = fields.List(fields.String())
    shell = fields.String()
    script = fields.String(allow_none=True)
    body = fields.String(allow_none=True)
    command = fields.List(fields.String(), allow_none=True)
    timeout = fields.Float(allow_none=True)
    secrets = fields.Dict()
    digest = fields.String()


class SubjectSchema(Schema):
    """What is decided on, as it was stored when it was asked. `is_genuine`: it has the digest of the question; of one
    that has not, nothing else is told. `asked` counts the questions for an execution as a whole."""

    is_genuine = fields.Boolean()
    asked = fields.Integer()
    kind = fields.String()
    script = fields.Dict(allow_none=True)
    workflow = fields.String()
    plan = fields.String()
    requester = fields.String()
    asked_by = fields.String()
    gate = fields.Dict()
    parameters = fields.Dict()
    config = fields.Dict()
    runs = fields.List(fields.Nested(RunSchema))
