"""Words to people outside, over real sockets: signed, once the commit is there, until they are taken or given up."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from desk import BOTH, Office, office_on
from mail_server import mail_server
from outbox import SECRET, by_mail, by_webhook, notifications, row, send, tell, told
from sqlalchemy import select
from waiting import wait_until

from app.services import courier, notify, tick
from app.services.figures import figures
from app.services.measures import NOTIFICATIONS
from app.services.retention import prune
from app.services.rotation import ensure
from app.settings import BadSetting, Settings


@dataclass
class Heard:
    headers: dict[str, str]
    body: bytes


@dataclass
class Ear:
    """A web server that keeps what it is posted; `status` is what it answers."""

    port: int
    heard: list[Heard] = field(default_factory=list)
    status: int = 204
    location: str = ""
    gate: threading.Event = field(default_factory=threading.Event)
    holds: bool = False


@contextmanager
def ear() -> Iterator[Ear]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Says nothing."""

        def do_POST(self) -> None:
            if made.holds:
                made.gate.wait()
            body = self.rfile.read(int(self.headers["Content-Length"]))
            made.heard.append(Heard(dict(self.headers.items()), body))
            self.send_response(made.status)
            if made.location:
                self.send_header("Location", made.location)
            self.send_header("Content-Length", "0")
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    made = Ear(server.server_address[1])
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield made
    finally:
        made.gate.set()
        server.shutdown()
        server.server_close()


@pytest.fixture
def office(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Office]:
    with office_on(getattr(request, "param", "sqlite"), tmp_path, ["web-1"]) as made:
        ensure(made.control)
        yield made


@pytest.mark.parametrize("office", BOTH, indirect=True)
def test_a_webhook_is_signed_over_time_and_body(office: Office) -> None:
    id_ = tell(office)
    with ear() as heard:
        assert send(office, **by_webhook(heard.port)) == 1
        assert send(office, **by_webhook(heard.port)) == 0
    (one,) = heard.heard
    body = json.loads(one.body)
    assert body == {
        "id": id_,
        "kind": "test.said",
        "subject": "thing",
        "created_at": datetime.fromtimestamp(office.clock.now, UTC).isoformat(timespec="seconds"),
        "installation": office.installed.id,
        "data": {"word": "hello"},
    }
    at = int(office.clock.now)
    digest = hmac.new(SECRET.encode(), f"{at}.".encode() + one.body, hashlib.sha256).hexdigest()
    assert one.headers["Muster-Signature"] == f"t={at},v1={digest}"
    assert one.headers["Muster-Notification"] == id_
    assert one.headers["Content-Type"] == "application/json"
    found = row(office, id_)
    assert (found.status, found.attempts, found.sent_at) == ("sent", 1, office.clock.now)


def test_nothing_is_sent_of_what_was_not_committed(office: Office) -> None:
    def fail() -> None:
        with office.store.write() as connection:
            notify.tell(connection, "test.said", "thing", {}, office.clock.now)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    with ear() as heard:
        assert send(office, **by_webhook(heard.port)) == 0
    assert heard.heard == []


def test_it_is_tried_again_with_growing_waits_and_then_given_up(
    office: Office, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    id_, waits = tell(office), []
    with ear() as heard:
        heard.status = 503
        settings = by_webhook(heard.port, notify_tries=4)
        while row(office, id_).status == "pending":
            assert send(office, **settings) == 1
            assert send(office, **settings) == 0
            waits.append(row(office, id_).due_at - office.clock.now)
            office.clock.now = row(office, id_).due_at
    assert waits[:3] == [10, 20, 40]
    assert len({one.headers["Muster-Notification"] for one in heard.heard}) == 1
    found = row(office, id_)
    assert (found.status, found.attempts, found.error) == ("failed", 4, "webhook: the webhook answers 503")
    assert "given up after 4 tries" in caplog.text
    with office.store.read() as connection:
        assert figures(office.control, connection)[NOTIFICATIONS] == {("failed",): 1}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"notify_allow": ""}, "where calls may not go"),
        ({"notify_webhook_url": "http://169.254.169.254/x", "notify_allow": ""}, "where calls may not go"),
        ({"notify_webhook_url": "http://127.0.0.1:1/x"}, "no connection"),
    ],
)
def test_where_it_may_not_or_cannot_go(office: Office, change: dict[str, Any], why: str) -> None:
    id_ = tell(office)
    with ear() as heard:
        send(office, **by_webhook(heard.port, **change))
    assert heard.heard == []
    assert why in row(office, id_).error


def test_a_redirect_is_not_followed(office: Office) -> None:
    id_ = tell(office)
    with ear() as first, ear() as second:
        first.status, first.location = 307, f"http://127.0.0.1:{second.port}/"
        send(office, **by_webhook(first.port))
    assert (len(first.heard), len(second.heard)) == (1, 0)
    assert "answers 307" in row(office, id_).error


def test_a_receiver_that_does_not_answer_costs_bounded_time(office: Office) -> None:
    id_ = tell(office)
    with ear() as heard:
        heard.holds = True
        began = time.monotonic()
        send(office, **by_webhook(heard.port, notify_timeout=0.3))
    assert time.monotonic() - began < 60
    error = row(office, id_).error
    assert "took too long" in error
    assert "hidden" not in error


def test_one_way_that_works_is_not_gone_again(office: Office) -> None:
    id_ = tell(office)
    with ear() as heard, mail_server() as post:
        heard.status = 500
        settings = {**by_webhook(heard.port), **by_mail(post.port)}
        send(office, **settings)
        assert row(office, id_).ways == ["webhook"]
        office.clock.now = row(office, id_).due_at
        heard.status = 200
        send(office, **settings)
    assert (len(heard.heard), len(post.letters)) == (2, 1)
    assert row(office, id_).status == "sent"


def test_without_a_way_nothing_waits(office: Office) -> None:
    id_ = tell(office)
    assert send(office) == 0
    assert row(office, id_).status == "unwanted"


@pytest.mark.parametrize("office", BOTH, indirect=True)
def test_many_senders_send_each_once(office: Office) -> None:
    ids = {tell(office, number=number) for number in range(20)}
    with ear() as heard:
        settings = by_webhook(heard.port)
        threads = [threading.Thread(target=send, args=(office,), kwargs=settings) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(one.headers["Muster-Notification"] for one in heard.heard) == sorted(ids)


def test_a_sender_that_dies_leaves_it_to_another(office: Office) -> None:
    """It had put off the next try, and nothing else."""
    id_ = tell(office)
    with ear() as heard:
        settings = by_webhook(heard.port)
        control = told(office, **settings)
        assert courier._claim(control, courier.ways(control.settings)) is not None
        assert send(office, **settings) == 0
        office.clock.now += 60
        assert send(office, **settings) == 1
    assert (row(office, id_).status, row(office, id_).attempts) == ("sent", 2)


def test_what_takes_every_sender_with_it_is_given_up(office: Office) -> None:
    id_ = tell(office)
    with ear() as heard:
        settings = by_webhook(heard.port, notify_tries=3)
        control = told(office, **settings)
        for _ in range(3):
            assert courier._claim(control, courier.ways(control.settings)) is not None
            office.clock.now += 60
        assert send(office, **settings) == 1
    assert heard.heard == []
    assert row(office, id_).status == "failed"


def test_the_tick_has_them_sent_beside_it(office: Office) -> None:
    """A tick does not wait for somebody's server."""
    id_ = tell(office)
    with ear() as heard:
        heard.holds = True
        post = courier.Courier.of(told(office, **by_webhook(heard.port, notify_timeout=120.0)))
        desk = replace(office.desk, notify=post.wake)
        began = time.monotonic()
        assert tick.tick(desk, "control")
        assert tick.tick(desk, "control")
        assert time.monotonic() - began < 60
        heard.gate.set()
        wait_until(lambda: row(office, id_).status == "sent")
    assert len(heard.heard) == 1


def test_they_are_kept_as_long_as_executions(office: Office) -> None:
    tell(office)
    office.clock.now += office.control.settings.retention + 1
    fresh = tell(office)
    prune(office.control)
    with office.store.read() as connection:
        assert list(connection.execute(select(notifications.c.id)).scalars()) == [fresh]


# settings

WEBHOOK = {"notify_webhook_url": "https://chat.example.org/x", "notify_webhook_secret": SECRET}
MAIL = {
    "notify_smtp_url": "smtp://mail.example.org",
    "notify_mail_from": "muster@example.org",
    "notify_mail_to": "ops@example.org",
}


@pytest.mark.parametrize(
    "given",
    [
        {**WEBHOOK, "notify_webhook_secret": ""},
        {**WEBHOOK, "notify_webhook_url": "chat.example.org"},
        {**WEBHOOK, "notify_webhook_url": "ftp://chat.example.org"},
        {**WEBHOOK, "notify_webhook_url": "http://chat.example.org"},
        {**WEBHOOK, "notify_allow": "localhost"},
        {**MAIL, "notify_smtp_url": "mail.example.org:25"},
        {**MAIL, "notify_smtp_url": "smtp://mail.example.org:many"},
        {**MAIL, "notify_smtp_tls": "maybe"},
        {**MAIL, "notify_mail_from": ""},
        {**MAIL, "notify_mail_to": ""},
        {**MAIL, "notify_mail_to": "ops@example.org\nBcc: eve@example.org"},
    ],
)
def test_settings_that_make_no_sense_are_told_at_the_start(given: dict[str, Any]) -> None:
    with pytest.raises(BadSetting, match="MUSTER_NOTIFY_"):
        courier.ways(Settings(**given))


def test_no_setting_shows_a_secret() -> None:
    settings = Settings(**{**WEBHOOK, **MAIL, "notify_smtp_url": "smtp://me:hidden@mail.example.org"})
    shown = repr(settings) + repr(courier.ways(settings))
    assert "hidden" not in shown
    assert SECRET not in shown
    assert courier.ways(settings).names == ["webhook", "mail"]
