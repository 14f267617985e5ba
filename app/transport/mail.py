"""A word by e-mail: one message over SMTP, with STARTTLS or in clear, within bounded time."""

from __future__ import annotations

import smtplib
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.utils import formatdate
from typing import Final

from app.transport.webhook import Undelivered

STARTTLS: Final = "starttls"
IN_CLEAR: Final = "none"

_LONGEST_SUBJECT: Final = 200


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail server, and who writes to whom. `tls` is STARTTLS or IN_CLEAR; without a `user` nobody logs in.

    `seconds` bound the whole of it. `roots` is a file of certificates to trust beside those of the system.
    """

    host: str
    port: int
    sender: str
    to: tuple[str, ...]
    seconds: float
    user: str = ""
    password: str = field(default="", repr=False)
    tls: str = STARTTLS
    roots: str | None = None

    def send(self, id_: str, subject: str, text: str, now: float) -> None:
        """Hand over one message to every address. Raises Undelivered."""
        message = EmailMessage()
        message["From"], message["To"] = self.sender, ", ".join(self.to)
        message["Subject"] = " ".join(subject.split())[:_LONGEST_SUBJECT]
        message["Date"] = formatdate(now)
        message["Message-ID"] = f"<{id_}@{self.sender.rpartition('@')[2] or 'muster'}>"
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(text)
        try:
            with self._connected() as client:
                refused = client.send_message(message, self.sender, list(self.to))
        except smtplib.SMTPRecipientsRefused as problem:
            raise Undelivered(f"the mail server refuses {', '.join(sorted(problem.recipients))}") from None
        except smtplib.SMTPResponseException as problem:
            raise Undelivered(f"the mail server answers {problem.smtp_code}") from None
        except (smtplib.SMTPException, OSError, ValueError) as problem:
            what = "takes too long" if isinstance(problem, TimeoutError) else type(problem).__name__
            raise Undelivered(f"the mail server {self.host}:{self.port}: {what}") from None
        if refused:
            raise Undelivered(f"the mail server refuses {', '.join(sorted(refused))}")

    @contextmanager
    def _connected(self) -> Iterator[smtplib.SMTP]:
        """A session that is over when its seconds are, whatever the server does."""
        with _Watched(self.seconds) as watch:
            # A second more, so that it is the watch that ends it and the error says so.
            client = _Session(self.host, self.port, self.seconds + 1, watch)
            try:
                if self.tls == STARTTLS:
                    client.starttls(context=ssl.create_default_context(cafile=self.roots))
                    watch.check()
                if self.user:
                    client.login(self.user, self.password)
                yield client
                with suppress(smtplib.SMTPException, OSError):
                    client.quit()
            finally:
                client.close()


class _Watched:
    """Hangs up on a server whose time is over: each of its answers alone may be in time."""

    def __init__(self, seconds: float) -> None:
        self.is_over = False
        self.session: smtplib.SMTP | None = None
        self._timer = threading.Timer(seconds, self._hang_up)
        self._timer.daemon = True

    def __enter__(self) -> _Watched:
        self._timer.start()
        return self

    def __exit__(self, kind: object, problem: BaseException | None, trace: object) -> None:
        self._timer.cancel()
        if self.is_over and isinstance(problem, smtplib.SMTPException | OSError):
            raise TimeoutError from None

    def _hang_up(self) -> None:
        self.is_over = True
        wire = None if self.session is None else self.session.sock
        if wire is not None:
            with suppress(OSError):
                wire.shutdown(socket.SHUT_RDWR)

    def check(self) -> None:
        """Raises TimeoutError where nobody could be hung up on when the time was over."""
        if self.is_over:
            raise TimeoutError


class _Session(smtplib.SMTP):
    def __init__(self, host: str, port: int, seconds: float, watch: _Watched) -> None:
        self._watch = watch
        # Without a name of our own smtplib would ask the name servers for one.
        super().__init__(host, port, socket.gethostname(), timeout=seconds)

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        self.sock = socket.create_connection((host, port), timeout)
        self._watch.session = self
        self._watch.check()
        return self.sock
