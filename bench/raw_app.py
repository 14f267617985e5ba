"""The peer's workers: raw Celery without records, signatures or stored results. `celery -A bench.raw_app worker`.

RAW_BROKER is Redis' URL, RAW_RABBIT that of RabbitMQ where it is the broker, RAW_QUEUE the queue of this worker. A
canvas ends by pushing the time (Unix seconds) to the Redis list that its last link is told.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import time
from typing import Any

from bench.raw_wire import COUNT, HOP, JOIN, TRUE, connect, make_app

_broker = os.environ["RAW_BROKER"]
_client = connect(_broker)
_ran = itertools.count()

app = make_app(_broker, os.environ["RAW_QUEUE"], os.environ["RAW_RABBIT"])


def true(key: str = "") -> None:
    """Runs `true`, as a job of ours does; the last link of a chain says when it was over."""
    subprocess.run(["true"], check=True)
    next(_ran)
    if key:
        _client.rpush(key, time.time())


def hop(key: str = "") -> None:
    """What a control worker does between two steps where it records nothing."""
    if key:
        _client.rpush(key, time.time())


def join(results: Any, key: str) -> None:
    """The body of a chord."""
    _client.rpush(key, time.time())


def count(key: str) -> None:
    """How many `true` this worker has ended since it was asked before."""
    global _ran
    ran, _ran = next(_ran), itertools.count()
    _client.rpush(key, ran)


for _function, _name in ((true, TRUE), (hop, HOP), (join, JOIN), (count, COUNT)):
    app.task(_function, name=_name)
