"""What goes out about files."""

from __future__ import annotations

from marshmallow import Schema, fields

from app.api.shown import Moment


class MissingSchema(Schema):
    missing = fields.List(fields.String())


class StoredSchema(Schema):
    """`stored` blobs were put, with so many `bytes`."""

    stored = fields.Integer(attribute="blobs")
    bytes = fields.Integer()


class PutSchema(Schema):
    """`complete`: the blob is whole. `offset`: so many of its bytes are here."""

    digest = fields.String()
    complete = fields.Boolean()
    offset = fields.Integer()


class PostedSchema(Schema):
    digest = fields.String()
    missing = fields.List(fields.String())


class PathsSchema(Schema):
    added = fields.List(fields.String())
    changed = fields.List(fields.String())
    deleted = fields.List(fields.String())


class StepSchema(Schema):
    """What a job did to the workspace. `bytes` are those of the files that it added or changed."""

    seq = fields.Integer()
    task = fields.String()
    job = fields.String()
    node = fields.String()
    base = fields.String()
    snapshot = fields.String()
    added = fields.Integer()
    changed = fields.Integer()
    deleted = fields.Integer()
    bytes = fields.Integer()
    paths = fields.Nested(PathsSchema)
    cut = fields.Boolean()
    at = Moment(attribute="created_at")


class WorkspaceSchema(Schema):
    """`start` is the snapshot that it began with, `snapshot` the one of now; both are empty where there is none."""

    snapshot = fields.String()
    start = fields.String()
    files = fields.Integer()
    bytes = fields.Integer()
    steps = fields.List(fields.Nested(StepSchema))
    next_cursor = fields.String(allow_none=True)


class ArtifactSchema(Schema):
    """`kind` is `artifact`, or `kept`: what a task had changed before it failed. `mode` are permission bits."""

    id = fields.String()
    task = fields.String()
    job = fields.String()
    node = fields.String()
    path = fields.String()
    mode = fields.Integer()
    size = fields.Integer()
    sha256 = fields.String()
    kind = fields.String()
    created_at = Moment()


class ArtifactsSchema(Schema):
    items = fields.List(fields.Nested(ArtifactSchema))
    next_cursor = fields.String(allow_none=True)
