"""Sends notifications that are due, outside of any transaction: at least once each, with growing waits, not for ever.

The rows are the truth. Whoever sends one has put off its next try first, so that a sender that dies leaves it to
another one; the id that goes along says to the receiver that it comes again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from sqlalchemy import bindparam, select, update

from app.errors import InvalidInput
from app.services import installation, notices
from app.services.apart import apart
from app.services.control import Control
from app.services.notify import FAILED, PENDING, SENT, UNWANTED
from app.settings import BadSetting, Settings
from app.store.looks import Look
from app.store.tables import Notification, table
from app.transport.addresses import Policy
from app.transport.mail import IN_CLEAR, STARTTLS, Mail
from app.transport.webhook import Undelivered, Webhook
from app.transport.wires import Failed

log = logging.getLogger(__name__)
notifications = table(Notification)

WEBHOOK: Final = "webhook"
MAIL: Final = "mail"

AT_ONCE: Final = 50
"""Notifications that one round sends at the most."""

_FIRST_WAIT: Final = 10.0
_LONGEST_WAIT: Final = 3600.0
_LEASE: Final = 30.0
"""Seconds beside the time of the tries themselves after which another sender takes over."""


@dataclass(frozen=True, slots=True)
class Ways:
    """By which ways people are told; none where nothing is set."""

    webhook: Webhook | None = None
    mail: Mail | None = None

    @property
    def names(self) -> list[str]:
        return [name for name, way in ((WEBHOOK, self.webhook), (MAIL, self.mail)) if way is not None]


def ways(settings: Settings) -> Ways:
    """What the settings say. Raises BadSetting."""
    return Ways(_webhook(settings), _mail(settings))


def _webhook(settings: Settings) -> Webhook | None:
    url = settings.notify_webhook_url
    if not url:
        return None
    scheme = urlsplit(url).scheme
    if scheme not in ("https", "http") or not urlsplit(url).hostname:
        raise BadSetting(
            "MUSTER_NOTIFY_WEBHOOK_URL is no URL", hint="for example https://chat.example.org/muster"
        )
    if scheme == "http" and not settings.notify_webhook_in_clear:
        raise BadSetting(
            "MUSTER_NOTIFY_WEBHOOK_URL is http://, and what is sent could be read on the way",
            hint="use https://, or set MUSTER_NOTIFY_WEBHOOK_IN_CLEAR=1",
        )
    if not settings.notify_webhook_secret:
        raise BadSetting(
            "MUSTER_NOTIFY_WEBHOOK_URL is set without MUSTER_NOTIFY_WEBHOOK_SECRET",
            hint="share a long random text with whoever receives: notifications are signed with it",
        )
    try:
        policy = Policy.read(private=True, also=settings.notify_allow)
    except InvalidInput:
        raise BadSetting(
            f"MUSTER_NOTIFY_ALLOW={settings.notify_allow!r} is no list of networks",
            hint="for example 127.0.0.1/32",
        ) from None
    return Webhook(url, settings.notify_webhook_secret, policy, settings.notify_timeout)


def _mail(settings: Settings) -> Mail | None:
    if not settings.notify_smtp_url:
        return None
    parts = urlsplit(settings.notify_smtp_url)
    to = tuple(one.strip() for one in settings.notify_mail_to.split(",") if one.strip())
    try:
        port = parts.port or 587
    except ValueError:
        port = 0
    if parts.scheme != "smtp" or not parts.hostname or not port:
        raise BadSetting(
            "MUSTER_NOTIFY_SMTP_URL is no URL of a mail server",
            hint="for example smtp://user:password@mail:587",
        )
    if settings.notify_smtp_tls not in (STARTTLS, IN_CLEAR):
        raise BadSetting(f"MUSTER_NOTIFY_SMTP_TLS must be {STARTTLS} or {IN_CLEAR}")
    if not to or not all(map(_is_address, (*to, settings.notify_mail_from))):
        raise BadSetting(
            "MUSTER_NOTIFY_SMTP_URL needs addresses in MUSTER_NOTIFY_MAIL_FROM and MUSTER_NOTIFY_MAIL_TO",
            hint="for example muster@example.org, and ops@example.org,boss@example.org",
        )
    return Mail(
        parts.hostname,
        port,
        settings.notify_mail_from,
        to,
        settings.notify_timeout,
        unquote(parts.username or ""),
        unquote(parts.password or ""),
        settings.notify_smtp_tls,
        settings.notify_smtp_roots or None,
    )


def _is_address(text: str) -> bool:
    name, at, host = text.rpartition("@")
    return bool(name and at and host) and text.isprintable() and not set(text) & set(" ,;<>")


class Courier:
    """Sends in a thread of its own, one round at a time, so that no tick waits for somebody's server."""

    def __init__(self, control: Control, by: Ways) -> None:
        self._control = control
        self._by = by
        self._lock = threading.Lock()

    @classmethod
    def of(cls, control: Control) -> Courier:
        """By what the settings say. Raises BadSetting."""
        return cls(control, ways(control.settings))

    def wake(self) -> None:
        """Have what is due sent, unless a round is going on. Does not wait."""
        if self._lock.acquire(blocking=False):
            try:
                threading.Thread(target=self._round, name="courier", daemon=True).start()
            except RuntimeError:
                self._lock.release()
                raise

    def _round(self) -> None:
        try:
            send_due(self._control, self._by)
        except Exception:
            # The edge of the thread: the next tick tries again.
            log.exception("notifications could not be sent")
        finally:
            self._lock.release()


_DUE = Look(
    select(notifications.c.id).where(
        notifications.c.status == PENDING, notifications.c.due_at <= bindparam("now")
    ),
    1,
)


def is_due(control: Control) -> bool:
    """Whether anything waits to be sent now."""
    return _DUE.first(control.store, now=control.clock()) is not None


def send_due(control: Control, by: Ways) -> int:
    """One round. Returns how many notifications were tried."""
    if not by.names:
        with control.store.write() as connection:
            unwanted = update(notifications).where(notifications.c.status == PENDING)
            connection.execute(unwanted.values(status=UNWANTED))
        return 0
    installed = installation.read(control.store).id
    tried = 0
    while tried < AT_ONCE and (row := _claim(control, by)) is not None:
        tried += 1
        left = row.ways if row.ways is not None else by.names
        with apart(f"notification {row.id}"):
            if row.attempts >= control.settings.notify_tries:
                # Each of its tries ended with its sender: another one would too.
                _give_up(control, row, row.attempts, row.error or "nobody came back from sending it")
            else:
                _record(control, row, {way: _try(way, row, by, installed, control) for way in left})
    return tried


def _claim(control: Control, by: Ways) -> Any:
    """The oldest that is due, its next try put off; None where there is none, or another sender was faster."""
    now = control.clock()
    due = (notifications.c.status == PENDING, notifications.c.due_at <= now)
    until = now + _LEASE + len(by.names) * control.settings.notify_timeout
    with control.store.write() as connection:
        query = select(notifications).where(*due).order_by(notifications.c.due_at, notifications.c.id)
        row = connection.execute(query.limit(1).with_for_update(skip_locked=True)).first()
        if row is not None:
            mine = update(notifications).where(notifications.c.id == row.id)
            connection.execute(mine.values(due_at=until, attempts=row.attempts + 1))
    return row


def _try(way: str, row: Any, by: Ways, installed: str, control: Control) -> str:
    """Why it could not be sent this way; "" where it was, or where the way is not there any more."""
    now = control.clock()
    try:
        if way == WEBHOOK and by.webhook is not None:
            by.webhook.send(row.id, notices.body(row, installed), now)
        elif way == MAIL and by.mail is not None:
            text = notices.text(row, control.settings.notify_link)
            by.mail.send(row.id, notices.subject(row), text, now)
    except Undelivered as problem:
        return str(problem)
    except Failed as problem:
        return problem.message
    return ""


def _record(control: Control, row: Any, came: Mapping[str, str]) -> None:
    now, left = control.clock(), [way for way, problem in came.items() if problem]
    attempts = row.attempts + 1
    error = "; ".join(f"{way}: {came[way]}" for way in left)[:1000]
    columns: dict[str, Any] = {"ways": left, "error": error}
    if not left:
        columns |= {"status": SENT, "sent_at": now}
    elif attempts >= control.settings.notify_tries:
        _give_up(control, row, attempts, error)
        return
    else:
        columns["due_at"] = now + min(_LONGEST_WAIT, _FIRST_WAIT * 2 ** (attempts - 1))
    _set(control, row, columns)


def _give_up(control: Control, row: Any, tries: int, error: str) -> None:
    log.warning("notification %s (%s) was given up after %d tries: %s", row.id, row.kind, tries, error)
    _set(control, row, {"status": FAILED, "error": error})


def _set(control: Control, row: Any, columns: Mapping[str, Any]) -> None:
    """What came of a try. Where it took longer than its lease, another sender says what came of it."""
    mine = (notifications.c.id == row.id, notifications.c.status == PENDING)
    still = notifications.c.attempts == row.attempts + 1
    with control.store.write() as connection:
        connection.execute(update(notifications).where(*mine, still).values(dict(columns)))
