"""The probes that both kinds of worker have: what Celery and kombu do around a job function."""

from __future__ import annotations

import cProfile
import os
import threading
from typing import Any

import celery.concurrency.thread
from celery.signals import worker_ready, worker_shutdown

from app.transport import channel, publisher, worker
from bench.probes import Probes


def message_id(arguments: tuple[Any, ...], _: Any) -> str:
    return str(arguments[1].headers.get("id", ""))


def install(probes: Probes, name: str) -> None:
    """Puts the probes of Celery's parts in, and has everything written when the worker ends."""
    probes.wrap(
        channel, "envelope", "main: envelope", lambda _, got: str(got["headers"].get("id", "")) if got else ""
    )
    probes.wrap(worker.Consumer, "_admit", "main: gate.admit", message_id)
    probes.wrap(celery.concurrency.thread, "apply_target", "pool: all", lambda given, _: str(given[1][1]))
    probes.wrap(publisher.Publisher, "send", "publish")
    if os.environ.get("BENCH_CPROFILE"):
        _profile(name)

    def dump(**_: Any) -> None:
        probes.dump(name)

    worker_shutdown.connect(dump, weak=False)


def _profile(name: str) -> None:
    """cProfile over the main thread's loop and every job function."""
    directory = os.environ["BENCH_SPANS"]
    main, pool = cProfile.Profile(), cProfile.Profile()
    busy = threading.Lock()
    inner = celery.concurrency.thread.apply_target

    def apply_target(*arguments: Any, **named: Any) -> Any:
        # One profile at a time: a line has one job at a time anyway.
        if not busy.acquire(blocking=False):
            return inner(*arguments, **named)
        pool.enable()
        try:
            return inner(*arguments, **named)
        finally:
            pool.disable()
            busy.release()

    celery.concurrency.thread.apply_target = apply_target

    def begin(**_: Any) -> None:
        main.enable()

    def end(**_: Any) -> None:
        main.disable()
        main.dump_stats(os.path.join(directory, f"{name}.main.prof"))
        pool.dump_stats(os.path.join(directory, f"{name}.pool.prof"))

    worker_ready.connect(begin, weak=False)
    worker_shutdown.connect(end, weak=False)
