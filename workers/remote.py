"""`celery -A workers.remote worker`: the gateway to machines that have only an SSH server.

To control it is as many nodes as there are such machines: it consumes the queue of each, with the keys and the journal
of each. It has the database and the keys for secrets, for the private keys that it logs in with are secrets.
"""

from __future__ import annotations

import logging
from functools import cache, partial
from pathlib import Path
from typing import Any

from celery.signals import setup_logging, worker_init, worker_ready, worker_shutdown, worker_shutting_down

from app.cycles import collect_rarely
from app.gateway.consuming import Consuming
from app.gateway.gateway import Gateway
from app.gateway.post import Post
from app.logs import scope
from app.logs.structured import configure
from app.services import installation
from app.services.control import Control
from app.services.tally import Tally
from app.settings import from_environment
from app.store.db import Store
from app.transport import counters, gate, queues
from app.transport.celery_app import make_celery
from app.transport.channel import dead_lettered
from app.transport.output import connect
from workers import celerys

settings = from_environment()
name = f"{settings.control_name}-ssh"
configure(settings, process="ssh", worker=name)
setup_logging.connect(lambda **_: None, weak=False)  # so that Celery leaves it alone
celerys.refuse_options()
collect_rarely()
# It tells of every session that is opened, with its command.
logging.getLogger("asyncssh").setLevel(logging.WARNING)

celery = make_celery(
    "node",
    broker_url=settings.broker,
    name=name,
    queues=(queues.SSH,),
    # What comes is only handed on, to threads of its node: another one in between would do nothing but that.
    pool="solo",
    state_dir=Path(settings.data_dir),
)
celery.conf.worker_send_task_events = settings.task_events


@cache
def gateway() -> Gateway:
    """This life of the worker."""
    store = Store(settings.database)
    tally = Tally(partial(counters.add, connect(settings.redis_url)))
    return Gateway(Control(settings, store, tally=tally), installation.read(store), celery)


def _post(queue: str) -> Post | None:
    node = queues.node_of(queue)
    return None if node is None else gateway().post(node[0])


@worker_init.connect(weak=False)
def _starting(**_: Any) -> None:
    gateway()


@worker_ready.connect(weak=False)
def _ready(sender: Any, **_: Any) -> None:
    gateway().start(Consuming(sender))


@dead_lettered.connect(weak=False)
def _buried(queue: str, reason: str, **_: Any) -> None:
    post = _post(queue)
    if post is not None:
        post.station.door.refuse(f"{reason} on {queue}")


@worker_shutting_down.connect(weak=False)
def _leaving(**_: Any) -> None:
    gateway().release()


@worker_shutdown.connect(weak=False)
def _gone(**_: Any) -> None:
    gateway().close()
    gateway().control.tally.close()


@celery.task(name=queues.NODE_ORDER, bind=True)
def order(self: Any, token: str) -> None:
    """Run one job on the node whose queue this came by. The order itself names its node: no other can open it."""
    scope.begin()
    post = _post(str((self.request.delivery_info or {}).get("routing_key")))
    canvas = gate.take_canvas(self.request)
    if post is not None:
        post.order(token, canvas)


@celery.task(name=queues.NODE_CTL, bind=True)
def ctl(self: Any, token: str) -> None:
    """An order about jobs of the node whose queue this came by."""
    scope.begin()
    post = _post(str((self.request.delivery_info or {}).get("routing_key")))
    if post is not None:
        post.obey(token)


@celery.task(name=queues.LOOK)
def look(node: str) -> None:
    """Look at the row of a node; the argument is a name, so a forged or late one changes nothing."""
    scope.begin(node=str(node))
    gateway().nudge(str(node))
