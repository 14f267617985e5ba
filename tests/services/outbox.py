"""Notifications as a test sees them: told, sent by ways that its settings give, and how their rows stand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from desk import Office
from sqlalchemy import select

from app.services import courier, notify
from app.services.control import Control
from app.store.tables import Notification, table

notifications = table(Notification)

SECRET = "a long random text"


def by_webhook(port: int, **more: Any) -> dict[str, Any]:
    url = f"http://127.0.0.1:{port}/hook?key=hidden"
    given = {"notify_webhook_url": url, "notify_webhook_secret": SECRET, "notify_webhook_in_clear": True}
    return {**given, "notify_allow": "127.0.0.1/32", "notify_timeout": 2.0, **more}


def by_mail(port: int, **more: Any) -> dict[str, Any]:
    given = {"notify_smtp_url": f"smtp://127.0.0.1:{port}", "notify_smtp_tls": "none", "notify_timeout": 2.0}
    return {
        **given,
        "notify_mail_from": "muster@example.org",
        "notify_mail_to": "a@example.org, b@example.org",
        **more,
    }


def told(office: Office, **settings: Any) -> Control:
    """The control with settings of notifications, and the ways that they give."""
    return replace(office.control, settings=replace(office.control.settings, **settings))


def send(office: Office, **settings: Any) -> int:
    control = told(office, **settings)
    return courier.send_due(control, courier.ways(control.settings))


def tell(office: Office, kind: str = "test.said", **data: Any) -> str:
    with office.store.write() as connection:
        return notify.tell(connection, kind, "thing", {"word": "hello", **data}, office.clock.now)


def row(office: Office, id_: str) -> Any:
    with office.store.read() as connection:
        return connection.execute(select(notifications).where(notifications.c.id == id_)).one()
