"""Words to people outside, over real sockets: signed, once the commit is there, until they are taken or given up."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from desk import BOTH, Office, office_on
from gated import approve, execute, runnable
from mail_server import MailServer, mail_server
from sqlalchemy import select

from app.services import courier, notify, tick
from app.services.control import Control
from app.services.figures import figures
from app.services.measures import NOTIFICATIONS
from app.services.retention import prune
from app.services.rotation import ensure
from app.settings import BadSetting, Settings
from app.store.tables import Notification, table

notifications = table(Notification)

SECRET = "a long random text"


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
    assert time.monotonic() - began < 5
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
        post = courier.Courier.of(told(office, **by_webhook(heard.port, notify_timeout=30.0)))
        desk = replace(office.desk, notify=post.wake)
        began = time.monotonic()
        assert tick.tick(desk, "control")
        assert tick.tick(desk, "control")
        assert time.monotonic() - began < 10
        heard.gate.set()
        until(lambda: row(office, id_).status == "sent")
    assert len(heard.heard) == 1


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        threading.Event().wait(0.02)


def test_they_are_kept_as_long_as_executions(office: Office) -> None:
    tell(office)
    office.clock.now += office.control.settings.retention + 1
    fresh = tell(office)
    prune(office.control)
    with office.store.read() as connection:
        assert list(connection.execute(select(notifications.c.id)).scalars()) == [fresh]


# e-mail


def test_a_mail_says_how_to_decide(office: Office) -> None:
    execution = execute(office.control, runnable(["web-1"], expires_in=60), token="own-value")
    approve(office.control, execution, verb="reject")
    with mail_server() as post:
        send(office, **by_mail(post.port, notify_link="https://muster.example.org/"))
    by_subject = {str(one.message["Subject"]): one for one in post.letters}
    assert set(by_subject) == {
        "[Muster] script.test asks for your approval",
        "[Muster] script.test was rejected",
    }
    letter = by_subject["[Muster] script.test asks for your approval"]
    assert (letter.sender, letter.to) == ("muster@example.org", ["a@example.org", "b@example.org"])
    text = letter.message.get_content()
    with office.store.read() as connection:
        approval = connection.execute(select(notifications.c.subject)).scalars().first()
    for line in (
        f"  muster approval approve {approval}",
        f"  muster approval reject {approval}",
        f"  https://muster.example.org/api/v1/automation/approvals/{approval}",
        "requester: ada",
        "prompt: Run it?",
    ):
        assert line in text.splitlines()
    assert "own-value" not in text
    assert letter.message["Message-ID"].endswith("@example.org>")


def test_what_a_person_wrote_makes_no_header(office: Office) -> None:
    tell(office, notify.ASKED, workflow="a\r\nBcc: eve@example.org\r\n", approval="1")
    with mail_server() as post:
        send(office, **by_mail(post.port))
    (letter,) = post.letters
    assert letter.message["Bcc"] is None
    assert letter.to == ["a@example.org", "b@example.org"]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a certificate of 127.0.0.1 that signs itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "mail.test")])
    now = datetime.now(UTC)
    names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(names, critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "mail.pem"
    pem = serialization.Encoding.PEM
    plain = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(key.private_bytes(pem, *plain) + made.public_bytes(pem))
    return path


@pytest.mark.parametrize("password", ["right", "wrong"])
def test_a_server_with_tls_and_a_password(office: Office, certificate: Path, password: str) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    id_ = tell(office)
    with mail_server(tls, "muster", "right") as post:
        url = f"smtp://muster:{password}@localhost:{post.port}"
        more = {"notify_smtp_url": url, "notify_smtp_tls": "starttls", "notify_smtp_roots": str(certificate)}
        send(office, **by_mail(post.port, **more))
    if password == "right":
        (letter,) = post.letters
        assert (letter.user, letter.was_encrypted) == ("muster", True)
        assert row(office, id_).status == "sent"
    else:
        assert post.letters == []
        assert row(office, id_).error == "mail: the mail server answers 535"


def test_a_certificate_that_nobody_trusts(office: Office, certificate: Path) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    id_ = tell(office)
    with mail_server(tls) as post:
        more = {"notify_smtp_url": f"smtp://localhost:{post.port}", "notify_smtp_tls": "starttls"}
        send(office, **by_mail(post.port, **more))
    assert post.letters == []
    assert "SSLCertVerificationError" in row(office, id_).error


def busy(post: MailServer) -> None:
    post.mood = "busy"


def silent(post: MailServer) -> None:
    post.mood = "silent"


def drips(post: MailServer) -> None:
    post.mood = "drips"


def refuses_one(post: MailServer) -> None:
    post.refuses = {"b@example.org"}


def refuses_all(post: MailServer) -> None:
    post.refuses = {"a@example.org", "b@example.org"}


@pytest.mark.parametrize(
    ("mood", "why"),
    [
        (busy, "answers 421"),
        (silent, "takes too long"),
        (drips, "takes too long"),
        (refuses_one, "refuses b@example.org"),
        (refuses_all, "refuses a@example.org, b@example.org"),
    ],
)
def test_a_mail_server_that_does_not_take_it(
    office: Office, mood: Callable[[MailServer], None], why: str
) -> None:
    id_ = tell(office)
    with mail_server() as post:
        mood(post)
        began = time.monotonic()
        send(office, **by_mail(post.port, notify_timeout=0.5))
        assert time.monotonic() - began < 5
    assert why in row(office, id_).error


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
