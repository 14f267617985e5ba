"""What goes out about schedules."""

from __future__ import annotations

from typing import Any

from marshmallow import Schema, fields

from app.api.shown import Moment


def _of_kind(kind: str) -> Any:
    return lambda row: row["ref"] if row["kind"] == kind else None


def _where(name: str) -> Any:
    return lambda row: row["nodes"].get(name)


class ScheduleSchema(Schema):
    """`workflow` or `script` (its id) is what it runs; `script_name` is null once that is gone.

    `waiting` is the time of the tick that waits for an execution's end, `last_reason` why the last one did not fire.
    """

    id = fields.String()
    name = fields.String()
    description = fields.String()
    workflow = fields.Function(_of_kind("workflow"))
    script = fields.Function(_of_kind("script"))
    script_name = fields.String(allow_none=True)
    version = fields.Raw(allow_none=True)
    host_ids = fields.Function(_where("host_ids"))
    labels = fields.Function(_where("labels"))
    batch = fields.Function(_where("batch"))
    max_failures = fields.Function(_where("max_failures"))
    parameters = fields.Dict()
    cron = fields.String()
    zone = fields.String()
    enabled = fields.Boolean()
    misfire = fields.String()
    misfire_most = fields.Integer(attribute="most")
    misfire_grace = fields.Float(attribute="grace")
    overlap = fields.String()
    jitter = fields.Float()
    owner = fields.String()
    next_run = Moment(allow_none=True)
    last_run = Moment(allow_none=True)
    last_status = fields.String()
    last_reason = fields.String()
    last_execution = fields.String(allow_none=True)
    waiting = Moment(allow_none=True)
    skips = fields.Integer()
    revision = fields.Integer()
    updated_by = fields.String()
    created_at = Moment()
    updated_at = Moment()


class SchedulesSchema(Schema):
    items = fields.List(fields.Nested(ScheduleSchema))
    next_cursor = fields.String(allow_none=True)


class TimeSchema(Schema):
    """A moment in UTC, and what the clock of the zone shows then, with its offset."""

    at = Moment()
    local = fields.String()


class TimesSchema(Schema):
    cron = fields.String()
    zone = fields.String()
    items = fields.List(fields.Nested(TimeSchema))


class TickSchema(Schema):
    """What became of one time: `status` is fired, queued, skipped or missed, at `at`."""

    fire_time = Moment()
    status = fields.String()
    reason = fields.String()
    detail = fields.String()
    execution = fields.String(allow_none=True)
    at = Moment()


class TicksSchema(Schema):
    items = fields.List(fields.Nested(TickSchema))
    next_cursor = fields.String(allow_none=True)
