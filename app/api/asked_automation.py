"""What may come in about scripts on many nodes."""

from __future__ import annotations

from typing import Any

from marshmallow import Schema, ValidationError, fields, validate, validates_schema
from webargs.fields import DelimitedList

from app.api.asked import LARGEST_NUMBER, PageQuery, ReasonSchema
from app.api.asked_commands import (
    DEFAULT_TIMEOUT,
    LONGEST_TEXT,
    LONGEST_TIMEOUT,
    SHORTEST_TIMEOUT,
    Batch,
    BoundedText,
    LabelsField,
    NodesField,
    Seconds,
)
from app.engine.rollup import WORDS
from app.language import names

_TEXTS = {"type": "array", "items": {"type": "string"}}
_STEP = {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": names.PERCENT}]}
_SCRIPT = validate.Regexp(
    r"^([0-7][0-9A-HJKMNP-TV-Z]{25}|[a-z][a-z0-9_-]{0,63})\Z", error="Give the id or the name of a script."
)


class OnHostsSchema(ReasonSchema):
    """On which nodes: named, or chosen by their labels; in which batches, and how many may fail."""

    host_ids = NodesField(metadata=_TEXTS)
    labels = LabelsField(metadata={"type": "object", "additionalProperties": {"type": "string"}})
    batch = Batch(
        load_default=None,
        allow_none=True,
        metadata={"anyOf": [*_STEP["anyOf"], {"type": "array", "items": _STEP}, {"type": "null"}]},
    )
    max_failures = fields.Integer(
        load_default=0, strict=True, validate=validate.Range(min=0, max=names.MOST_NODES)
    )
    allow_unknown = fields.Boolean(
        load_default=False,
        truthy={True},
        falsy={False},
        metadata={"description": "Nodes that do not exist are rows of the result instead of a refusal"},
    )

    @validates_schema
    def _one_choice(self, data: dict[str, Any], **_: Any) -> None:
        if "host_ids" in data and "labels" in data:
            raise ValidationError("Give either `host_ids` or `labels`, not both.", "labels")
        if "host_ids" not in data and "labels" not in data:
            raise ValidationError("Give `host_ids` or `labels`.", "host_ids")


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
