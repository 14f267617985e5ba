"""`celery -A workers.beat beat`: one entry, a tick every second. Two of them do no harm."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from celery.signals import beat_init, setup_logging

from app.logs.structured import configure
from app.settings import from_environment
from app.transport import queues
from app.transport.celery_app import make_celery
from workers import celerys

settings = from_environment()
configure(settings, process="beat")
setup_logging.connect(lambda **_: None, weak=False)  # so that Celery leaves it alone
celerys.refuse_options()

TICK_EVERY = 1.0
TICK_EXPIRES = 2.0
"""Seconds: a tick that waited longer is dropped, so that ticks never pile up behind an outage."""

celery = make_celery("beat", broker_url=settings.broker, name="beat", queues=(queues.TICK,))
celery.conf.beat_schedule = {
    "tick": {
        "task": queues.TICK_TASK,
        "schedule": TICK_EVERY,
        "options": {"queue": queues.TICK, "expires": TICK_EXPIRES},
    }
}
celery.conf.beat_schedule_filename = str(Path(settings.data_dir) / "beat.schedule")
celery.conf.beat_max_loop_interval = 1


@beat_init.connect(weak=False)
def _started(**_: Any) -> None:
    """The one line of beat: it says nothing of the ticks themselves."""
    logging.getLogger(__name__).info("beat started")
