"""A mail server that talks SMTP over a real socket: greets, takes STARTTLS, logs in, keeps what it is sent."""

from __future__ import annotations

import base64
import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email import message_from_bytes, policy
from email.message import EmailMessage


@dataclass
class Letter:
    sender: str
    to: list[str]
    user: str
    was_encrypted: bool
    message: EmailMessage


class MailServer(socketserver.ThreadingTCPServer):
    """`letters` are those that it took. `refuses`: recipients that it does not know; `mood` is how it behaves."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, tls: ssl.SSLContext | None, user: str, password: str) -> None:
        super().__init__(("127.0.0.1", 0), _Conversation)
        self.tls = tls
        self.user, self.password = user, password
        self.letters: list[Letter] = []
        self.refuses: set[str] = set()
        self.mood = ""
        self.closing = threading.Event()

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is what some tests are about."""


@contextmanager
def mail_server(
    tls: ssl.SSLContext | None = None, user: str = "", password: str = ""
) -> Iterator[MailServer]:
    server = MailServer(tls, user, password)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        server.server_close()


class _Conversation(socketserver.StreamRequestHandler):
    server: MailServer

    def handle(self) -> None:
        self.sender, self.to, self.user, self.is_encrypted = "", [], "", False
        if self.server.mood == "silent":
            self.server.closing.wait()
        if self.server.mood == "drips":
            while not self.server.closing.wait(0.05):
                self.wfile.write(b"2")
        self.say("421 no" if self.server.mood == "busy" else "220 mail.test ESMTP")
        while line := self.rfile.readline():
            word, _, rest = line.decode().strip().partition(" ")
            answer = getattr(self, f"on_{word.lower()}", None)
            if answer is None:
                self.say("502 what?")
            elif answer(rest):
                return

    def say(self, *lines: str) -> None:
        self.wfile.write("".join(f"{line}\r\n" for line in lines).encode())

    def on_ehlo(self, rest: str) -> None:
        more = ["250-STARTTLS"] if self.server.tls and not self.is_encrypted else []
        self.say("250-mail.test", *more, *(["250-AUTH PLAIN"] if self.server.user else []), "250 8BITMIME")

    def on_starttls(self, rest: str) -> None:
        self.say("220 go ahead")
        assert self.server.tls is not None
        self.secure = self.server.tls.wrap_socket(self.request, server_side=True)
        self.rfile, self.wfile = self.secure.makefile("rb"), self.secure.makefile("wb", buffering=0)
        self.is_encrypted = True

    def finish(self) -> None:
        super().finish()
        if self.is_encrypted:
            self.secure.close()

    def on_auth(self, rest: str) -> None:
        _, user, password = base64.b64decode(rest.split()[1]).decode().split("\0")
        good = (user, password) == (self.server.user, self.server.password)
        self.user = user if good else ""
        self.say("235 welcome" if good else "535 no")

    def on_mail(self, rest: str) -> None:
        if self.server.user and not self.user:
            self.say("530 log in first")
            return
        self.sender = rest.partition("<")[2].partition(">")[0]
        self.say("250 ok")

    def on_rcpt(self, rest: str) -> None:
        address = rest.partition("<")[2].partition(">")[0]
        if address in self.server.refuses:
            self.say("550 unknown")
            return
        self.to.append(address)
        self.say("250 ok")

    def on_data(self, rest: str) -> None:
        self.say("354 go on")
        lines = []
        while (line := self.rfile.readline()) != b".\r\n":
            lines.append(line[1:] if line.startswith(b"..") else line)
        message = message_from_bytes(b"".join(lines), policy=policy.default)
        assert isinstance(message, EmailMessage)
        self.server.letters.append(Letter(self.sender, self.to, self.user, self.is_encrypted, message))
        self.say("250 taken")

    def on_rset(self, rest: str) -> None:
        self.sender, self.to = "", []
        self.say("250 ok")

    def on_quit(self, rest: str) -> bool:
        self.say("221 bye")
        return True
