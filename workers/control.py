"""`celery -A workers.control worker`: takes outcomes in, settles, hands jobs over, and lets time pass.

Job functions are thin: each calls one service. Nothing here raises for what a node sent: a raised header would
kill its chord.
"""

from __future__ import annotations

import logging
from functools import cache
from pathlib import Path
from typing import Any

from celery.signals import worker_init

from app.services import collect as service
from app.services import installation, output, presence, tick
from app.services.collect import Desk
from app.services.control import Control
from app.services.orders import Signer
from app.services.outcomes import NodeKeys
from app.settings import from_environment
from app.store.db import Store
from app.store.executions import UnknownExecution
from app.transport import gate, queues
from app.transport.celery_app import make_celery
from app.transport.channel import dead_lettered
from app.transport.ends import Ends
from app.transport.output import OutputReader, connect
from app.transport.send import Sender

settings = from_environment()
logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
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


@cache
def desk() -> Desk:
    """This worker's place, made once: the database, the signing key, the sender."""
    store = Store(settings.database)
    installed = installation.ensure(store, settings.data_dir, Control(settings, store).clock())
    sender = Sender(celery)
    control = Control(settings, store, nudge=sender.settle)
    signer = Signer.load(settings, installed.id)
    client = connect(settings.redis_url)
    streams, ends = OutputReader(client), Ends(client)
    return Desk(control, signer, NodeKeys(store), sender.lines, sender.ctl, streams, ends.tell)


@worker_init.connect(weak=False)
def _ready(**_: Any) -> None:
    desk()


@dead_lettered.connect(weak=False)
def _buried(queue: str, reason: str, item: bytes, **_: Any) -> None:
    service.refuse(desk().control, queue, reason, item[:2000].decode("utf-8", "backslashreplace"))


@celery.task(name=queues.COLLECT, bind=True)
def collect(self: Any, token: str) -> str | None:
    """Take in an outcome; the returned order goes to the next link of the chain, if there is one."""
    given = gate.take_canvas(self.request)
    links = tuple(reversed(given.chain or ()))
    canvas = service.Canvas(links, given.chord, given.group_id if given.chord else None)
    redelivered = bool((self.request.delivery_info or {}).get("redelivered"))
    try:
        answer = service.collect(desk(), token, canvas, redelivered=redelivered)
    except Exception:  # a raised header would kill its chord; the node is asked for the outcome again
        log.exception("an outcome could not be recorded")
        return None
    desk().control.nudge(answer.settle)
    for job in answer.fetch:
        celery.send_task(queues.KEEP_OUTPUT, args=[job], queue=queues.CONTROL)
    if answer.order is not None or answer.counts:
        gate.restore_canvas(self.request, given)
    return answer.order


@celery.task(name=queues.SETTLE)
def settle(execution: str) -> None:
    """Fold what is over; the argument is an id, so a forged or late one changes nothing."""
    try:
        service.settle(desk(), execution)
    except UnknownExecution:
        log.info("asked to settle %s, which is not there (any more)", execution[:40])


@celery.task(name=queues.REPORT)
def report(token: str) -> None:
    presence.report(desk(), token)


@celery.task(name=queues.HEARTBEAT)
def heartbeat(token: str) -> None:
    presence.heartbeat(desk(), token)


@celery.task(name=queues.TICK_TASK)
def tick_once() -> None:
    tick.tick(desk(), settings.control_name)


@celery.task(name=queues.KEEP_OUTPUT)
def keep_output(job: str) -> None:
    """Store output that was too large for its outcome: from the live stream, else from the node's spool."""
    output.keep(desk(), job)
