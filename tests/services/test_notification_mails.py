"""Words to people outside by e-mail, over real sockets: in clear and with STARTTLS, and what goes wrong with it."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from desk import Office, office_on
from gated import approve, execute, runnable
from mail_server import MailServer, mail_server
from outbox import by_mail, notifications, row, send, tell
from sqlalchemy import select

from app.services import notify
from app.services.rotation import ensure


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    with office_on("sqlite", tmp_path, ["web-1"]) as made:
        ensure(made.control)
        yield made


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


def test_a_schedule_that_is_held_up_is_told_of(office: Office) -> None:
    tell(office, notify.HELD_UP, name="nightly", skips=3, reason="overlap")
    with mail_server() as post:
        send(office, **by_mail(post.port))
    (letter,) = post.letters
    assert letter.message["Subject"] == "[Muster] the schedule nightly has skipped 3 times in a row"
    assert "  muster schedule history nightly" in letter.message.get_content().splitlines()


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
        assert time.monotonic() - began < 60
    assert why in row(office, id_).error
