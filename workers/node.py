"""`celery -A workers.node worker`: consumes the orders of one machine, and nothing else.

The node's name comes from its identity, in MUSTER_NODE_DIR (or MUSTER_DATA_DIR/nodes/MUSTER_NODE).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any

from celery.signals import setup_logging, worker_init, worker_ready, worker_shutdown, worker_shutting_down

from app.cycles import collect_rarely
from app.logs import scope
from app.logs.lines import configure
from app.node.ctl import CtlConsumer
from app.node.identity import load_identity
from app.node.station import Station
from app.settings import from_environment
from app.transport import gate, queues
from app.transport.celery_app import make_celery
from app.transport.channel import dead_lettered
from workers import celerys

settings = from_environment()
identity = load_identity(settings.node_directory)
configure(settings, process="node", node=identity.node)
setup_logging.connect(lambda **_: None, weak=False)  # so that Celery leaves it alone
celerys.refuse_options()
collect_rarely()

celery = make_celery(
    "node",
    broker_url=settings.broker,
    name=f"node-{identity.node}",
    queues=(queues.node_queue(identity.node),),
    concurrency=settings.node_slots,
    state_dir=settings.node_directory,
)
celery.conf.worker_send_task_events = settings.task_events


@cache
def station() -> Station:
    return Station(settings, celery)


@cache
def ctl() -> CtlConsumer:
    return CtlConsumer(celery, queues.node_ctl_queue(identity.node), station().obey)


@worker_init.connect(weak=False)
def _init(**_: Any) -> None:
    """Cancels that came while the node was away are known before any order is taken."""
    station().open()
    ctl().drain()


@worker_ready.connect(weak=False)
def _ready(sender: Any, **_: Any) -> None:
    """Jobs that share an order get a thread of the pool each, as if each had come in a message of its own."""
    submit = sender.pool.executor.submit

    def spread(what: Callable[[], None]) -> None:
        # Of a pool that has closed meanwhile: whoever is started next finds the job in the journal.
        with suppress(RuntimeError):
            submit(what)

    station().spread = spread
    ctl().start()


@dead_lettered.connect(weak=False)
def _buried(queue: str, reason: str, **_: Any) -> None:
    station().door.refuse(f"{reason} on {queue}")


@worker_shutting_down.connect(weak=False)
def _leaving(**_: Any) -> None:
    station().leave()


@worker_shutdown.connect(weak=False)
def _gone(**_: Any) -> None:
    ctl().close()
    station().close()


@celery.task(name=queues.NODE_ORDER, bind=True)
def order(self: Any, token: str) -> None:
    """Run one job. The rest of the canvas is taken off: the node's sender publishes it from the journal."""
    scope.begin()
    station().run(token, gate.take_canvas(self.request))
