"""What may come in about saved scripts."""

from __future__ import annotations

from typing import Any

from marshmallow import Schema, fields, post_load, validate

from app.api.asked import LARGEST_NUMBER, PageQuery
from app.api.asked_commands import LONGEST_TIMEOUT, SHORTEST_TIMEOUT, BoundedText, Seconds
from app.language import script_form
from app.language.script_declarations import MOST_PARAMETERS
from app.language.script_form import Form
from app.language.script_lint import BOUND, SUBSTITUTIONS
from app.services.people import LOGIN, LOGIN_RULE

MOST_SECONDS = 366 * 86400.0
_TAG = r"^[A-Za-z0-9][A-Za-z0-9_./:-]{0,62}$(?!\n)"
_SECONDS = {"type": "number", "minimum": SHORTEST_TIMEOUT, "maximum": LONGEST_TIMEOUT}


def _rule(pattern: str, rule: str) -> validate.Regexp:
    return validate.Regexp(pattern, error=f"Give {rule}.")


class ApprovalSettingsSchema(Schema):
    """How executions are decided on: by how many, by whom, until when."""

    quorum = fields.Integer(strict=True, validate=validate.Range(min=1, max=script_form.MOST_QUORUM))
    approvers = fields.List(
        fields.String(validate=_rule(rf"^{LOGIN.pattern}$(?!\n)", LOGIN_RULE)),
        validate=validate.Length(1, 100),
    )
    expires_in = Seconds(MOST_SECONDS, metadata={**_SECONDS, "maximum": MOST_SECONDS})
    on_expire = fields.String(validate=validate.OneOf(script_form.ON_EXPIRE))


class ScriptSchema(Schema):
    """A script as it is to be; what is left out has its default, also where the script is there already."""

    name = fields.String(required=True, validate=_rule(script_form.NAME, script_form.NAME_RULE))
    shell = fields.String(required=True, validate=validate.Length(max=32))
    body = BoundedText(script_form.LONGEST_BODY, required=True)
    parameters = fields.List(fields.Raw(), load_default=list, validate=validate.Length(max=MOST_PARAMETERS))
    substitution = fields.String(load_default=BOUND, validate=validate.OneOf(SUBSTITUTIONS))
    description = BoundedText(4000, blank=True, load_default="")
    tags = fields.List(
        fields.String(validate=_rule(_TAG, "a tag: letters, digits and `_./:-`, 63 at the most")),
        load_default=list,
        validate=validate.Length(max=script_form.MOST_TAGS),
    )
    timeout = Seconds(LONGEST_TIMEOUT, load_default=script_form.DEFAULT_TIMEOUT, metadata=_SECONDS)
    requires_approval = fields.Boolean(load_default=False, truthy={True}, falsy={False})
    approval = fields.Nested(ApprovalSettingsSchema, load_default=dict)

    @post_load
    def _form(self, data: dict[str, Any], **_: Any) -> Form:
        # Tags are a set; their order is how they were first written.
        return Form(**{**data, "tags": list(dict.fromkeys(data["tags"]))})


class SaveScriptSchema(ScriptSchema):
    id = fields.String(
        load_default="",
        validate=validate.Regexp(r"^([0-7][0-9A-HJKMNP-TV-Z]{25})?$(?!\n)", error="Give the id of a script."),
        metadata={"description": "Change this script, whatever its name is until now"},
    )

    @post_load
    def _form(self, data: dict[str, Any], **options: Any) -> Any:
        script = data.pop("id")
        return {"script": script, "form": super()._form(data, **options)}


class ScriptsQuery(PageQuery):
    prefix = fields.String(
        load_default="", validate=_rule(r"^([a-z][a-z0-9_-]{0,63})?$(?!\n)", script_form.NAME_RULE)
    )
    tag = fields.String(load_default=None, validate=_rule(_TAG, "a tag"))


class RollbackSchema(Schema):
    version = fields.Integer(required=True, strict=True, validate=validate.Range(min=1, max=LARGEST_NUMBER))
