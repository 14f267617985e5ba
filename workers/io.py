"""`celery -A workers.io worker`: makes the calls of `core.http` and `core.celery`.

A worker of its own, so that a server that answers slowly holds up no outcome. It needs the database and the broker, and
no key: what follows a call is handed over by control.
"""

from __future__ import annotations

import logging
from functools import cache
from pathlib import Path
from typing import Any

from celery.signals import setup_logging, worker_init, worker_ready, worker_shutdown

from app.cycles import collect_rarely
from app.logs import scope
from app.logs.structured import configure
from app.services import calling, spans
from app.services.calling import Caller
from app.services.control import Control
from app.settings import from_environment
from app.store.db import Store
from app.transport import queues
from app.transport.addresses import Policy
from app.transport.celery_app import make_celery
from app.transport.send import Sender
from workers import celerys

settings = from_environment()
name = f"{settings.control_name}-io"
configure(settings, process="io", worker=name)
setup_logging.connect(lambda **_: None, weak=False)  # so that Celery leaves it alone
celerys.refuse_options()
collect_rarely()
log = logging.getLogger(__name__)
# Here, so that a worker with a setting that is wrong does not start at all.
policy = Policy.read(settings.http_allow_private, settings.http_allow)

celery = make_celery(
    "control",
    broker_url=settings.broker,
    name=name,
    queues=(queues.IO,),
    concurrency=settings.io_concurrency,
    state_dir=Path(settings.data_dir),
)
celery.conf.worker_send_task_events = settings.task_events


@cache
def caller() -> Caller:
    """This life of the worker: the database, and where foreign tasks go."""
    tell = spans.exporter(settings, "io")
    control = Control(settings, Store(settings.database), nudge=Sender(celery).settle, spans=tell)
    return Caller.start(control, name, policy)


@worker_init.connect(weak=False)
def _starting(**_: Any) -> None:
    caller()


@worker_ready.connect(weak=False)
def _ready(**_: Any) -> None:
    left = calling.inherit(caller())
    if left:
        log.warning("calls that an earlier life of this worker did not end", extra=scope.facts(calls=left))


@worker_shutdown.connect(weak=False)
def _gone(**_: Any) -> None:
    caller().foreign.close()


@celery.task(name=queues.CALL)
def call(job: str) -> None:
    """Make a call, or ask about one; the argument is an id, so a forged or late one changes nothing."""
    scope.begin(job=str(job))
    calling.look(caller(), str(job))
