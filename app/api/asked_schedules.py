"""What may come in about schedules."""

from __future__ import annotations

from typing import Any

from marshmallow import Schema, ValidationError, fields, validate, validates_schema

from app.api import paths
from app.api.asked import PageQuery, VersionField
from app.api.asked_commands import STEP, TEXTS, Batch, BoundedText, LabelsField, NodesField
from app.language import names
from app.services.misfires import LONGEST_GRACE
from app.store.tables.schedules import MISFIRES, OVERLAPS

LONGEST_JITTER = 3600.0
MOST_FIRED = 100
"""Times that `misfire: all` makes up for at the most."""
MOST_SHOWN = 50

_DESCRIPTION = 1000


class Number(fields.Float):
    """A number as JSON has it; texts and booleans are none."""

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValidationError("Not a valid number.")
        return super()._deserialize(value, attr, data, **kwargs)


class ExpressionSchema(Schema):
    """When: five fields of cron, on the clock of a zone."""

    # How they are to look is `services.cron`'s to say.
    cron = fields.String(required=True, validate=validate.Length(max=10_000))
    zone = fields.String(load_default="UTC", validate=validate.Length(max=1000))


class CheckExpressionSchema(ExpressionSchema):
    count = fields.Integer(load_default=5, strict=True, validate=validate.Range(min=1, max=MOST_SHOWN))


class WriteScheduleSchema(ExpressionSchema):
    """A whole schedule: what, where, when, and what becomes of times that cannot be kept."""

    name = fields.String(
        required=True,
        validate=validate.Regexp(
            rf"^{paths.NAME}\Z", error="Give 1 to 64 of a-z, 0-9, `_` and `-`, starting with a letter."
        ),
    )
    description = BoundedText(_DESCRIPTION, blank=True, load_default="")
    workflow = fields.String(
        validate=validate.Regexp(names.REF, error="Give the reference of a workflow, as `pack.name`.")
    )
    script = fields.String(
        validate=validate.Regexp(rf"^{paths.Script.regex}\Z", error="Give the id or the name of a script.")
    )
    version = VersionField(load_default=None, allow_none=True)
    host_ids = NodesField(metadata=TEXTS)
    labels = LabelsField(metadata={"type": "object", "additionalProperties": {"type": "string"}})
    batch = Batch(metadata={"anyOf": [*STEP["anyOf"], {"type": "array", "items": STEP}]})
    max_failures = fields.Integer(strict=True, validate=validate.Range(min=0, max=names.MOST_NODES))
    parameters = fields.Dict(keys=fields.String(), load_default=dict, validate=validate.Length(max=1000))
    enabled = fields.Boolean(load_default=None, allow_none=True, truthy={True}, falsy={False})
    misfire = fields.String(load_default="once", validate=validate.OneOf(MISFIRES))
    misfire_most = fields.Integer(
        load_default=10, strict=True, validate=validate.Range(min=1, max=MOST_FIRED)
    )
    misfire_grace = Number(load_default=3600.0, validate=validate.Range(min=0, max=LONGEST_GRACE))
    overlap = fields.String(load_default="skip", validate=validate.OneOf(OVERLAPS))
    jitter = Number(load_default=0.0, validate=validate.Range(min=0, max=LONGEST_JITTER))

    @validates_schema
    def _one_target(self, data: dict[str, Any], **_: Any) -> None:
        if "workflow" in data and "script" in data:
            raise ValidationError("Give either `workflow` or `script`, not both.", "script")
        if "workflow" not in data and "script" not in data:
            raise ValidationError("Give `workflow` or `script`.", "workflow")
        if "script" not in data:
            return
        if "host_ids" in data and "labels" in data:
            raise ValidationError("Give either `host_ids` or `labels`, not both.", "labels")
        if "host_ids" not in data and "labels" not in data:
            raise ValidationError("Give `host_ids` or `labels`.", "host_ids")
        if isinstance(data["version"], str):
            raise ValidationError("Give the number of a version of the script.", "version")


class SchedulesQuery(PageQuery):
    enabled = fields.Boolean(load_default=None)


class NextQuery(Schema):
    count = fields.Integer(load_default=5, validate=validate.Range(min=1, max=MOST_SHOWN))
