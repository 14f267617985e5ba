"""A Celery app of another team: it knows nothing of Muster. `celery -A foreign_app worker`, with FOREIGN_REDIS."""

from __future__ import annotations

import os
import time
from pathlib import Path

from celery import Celery

app = Celery("foreign", broker=os.environ["FOREIGN_REDIS"], backend=os.environ["FOREIGN_REDIS"])
app.conf.broker_connection_retry_on_startup = True


class OutOfStock(Exception):
    """An exception that only this app knows."""


@app.task(name="sums.add")
def add(*numbers: float, times: int = 1) -> float:
    return sum(numbers) * times


@app.task(name="sums.whoami", bind=True)
def whoami(self, path: str) -> dict[str, object]:
    with Path(path).open("a") as file:
        file.write(f"{self.request.id}\n")
    return {"id": self.request.id, "queue": self.request.delivery_info["routing_key"]}


@app.task(name="sums.fail")
def fail(message: str) -> None:
    raise OutOfStock(message)


@app.task(name="sums.large")
def large(count: int) -> str:
    return "x" * count


@app.task(name="sums.wait")
def wait(path: str) -> str:
    """Until the file is there."""
    while not Path(path).exists():
        time.sleep(0.05)
    return "it is there"
