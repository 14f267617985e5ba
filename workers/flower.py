"""`python -m workers.flower`: Flower, to look at and not to touch.

Flower as it comes can stop workers, revoke and send jobs, and leaves some pages open although a password is set. So
every request passes a gate of ours first: the password, then that it only reads; its own switches (`read_only`,
`basic_auth`) are on as well. It asks workers nothing: they take no remote control, and their events tell enough.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import logging
import re
import signal
from typing import Any

from celery.signals import setup_logging
from flower.app import Flower
from flower.options import default_options as options
from flower.urls import settings as tornado_settings
from tornado.httputil import HTTPServerRequest
from tornado.web import RequestHandler

from app.logs.structured import configure
from app.settings import BadSetting, Settings, from_environment
from app.transport.celery_app import make_celery
from workers.flower_auth import credentials

log = logging.getLogger(__name__)

READS = ("GET", "HEAD")
READ_BY_POST = "/tasks/datatable"
"""The rows of the page of tasks: its query is too long for an address."""

MOST_TASKS = 20_000
"""Tasks that are shown, the newest. They are kept in memory, and nowhere else."""

_BIND = re.compile(r"(?P<host>[0-9A-Za-z.-]+|\[[0-9a-f:.]+\]):(?P<port>[0-9]{1,5})")

FORGET_AFTER = 3600
"""Seconds after which a worker that is away is no longer listed."""


class Refusal(RequestHandler):
    """Says no, and why."""

    def initialize(self, status: int, why: str) -> None:
        self._refused = status, why

    def check_xsrf_cookie(self) -> None:
        """Nothing is done for the request, so nobody needs to show that he meant it."""

    def prepare(self) -> None:
        status, why = self._refused
        self.set_status(status)
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        if status == 401:
            self.set_header("WWW-Authenticate", 'Basic realm="muster"')
        else:
            self.set_header("Allow", ", ".join(READS))
        self.finish(why + "\n")


class ReadOnlyFlower(Flower):
    """Flower behind our gate."""

    def __init__(self, auth: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._auth = auth.encode()

    def find_handler(self, request: HTTPServerRequest, **kwargs: Any) -> Any:
        """The handler for a request, or the one that refuses it."""
        refused = self._refused(request)
        if refused is None:
            return super().find_handler(request, **kwargs)
        status, why = refused
        return self.get_handler_delegate(request, Refusal, {"status": status, "why": why})

    def _refused(self, request: HTTPServerRequest) -> tuple[int, str] | None:
        if not hmac.compare_digest(_given(request), self._auth):
            return 401, "this needs the user and password of MUSTER_FLOWER_AUTH, or of the file flower.auth"
        if request.method not in READS and (request.method, request.path) != ("POST", READ_BY_POST):
            return 405, "this Flower is for looking only; use `muster` to act"
        return None

    def update_workers(self, workername: str | None = None) -> asyncio.Future[None]:
        """Nobody is asked: no worker answers remote control."""
        nothing = self.io_loop.asyncio_loop.create_future()
        nothing.set_result(None)
        return nothing


def _given(request: HTTPServerRequest) -> bytes:
    kind, _, rest = request.headers.get("Authorization", "").partition(" ")
    try:
        return base64.b64decode(rest.strip(), validate=True) if kind.lower() == "basic" else b""
    except ValueError:
        return b""


def make(settings: Settings) -> ReadOnlyFlower:
    """Flower for these settings. Raises BadSetting, NotAllowed."""
    auth = credentials(settings.flower_auth, settings.data_dir)
    bind = _BIND.fullmatch(settings.flower_bind)
    if bind is None or int(bind["port"]) > 65_535:
        raise BadSetting(
            f"MUSTER_FLOWER_BIND={settings.flower_bind!r} is no address and port", hint="127.0.0.1:5555"
        )
    options.address, options.port = bind["host"].strip("[]"), int(bind["port"])
    options.read_only, options.persistent, options.enable_events = True, False, False
    options.basic_auth, options.max_tasks = [auth], MOST_TASKS
    options.purge_offline_workers = FORGET_AFTER
    app = make_celery("sender", broker_url=settings.broker, name="flower")
    return ReadOnlyFlower(auth, capp=app, options=options, **tornado_settings)


def main() -> None:
    """Serve until SIGTERM or Ctrl-C."""
    settings = from_environment()
    configure(settings, process="flower")
    setup_logging.connect(lambda **_: None, weak=False)
    logging.getLogger("tornado.access").setLevel(logging.ERROR)
    flower = make(settings)
    flower.start_http_server()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: flower.io_loop.add_callback_from_signal(flower.stop))
    log.info("flower listens on %s", settings.flower_bind)
    flower.start()


if __name__ == "__main__":
    main()
