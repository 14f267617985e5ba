"""A node's directory with the control side's keys: orders in, outcomes out, no broker."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from app.node.identity import write_identity
from app.node.station import Station
from app.node.told import told
from app.settings import Settings
from app.transport import deploy, jose
from app.transport.celery_app import make_celery
from app.transport.keys import KeyPair
from app.transport.messages import Job, Order, Outcome, canonical
from app.transport.sealing import Signer, open_outcome, seal_order

NOWHERE = "redis://127.0.0.1:1/0"


class Place:
    """A node's directory and the control side's keys."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.control = KeyPair.generate()
        self.keys = KeyPair.generate()
        self.keys.save(directory / "node.keys")
        write_identity(directory, "web-1", "INST", [self.control.public()])
        self.effects = directory / "effects"
        self.station = self.new_station()

    def new_station(self, **settings: Any) -> Station:
        app = make_celery("node", broker_url=NOWHERE, name="node-web-1", queues=("node.web-1",))
        given = {"node": "web-1", "node_dir": str(self.directory), "redis_url": NOWHERE, "grace": 0.5}
        station = Station(Settings(**{**given, **settings}), app)
        station.runner.ensure()
        return station

    def job(self, name: str, script: str = "", **fields: Any) -> Job:
        script = script or f"echo {name} >> {self.effects}"
        plan = deploy.of_script("sh", script)
        return Job(f"E.{name}.0.1", "E", name, 0, 1, "core.shell", *plan, **fields)

    def order(
        self,
        job: Job,
        *others: Job,
        signer: KeyPair | None = None,
        files: Mapping[str, str] | None = None,
        at_once: bool = False,
    ) -> str:
        """To run a job, and then or `at_once` the others."""
        now, epoch, jobs = time.time(), self.station.journal.epoch, (job, *others)
        order = Order("O" + job.id, "INST", "web-1", epoch, "run", now, now + 60, jobs=jobs)
        order = replace(order, files=files, at_once=at_once)
        return seal_order(order, signer or self.control, self.keys.public_keys)

    def order_of_version_1(self, job: Job) -> tuple[str, str]:
        """The order of the same job as it was before there were deploy plans, and the job's digest in it."""
        old = told(job)
        for name in ("file", "mode", "cleanup"):
            del old[name]
        digest = hashlib.sha256(canonical(old)).hexdigest()
        now = time.time()
        claims = Order(
            "O1", "INST", "web-1", self.station.journal.epoch, "run", now, now + 60, (job,)
        ).to_json()
        claims |= {"jobs": [old], "digests": [digest], "order_version": 1}
        signed = jose.sign(canonical(claims), "order+jws", self.control.kid, self.control.sign)
        return jose.seal(signed, self.keys.public_keys.seal).decode(), digest

    def outcome(self, job: Job) -> Outcome:
        entry = self.station.journal.find("INST", job.id)
        assert entry is not None
        assert entry.outcome is not None
        known = Signer("web-1", None, self.keys.public_keys)
        return open_outcome(entry.outcome, self.control, lambda kid: known)

    def ran(self) -> list[str]:
        return self.effects.read_text().split() if self.effects.exists() else []

    def close(self) -> None:
        """Ends the runner and its scripts."""
        self.station.runner.stop(cancel=True)
        self.let_go()

    def let_go(self) -> None:
        """Ends the station as a worker that leaves; the scripts go on."""
        self.station.release()
        self.station.runner.close()
        self.station.output.close(0.1)
        self.station.journal.close()

    def cancel(self, job: Job) -> None:
        self.say("cancel", job)

    def say(self, kind: str, job: Job) -> None:
        """An order about a job."""
        now = time.time()
        epoch = self.station.journal.epoch
        order = Order(kind + job.id, "INST", "web-1", epoch, kind, now, now + 60, job_ids=(job.id,))
        self.station.obey(seal_order(order, self.control, self.keys.public_keys))
