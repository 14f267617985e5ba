"""The consumer of `node.<id>.ctl`: a thread and a connection of its own, so that a full pool delays no cancel."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from celery import Celery

from app.transport import gate
from app.transport.celery_app import make_queue
from app.transport.channel import bury_message

log = logging.getLogger(__name__)

RECONNECT = 1.0
"""Seconds between attempts to reach a broker that is away."""


class CtlConsumer:
    """Hands the token of every message on the queue to `obey`; what is no such message goes to the dead."""

    def __init__(self, app: Celery, queue: str, obey: Callable[[Any], None]) -> None:
        self._app = app
        self._queue = queue
        self._obey = obey
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ctl", daemon=True)

    def drain(self) -> None:
        """Take what waits now, before any order to run is taken."""
        with self._app.connection_for_read() as connection, connection.channel() as channel:
            queue = make_queue(self._queue).bind(channel)
            queue.declare()
            while (message := queue.get(no_ack=False)) is not None:
                self._take(message)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(3.0)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._consume()
            except Exception:  # the edge to the broker's client: any error means connecting anew
                if not self._stop.is_set():
                    log.warning("the ctl queue is away", exc_info=True)
                    self._stop.wait(RECONNECT)

    def _consume(self) -> None:
        # Without heartbeats a broker that is gone without a word would look quiet.
        heartbeat = self._app.conf.broker_heartbeat
        with (
            self._app.connection_for_read(heartbeat=heartbeat) as connection,
            connection.channel() as channel,
        ):
            consumer = self._app.amqp.TaskConsumer(
                channel,
                queues=[make_queue(self._queue)],
                callbacks=[],
                on_message=self._take,
                accept=["json"],
            )
            with consumer:
                while not self._stop.is_set():
                    try:
                        connection.drain_events(timeout=1.0)
                    except TimeoutError:
                        connection.heartbeat_check()

    def _take(self, message: Any) -> None:
        try:
            admitted = gate.admit(self._queue, message.headers, gate.decode(message))
            token = admitted.args[0]
        except Exception as error:  # noqa: BLE001 - the edge: whatever a writer put there ends here
            log.warning("not an order on %s: %s", self._queue, type(error).__name__)
            reason = getattr(error, "code", "bad-body")
            bury_message(self._app, message, self._queue, reason, str(message.body).encode())
            message.ack()
            return
        message.ack()
        self._obey(token)
