"""The app that the tests' workers run: each task notes what it was given."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from app.transport import queues
from app.transport.celery_app import make_celery
from app.transport.gate import canvas_digest, next_link, restore_chord, take_canvas

DIRECTORY = Path(os.environ["FLEET_DIRECTORY"])
ROLE = os.environ["FLEET_ROLE"]
BROKER = os.environ["FLEET_BROKER"]
BACKEND = os.environ.get("FLEET_BACKEND") or (BROKER if BROKER.startswith("redis") else None)
celery = make_celery(
    ROLE,  # type: ignore[arg-type]
    broker_url=BROKER,
    backend_url=BACKEND if ROLE == "control" else None,
    name=os.environ["FLEET_NAME"],
    queues=os.environ["FLEET_QUEUES"].split(","),
    concurrency=3,
    pool="threads",
    state_dir=DIRECTORY,
)
celery.conf.worker_send_task_events = "FLEET_EVENTS" in os.environ


def note(what: str, **more: Any) -> None:
    with (DIRECTORY / "notes").open("a") as file:
        file.write(json.dumps({"what": what, **more}) + "\n")


def wait_while(name: str) -> None:
    end = time.monotonic() + 100
    while (DIRECTORY / name).exists() and time.monotonic() < end:
        time.sleep(0.01)


@celery.task(name=queues.COLLECT, bind=True)
def collect(self: Any, value: str) -> None:
    canvas = take_canvas(self.request)
    note("collect", value=value, id=self.request.id, chain=len(canvas.chain or ()), chord=bool(canvas.chord))
    wait_while("hold")
    known = (DIRECTORY / "digest").read_text() if (DIRECTORY / "digest").exists() else ""
    if canvas and known and canvas_digest(canvas.chain, canvas.chord) in known:
        restore_chord(self.request, canvas)
        link = next_link(self.request, canvas, "next")
        if link is not None:
            celery.publisher.send([link])


@celery.task(name=queues.SETTLE)
def settle(*values: Any) -> None:
    note("settle", values=values)


@celery.task(name=queues.NODE_ORDER, bind=True)
def order(self: Any, value: str) -> None:
    note("order", value=value, id=self.request.id)
    wait_while("hold")
