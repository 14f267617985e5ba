"""`celery -A workers.control worker`: takes outcomes in, settles, hands jobs over, and lets time pass.

Job functions are thin: each calls one service. Nothing here raises for what a node sent: a raised header would
kill its chord.
"""

from __future__ import annotations

import logging
import threading
from functools import cache, partial
from pathlib import Path
from typing import Any

from celery.signals import setup_logging, worker_init, worker_shutdown

from app.cycles import collect_rarely
from app.logs import scope
from app.logs.structured import configure
from app.services import collect as service
from app.services import installation, output, presence, spans, tick
from app.services.collect import Desk
from app.services.control import Control
from app.services.courier import Courier
from app.services.intake import Canvas
from app.services.measures import SETTLE_SECONDS
from app.services.orders import Signer
from app.services.outcomes import NodeKeys
from app.services.tally import Tally
from app.settings import from_environment
from app.store.db import Store
from app.store.executions import UnknownExecution
from app.transport import counters, gate, queues
from app.transport.celery_app import make_celery
from app.transport.channel import dead_lettered
from app.transport.ends import Ends
from app.transport.output import OutputReader, connect
from app.transport.send import Sender
from app.transport.wire import Message
from workers import celerys

settings = from_environment()
configure(settings, process="control", worker=settings.control_name)
setup_logging.connect(lambda **_: None, weak=False)  # so that Celery leaves it alone
celerys.refuse_options()
collect_rarely()
log = logging.getLogger(__name__)

celery = make_celery(
    "control",
    broker_url=settings.broker,
    backend_url=settings.redis_url,
    name=settings.control_name,
    queues=(queues.RESULTS, queues.HEARTBEATS, queues.CONTROL, queues.TICK),
    concurrency=settings.control_concurrency,
    state_dir=Path(settings.data_dir),
)
celery.conf.worker_send_task_events = settings.task_events


EARLY_AGAIN = (0.05, 0.1, 0.2, 0.5, 1.0)
"""Seconds after which an outcome that came before the one that it follows is looked at again. After that its node is
asked for it, as for every job that it should hold and does not."""
EARLY_KEPT = 1000
"""Outcomes of which it is remembered how often they were early."""

_early: dict[str, int] = {}

_UNTOLD = {"send_events": False}
"""What comes every second would bury the jobs that somebody looks for in Flower."""


@cache
def sender() -> Sender:
    return Sender(celery)


@cache
def desk() -> Desk:
    """This worker's place, made once: the database, the signing key, the sender."""
    store = Store(settings.database)
    installed = installation.ensure(store, settings.data_dir, Control(settings, store).clock())
    tally = Tally(partial(counters.add, connect(settings.redis_url)))
    tell = spans.exporter(settings, "control")
    control = Control(settings, store, nudge=sender().settle, tally=tally, spans=tell)
    signer = Signer.load(settings, installed.id)
    client = connect(settings.redis_url)
    streams, ends = OutputReader(client), Ends(client)
    sends = sender()
    notify = Courier.of(control).wake
    return Desk(
        control, signer, NodeKeys(store), sends.lines, sends.ctl, streams, ends.tell, sends.calls, notify
    )


@worker_init.connect(weak=False)
def _ready(**_: Any) -> None:
    desk()


@worker_shutdown.connect(weak=False)
def _gone(**_: Any) -> None:
    desk().control.tally.close()


@dead_lettered.connect(weak=False)
def _buried(queue: str, reason: str, item: bytes, **_: Any) -> None:
    service.refuse(desk().control, queue, reason, item[:2000].decode("utf-8", "backslashreplace"))


@celery.task(name=queues.COLLECT, bind=True)
def collect(self: Any, *tokens: str) -> None:
    """Take in outcomes; the order that follows goes to the next link of the chain, if there is one."""
    scope.begin()
    given = gate.take_canvas(self.request)
    links = tuple(reversed(given.chain or ()))
    canvas = Canvas(links, given.chord, given.group_id if given.chord else None)
    redelivered = bool((self.request.delivery_info or {}).get("redelivered"))
    try:
        with desk().control.tally.timed(SETTLE_SECONDS, "collect"):
            answer = service.collect(desk(), tokens, canvas, redelivered=redelivered)
    except Exception:  # a raised header would kill its chord; the node is asked for the outcome again
        log.exception("an outcome could not be recorded")
        return
    desk().control.nudge(answer.settle)
    for job in answer.fetch:
        sender().task(queues.KEEP_OUTPUT, [job], queues.CONTROL)
    if answer.early:
        _once_more(self.request, given, answer.early)
    if answer.order is not None:
        _go_on(self.request, given, answer.order)
    if answer.counts:
        gate.restore_chord(self.request, given)


def _once_more(request: Any, canvas: gate.Canvas, tokens: list[str]) -> None:
    """What came before them is being taken in elsewhere, or its message is still to come."""
    tries = _early.pop(tokens[0], 0)
    if tries == len(EARLY_AGAIN):
        log.warning("an outcome came before the one that it follows, which does not come")
        return
    _early[tokens[0]] = tries + 1
    if len(_early) > EARLY_KEPT:
        _early.pop(next(iter(_early)), None)
    message = Message(
        queues.RESULTS,
        queues.COLLECT,
        request.id,
        tokens,
        chain=canvas.chain,
        chord=canvas.chord,
        group_id=canvas.group_id,
        group_index=canvas.group_index,
    )
    again = threading.Timer(EARLY_AGAIN[tries], sender().link, (message,))
    again.daemon = True
    again.start()


def _go_on(request: Any, canvas: gate.Canvas, order: str) -> None:
    """Sends the next link, which Celery would do at ten times the price; only for a canvas that was found genuine."""
    link = gate.next_link(request, canvas, order)
    if link is not None:
        sender().link(link)


@celery.task(name=queues.SETTLE)
def settle(execution: str) -> None:
    """Fold what is over; the argument is an id, so a forged or late one changes nothing."""
    scope.begin(execution=str(execution))
    try:
        with desk().control.tally.timed(SETTLE_SECONDS, "settle"):
            service.settle(desk(), execution)
    except UnknownExecution:
        log.info("asked to settle an execution that is not there (any more)")


@celery.task(name=queues.REPORT, **_UNTOLD)
def report(token: str) -> None:
    scope.begin()
    presence.report(desk(), token)


@celery.task(name=queues.HEARTBEAT, **_UNTOLD)
def heartbeat(token: str) -> None:
    scope.begin()
    presence.heartbeat(desk(), token)


@celery.task(name=queues.TICK_TASK, **_UNTOLD)
def tick_once() -> None:
    scope.begin()
    tick.tick(desk(), settings.control_name)


@celery.task(name=queues.KEEP_OUTPUT)
def keep_output(job: str) -> None:
    """Store output that was too large for its outcome: from the live stream, else from the node's spool."""
    scope.begin(job=str(job))
    output.keep(desk(), job)
