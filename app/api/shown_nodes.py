"""What goes out of the machines of the fleet."""

from __future__ import annotations

from marshmallow import Schema, fields

from app.api.shown import Moment


class BreakerSchema(Schema):
    """Of the connection to an SSH node: closed, open or half-open; consecutive failures, the last one's words."""

    state = fields.String()
    failures = fields.Integer()
    until = Moment(allow_none=True)
    error = fields.String()


class SshSchema(Schema):
    """How an SSH node is reached; `key` is the name of a secret, the host keys are fingerprints, empty for none."""

    user = fields.String()
    host = fields.String()
    port = fields.Integer()
    key = fields.String()
    backend = fields.String()
    workdir = fields.String()
    host_key = fields.String()
    offered_key = fields.String()


class NodeSchema(Schema):
    name = fields.String()
    transport = fields.String()
    address = fields.String()
    ssh = fields.Nested(SshSchema, allow_none=True)
    breaker = fields.Nested(BreakerSchema, allow_none=True)
    state = fields.String()
    online = fields.Boolean()
    labels = fields.Dict(keys=fields.String(), values=fields.String())
    slots = fields.Integer()
    free = fields.Integer()
    shells = fields.List(fields.String())
    versions = fields.Dict()
    last_seen = Moment(allow_none=True)
    epoch = fields.String()
    open_jobs = fields.Integer()
    enrolled_at = Moment()
    enrolled_by = fields.String()


class NodesSchema(Schema):
    items = fields.List(fields.Nested(NodeSchema))


class NewNodeTokenSchema(Schema):
    """Shown once. `control` is the fingerprint of the control keys, for the machine to compare."""

    token = fields.String()
    node = fields.String()
    expires_at = Moment()
    control = fields.String()
    installation = fields.String()


class EnrolledSchema(Schema):
    node = fields.String()
    installation = fields.String()
    control_keys = fields.Dict()


class NodeStateSchema(Schema):
    name = fields.String()
    state = fields.String()
