"""What may come in about saved scripts."""

from __future__ import annotations

from typing import Any

from marshmallow import Schema, fields, post_load, validate

from app.api.asked import LARGEST_NUMBER, PageQuery
from app.api.asked_commands import (
    DEFAULT_TIMEOUT,
    LONGEST_TEXT,
    LONGEST_TIMEOUT,
    SHORTEST_TIMEOUT,
    BoundedText,
    Seconds,
)
from app.language.script_lint import SHELLS, SUBSTITUTIONS
from app.services.script_drafts import (
    LONGEST_DESCRIPTION,
    MOST_APPROVERS,
    MOST_QUORUM,
    MOST_TAGS,
    ON_EXPIRE,
    YEAR,
    Draft,
)

_NUMBER = validate.Range(min=1, max=LARGEST_NUMBER)
_A_BOOLEAN: dict[str, Any] = {"truthy": {True}, "falsy": {False}}


class ScriptApprovalSchema(Schema):
    """How executions of the script are decided on."""

    quorum = fields.Integer(strict=True, validate=validate.Range(min=1, max=MOST_QUORUM))
    approvers = fields.List(fields.String(), validate=validate.Length(max=MOST_APPROVERS))
    expires_in = Seconds(YEAR, metadata={"type": "number", "minimum": SHORTEST_TIMEOUT, "maximum": YEAR})
    on_expire = fields.String(validate=validate.OneOf(ON_EXPIRE))


class ScriptSchema(Schema):
    """A whole script: what is left out has its default, whatever the script that is there says."""

    name = fields.String(required=True, validate=validate.Length(min=1, max=200))
    shell = fields.String(required=True, validate=validate.OneOf(SHELLS))
    body = BoundedText(LONGEST_TEXT, required=True)
    parameters = fields.List(fields.Dict(keys=fields.String()), load_default=list)
    timeout = Seconds(
        LONGEST_TIMEOUT,
        load_default=DEFAULT_TIMEOUT,
        metadata={"type": "number", "minimum": SHORTEST_TIMEOUT, "maximum": LONGEST_TIMEOUT},
    )
    description = fields.String(load_default="", validate=validate.Length(max=LONGEST_DESCRIPTION))
    tags = fields.List(fields.String(), load_default=list, validate=validate.Length(max=MOST_TAGS))
    requires_approval = fields.Boolean(load_default=False, **_A_BOOLEAN)
    approval = fields.Nested(ScriptApprovalSchema, load_default=None, allow_none=True)
    substitution = fields.String(load_default=SUBSTITUTIONS[0], validate=validate.OneOf(SUBSTITUTIONS))

    @post_load
    def _draft(self, data: dict[str, Any], **_: Any) -> Draft:
        return Draft(**data)


class RollbackSchema(Schema):
    version = fields.Integer(required=True, strict=True, validate=_NUMBER)


class ScriptsQuery(PageQuery):
    prefix = fields.String(load_default="", validate=validate.Length(max=64))
    tag = fields.String(load_default="", validate=validate.Length(max=64))
