"""What a client of the runner waits for: answers, and the ends of jobs."""

from __future__ import annotations

import threading
from typing import Any


class Question:
    """One question and, once `done`, its answer; None: the connection broke first.

    `patient` is for who waits for a job's end anyway: that it has begun does not wake him.
    """

    __slots__ = ("answer", "done", "patient")

    def __init__(self, done: threading.Event | None) -> None:
        self.done = done or threading.Event()
        self.patient = done is not None
        self.answer: dict[str, Any] | None = None


class Wait:
    """Somebody who waits for a job: `woken` when there is something to see, the exit record if it came along."""

    __slots__ = ("record", "woken")

    def __init__(self) -> None:
        self.woken = threading.Event()
        self.record: dict[str, Any] | None = None
