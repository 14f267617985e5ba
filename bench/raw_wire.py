"""What the peer's workers and its client share: names, settings, how to reach Redis."""

from __future__ import annotations

from typing import Any

import redis
from celery import Celery
from celery.backends.redis import RedisBackend

TRUE, HOP, JOIN, COUNT = "raw.true", "raw.hop", "raw.join", "raw.count"
SHELL = "raw.shell"
CONTROL = "raw.control"

SLOTS = 8


class CountingBackend(RedisBackend):  # type: ignore[misc]
    """Counts chords. Nobody waits for a result here, so none is subscribed to: cheaper for the peer than its own."""

    def on_task_call(self, producer: Any, task_id: str) -> None:
        pass

    def add_pending_result(self, result: Any, *args: Any, **options: Any) -> Any:
        return result

    def add_pending_results(self, results: Any, *args: Any, **options: Any) -> Any:
        return results

    def remove_pending_result(self, result: Any) -> Any:
        return result


def make_app(broker: str, queue: str, rabbit: str = "") -> Any:
    """A Celery app as a user would set it up who wants speed and keeps nothing; `rabbit` is its broker's URL if that is
    no Redis."""
    app = Celery("raw", broker=rabbit or broker, backend=broker, set_as_current=False)
    app.loader.override_backends = {"redis": "bench.raw_wire:CountingBackend"}
    app.conf.update(
        task_ignore_result=True,
        task_acks_late=False,
        task_default_queue=queue,
        task_serializer="json",
        result_serializer="json",
        accept_content=["json"],
        worker_prefetch_multiplier=4,
        worker_pool="threads",
        worker_concurrency=SLOTS,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        broker_connection_retry_on_startup=True,
    )
    return app


def make_result_app(broker: str) -> Any:
    """An app whose results are kept in Redis and read from there, by Celery's own backend."""
    app = Celery("raw", broker=broker, backend=broker, set_as_current=False)
    app.conf.update(worker_prefetch_multiplier=1, broker_connection_retry_on_startup=True)
    return app


def shell_queue(number: int) -> str:
    """The queue of one of the workers that run SHELL."""
    return f"raw.shell-{number}"


def url(socket_path: str) -> str:
    """The peer's database on the Redis that both sides use, as kombu spells it."""
    return f"redis+socket://{socket_path}?virtual_host=1"


def connect(broker: str, database: int = 1) -> redis.Redis:
    """A client of the same database, or of another one on that Redis: ours is 0."""
    path = broker.partition("://")[2].partition("?")[0]
    # A relay waits for what it is asked for as long as it takes.
    return redis.Redis(unix_socket_path=path, db=database, socket_timeout=None)
