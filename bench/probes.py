"""Spans: which function of a worker took how long, on which thread, and how much of it on a CPU.

A worker with probes writes them to BENCH_SPANS/NAME.json when it ends. They cost some 2 µs a call.
"""

from __future__ import annotations

import functools
import json
import os
import threading
import time
from collections.abc import Callable
from typing import Any

Identify = Callable[[tuple[Any, ...], Any], str]
"""(arguments, answer) of a call → the Celery task id that it was about."""


class Probes:
    """The spans of one process: label, id, thread, begin and end (Unix seconds), seconds of CPU."""

    def __init__(self) -> None:
        self._spans: list[tuple[str, str, int, float, float, float]] = []

    def wrap(self, owner: Any, name: str, label: str = "", about: Identify | None = None) -> None:
        """Replaces `owner`.`name` by itself with a probe around."""
        inner = getattr(owner, name)
        label = label or f"{getattr(owner, '__name__', owner)}.{name}"
        spans = self._spans

        @functools.wraps(inner)
        def probed(*arguments: Any, **named: Any) -> Any:
            answer = None
            began, cpu = time.time(), time.thread_time()
            try:
                answer = inner(*arguments, **named)
                return answer
            finally:
                ended, used = time.time(), time.thread_time() - cpu
                about_ = about(arguments, answer) if about else ""
                spans.append((label, about_, threading.get_ident(), began, ended, used))

        setattr(owner, name, probed)

    def add(self, label: str, began: float, cpu: float) -> None:
        """A span that ends now; `cpu` is the thread's CPU time at its begin."""
        used = time.thread_time() - cpu
        self._spans.append((label, "", threading.get_ident(), began, time.time(), used))

    def dump(self, name: str) -> None:
        path = os.path.join(os.environ["BENCH_SPANS"], f"{name}.spans.json")
        with open(path, "w", encoding="utf-8") as file:
            json.dump(self._spans, file)
