"""What may come in, by request. Names that are not listed here are refused."""

from __future__ import annotations

import re
from typing import Any

from marshmallow import Schema, ValidationError, fields, validate
from webargs.fields import DelimitedList

from app.engine.status import EXECUTION_STATUSES
from app.language import names
from app.language.pack_tables import PACK_NAME
from app.services.again import LATEST
from app.services.approvals import STATUS_NAMES
from app.services.fleet import LIFETIME, LONGEST_LIFETIME, SSH
from app.services.host_keys import FINGERPRINT
from app.services.people import LOGIN, LOGIN_RULE, LONGEST_LIFE
from app.services.resolve import OUTCOMES
from app.services.ssh_address import MOST_CHARACTERS
from app.services.ssh_nodes import BACKENDS, MOST_SLOTS, MOST_WORKDIR, SLOTS

LARGEST_NUMBER = 2**31 - 1
LONGEST_CURSOR = 400
LONGEST_EXPIRY = 10 * 365 * 86400.0

_PLAIN = validate.Regexp(
    r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*\Z", error="Control characters are not allowed."
)


def _plain_text(longest: int, **options: Any) -> fields.String:
    return fields.String(validate=[validate.Length(max=longest), _PLAIN], **options)


def _named(pattern: str, rule: str) -> validate.Regexp:
    # marshmallow formats the message, so what is in braces would count as fields.
    return validate.Regexp(pattern, error=rule.replace("{", "{{").replace("}", "}}"))


class VersionField(fields.Field):
    """A version as text, or the number of a revision."""

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> str | int:
        if isinstance(value, str) and 1 <= len(value) <= 50 and value.isprintable():
            return value
        if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= LARGEST_NUMBER:
            return value
        raise ValidationError("Give a version as a text, or a revision as a number.")


class DefinitionField(fields.Field):
    """A workflow as YAML text, or as a JSON object of the same form."""

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> str | dict[str, Any]:
        if isinstance(value, (str, dict)):
            return value
        raise ValidationError("Give the workflow as YAML text, or as an object.")


class StoreSchema(Schema):
    definition = DefinitionField(required=True)


class RegisterSchema(Schema):
    """The files of a pack by path. How many and how large they may be is the reader's to say, with a place for each."""

    files = fields.Dict(
        keys=fields.String(), values=fields.String(), required=True, validate=validate.Length(max=2000)
    )


class ConfigSchema(Schema):
    config = fields.Dict(keys=fields.String(), required=True, validate=validate.Length(max=1000))


class SnapshotField(fields.Field):
    """A sha256, with `sha256:` before it or without it; empty for none."""

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> str:
        digest = value.removeprefix("sha256:") if isinstance(value, str) else None
        if digest is None or not re.fullmatch(r"([0-9a-f]{64})?", digest):
            raise ValidationError("Give the digest of a snapshot: 64 hexadecimal digits in small letters.")
        return digest


class ExecuteSchema(Schema):
    parameters = fields.Dict(keys=fields.String(), load_default=dict)
    workspace = SnapshotField(load_default="")
    version = VersionField(load_default=None, allow_none=True)


class InlineSchema(Schema):
    definition = DefinitionField(required=True)
    parameters = fields.Dict(keys=fields.String(), load_default=dict)
    workspace = SnapshotField(load_default="")


class WaitQuery(Schema):
    wait = fields.Float(
        load_default=0.0,
        validate=validate.Range(min=0, max=60),
        metadata={"description": "Seconds to wait for the end before answering with 202"},
    )


class IdempotencySchema(Schema):
    """Other headers are none of its business."""

    class Meta:
        unknown = "exclude"

    key = fields.String(
        data_key="Idempotency-Key",
        load_default=None,
        validate=validate.Regexp(
            r"^[\x21-\x7e]{1,128}$(?!\n)", error="Give 1 to 128 visible ASCII characters."
        ),
        metadata={"description": "Up to 128 visible characters; the same key gives the same execution"},
    )


class PageQuery(Schema):
    limit = fields.Integer(load_default=50, validate=validate.Range(min=1, max=200))
    cursor = fields.String(load_default=None, validate=validate.Length(max=LONGEST_CURSOR))


class AuditQuery(PageQuery):
    person = _plain_text(64, load_default=None)
    action = _plain_text(64, load_default=None)
    subject = _plain_text(255, load_default=None)


class OfWorkflowQuery(PageQuery):
    status = DelimitedList(fields.String(validate=validate.OneOf(EXECUTION_STATUSES)), load_default=list)


class ExecutionsQuery(OfWorkflowQuery):
    workflow = fields.String(load_default=None, validate=_named(names.REF, names.REF_RULE))


class KeysQuery(PageQuery):
    prefix = fields.String(
        load_default="", validate=_named(r"^([A-Za-z0-9_][A-Za-z0-9_.\-/]{0,254})?$(?!\n)", names.KEY_RULE)
    )


class SetKeySchema(Schema):
    value = fields.Raw(required=True, allow_none=True)
    expires_in = fields.Float(
        load_default=None, allow_none=True, validate=validate.Range(min=1, max=LONGEST_EXPIRY)
    )


class SetSecretSchema(Schema):
    value = fields.String(required=True)
    users = fields.List(fields.String(validate=validate.Length(max=64)), load_default=list)


class ActionsQuery(PageQuery):
    pack = fields.String(load_default=None, validate=_named(PACK_NAME, "the name of a pack"))


class RevisionQuery(Schema):
    revision = fields.Integer(load_default=None, validate=validate.Range(min=1, max=LARGEST_NUMBER))


GRAPH_FORMATS = ("json", "mermaid", "dot")


class GraphQuery(Schema):
    format = fields.String(load_default="json", validate=validate.OneOf(GRAPH_FORMATS))


class DefinitionGraphQuery(GraphQuery, RevisionQuery):
    pass


class OutputQuery(PageQuery):
    task = fields.String(load_default=None, validate=_named(names.TASK, names.TASK_RULE))
    node = fields.String(load_default=None, validate=_named(names.NODE, names.NODE_RULE))
    stream = fields.String(load_default=None, validate=validate.OneOf(("stdout", "stderr")))
    text = fields.Boolean(
        load_default=True, metadata={"description": "`0`: digests and sizes without the texts"}
    )


class EventsQuery(Schema):
    after = fields.Integer(load_default=None, validate=validate.Range(min=0, max=LARGEST_NUMBER))
    limit = fields.Integer(load_default=200, validate=validate.Range(min=1, max=1000))
    output = fields.Boolean(
        load_default=False, metadata={"description": "With the live output, as server-sent events only"}
    )


class CancelSchema(Schema):
    force = fields.Boolean(load_default=False, truthy={True}, falsy={False})
    reason = _plain_text(1000, load_default="")


class ReasonSchema(Schema):
    reason = _plain_text(1000, load_default="")


class ApprovalsQuery(PageQuery):
    status = fields.String(load_default=None, validate=validate.OneOf(STATUS_NAMES))


class DecisionQuery(Schema):
    reason = _plain_text(1000, load_default="")


class AnswerSchema(ReasonSchema):
    answer = fields.Raw(required=True, allow_none=True)


class RetrySchema(ReasonSchema):
    from_ = fields.List(
        fields.String(validate=_named(names.TASK, names.TASK_RULE)),
        data_key="from",
        load_default=list,
        validate=validate.Length(max=500),
    )
    mark_ok = fields.Dict(
        keys=fields.String(validate=_named(names.TASK, names.TASK_RULE)),
        load_default=dict,
        validate=validate.Length(max=500),
    )
    reset = fields.Boolean(load_default=False, truthy={True}, falsy={False})
    version = fields.String(load_default=None, allow_none=True, validate=validate.OneOf((LATEST,)))


class ResolveSchema(Schema):
    unit = fields.Integer(load_default=0, strict=True, validate=validate.Range(min=0, max=1_000_000))
    outcome = fields.String(required=True, validate=validate.OneOf(OUTCOMES))
    reason = _plain_text(1000, required=True)


class NodeTokenSchema(Schema):
    node = fields.String(required=True, validate=_named(names.NODE, names.NODE_RULE))
    labels = fields.Dict(keys=fields.String(), values=fields.String(), load_default=dict)
    lifetime = fields.Float(load_default=LIFETIME, validate=validate.Range(min=1, max=LONGEST_LIFETIME))
    replace = fields.Boolean(load_default=False, truthy={True}, falsy={False})


class EnrollSchema(Schema):
    node = fields.String(required=True, validate=_named(names.NODE, names.NODE_RULE))
    token = fields.String(required=True, validate=validate.Regexp(r"^[A-Za-z0-9_-]{1,128}$(?!\n)"))
    public_keys = fields.Dict(keys=fields.String(), required=True)
    proof = fields.String(required=True, validate=validate.Length(max=4096))


class SshNodeSchema(Schema):
    """A machine that has only an SSH server. One with a worker enrols itself."""

    name = fields.String(required=True, validate=_named(names.NODE, names.NODE_RULE))
    transport = fields.String(required=True, validate=validate.OneOf([SSH]))
    address = fields.String(required=True, validate=validate.Length(max=MOST_CHARACTERS))
    key = fields.String(required=True, validate=_named(names.KEY, names.KEY_RULE))
    labels = fields.Dict(keys=fields.String(), values=fields.String(), load_default=dict)
    slots = fields.Integer(load_default=SLOTS, strict=True, validate=validate.Range(min=1, max=MOST_SLOTS))
    backend = fields.String(load_default=BACKENDS[0], validate=validate.OneOf(BACKENDS))
    workdir = fields.String(load_default="", validate=validate.Length(max=MOST_WORKDIR))
    replace = fields.Boolean(load_default=False, truthy={True}, falsy={False})


class TrustSchema(Schema):
    fingerprint = fields.String(
        required=True,
        validate=_named(f"^{FINGERPRINT.pattern}$(?!\n)", "SHA256: and 43 characters of base64"),
    )


class DrainSchema(Schema):
    drain = fields.Boolean(load_default=True, truthy={True}, falsy={False})


class ForceQuery(Schema):
    force = fields.Boolean(load_default=False)


class PruneSchema(Schema):
    older_than = fields.Float(
        load_default=None, allow_none=True, validate=validate.Range(min=0, max=100 * 365 * 86400)
    )


class TokenSchema(Schema):
    login = fields.String(required=True, validate=_named(rf"^{LOGIN.pattern}$(?!\n)", LOGIN_RULE))
    name = _plain_text(64, load_default="")
    expires_in = fields.Float(
        load_default=None, allow_none=True, validate=validate.Range(min=1, max=LONGEST_LIFE)
    )
