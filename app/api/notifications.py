"""What people outside were told, or could not be."""

from __future__ import annotations

from typing import Any

from flask_smorest import Blueprint
from marshmallow import Schema, fields, validate

from app.api import paging
from app.api.asked import PageQuery
from app.api.gate import needs
from app.api.shown import Moment
from app.api.strict import Parser
from app.api.wiring import reading
from app.services import notify as service

notifications = Blueprint("notifications", __name__, description="Words to people outside.")
notifications.ARGUMENTS_PARSER = Parser()


class NotificationsQuery(PageQuery):
    status = fields.String(load_default=None, validate=validate.OneOf(service.STATUSES))


class NotificationSchema(Schema):
    """`ways` are those by which it is still to be sent, null before the first try; `error` is that of the last."""

    id = fields.String()
    kind = fields.String()
    subject = fields.String()
    data = fields.Dict()
    status = fields.String()
    ways = fields.List(fields.String(), allow_none=True)
    attempts = fields.Integer()
    error = fields.String()
    created_at = Moment()
    due_at = Moment()
    sent_at = Moment(allow_none=True)


class NotificationsSchema(Schema):
    items = fields.List(fields.Nested(NotificationSchema))
    next_cursor = fields.String(allow_none=True)


@notifications.route("/automation/notifications", methods=["GET"])
@needs("admin")
@notifications.arguments(NotificationsQuery, location="query")
@notifications.response(200, NotificationsSchema)
def list_notifications(query: dict[str, Any]) -> Any:
    """What was told by webhook and e-mail, the newest first; `?status=failed` is what was given up."""
    before = paging.behind(query["cursor"], str)
    with reading() as connection:
        found = service.list_notifications(
            connection, limit=query["limit"] + 1, before=before, status=query["status"]
        )
    return paging.answer(found, query["limit"], lambda row: [row["id"]])
