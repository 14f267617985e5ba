"""What may come in about scripts on many nodes."""

from __future__ import annotations

from marshmallow import Schema, fields, validate
from webargs.fields import DelimitedList

from app.api import paths
from app.api.asked import LARGEST_NUMBER, PageQuery, ReasonSchema
from app.api.asked_commands import (
    DEFAULT_TIMEOUT,
    LONGEST_TEXT,
    LONGEST_TIMEOUT,
    SHORTEST_TIMEOUT,
    TEXTS,
    BoundedText,
    NodesField,
    Seconds,
    SpreadSchema,
)
from app.engine.rollup import WORDS
from app.language import names

_SCRIPT = validate.Regexp(rf"^{paths.Script.regex}\Z", error="Give the id or the name of a script.")


class OnHostsSchema(ReasonSchema, SpreadSchema):
    named = "host_ids"

    host_ids = NodesField(metadata=TEXTS)


class ScriptExecuteSchema(OnHostsSchema):
    parameter_values = fields.Dict(
        keys=fields.String(), load_default=dict, validate=validate.Length(max=1000)
    )
    version = fields.Integer(
        load_default=None,
        allow_none=True,
        strict=True,
        validate=validate.Range(min=1, max=LARGEST_NUMBER),
    )


class ScriptBodySchema(OnHostsSchema):
    """A script that is not saved."""

    shell = fields.String(
        load_default=names.DEFAULT_SHELL,
        validate=validate.Regexp(
            r"^[a-z][a-z0-9_-]{0,31}\Z", error="Give the name of a shell, as `sh`, `bash` or `powershell`."
        ),
    )
    body = BoundedText(LONGEST_TEXT, required=True)
    timeout = Seconds(
        LONGEST_TIMEOUT,
        load_default=DEFAULT_TIMEOUT,
        metadata={"type": "number", "minimum": SHORTEST_TIMEOUT, "maximum": LONGEST_TIMEOUT},
    )


class ScriptExecutionsQuery(PageQuery):
    status = DelimitedList(fields.String(validate=validate.OneOf(WORDS)), load_default=list)
    script = fields.String(load_default=None, validate=_SCRIPT)


class FoldQuery(Schema):
    fold = fields.String(
        load_default=None,
        validate=validate.OneOf(("output",)),
        metadata={"description": "`output`: outputs that are the same are told once, under `groups`"},
    )
