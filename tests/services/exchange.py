"""Calls without processes: an office, a real server, and lives of a worker of calls that a test sets to work."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from desk import Office, jobs
from odd_server import OddServer
from sqlalchemy import select
from waiting import PATIENCE, wait_until

from app.services import calling, calls_due, collect
from app.services.calling import Caller
from app.transport.addresses import Policy


class Exchange:
    """An office whose calls are noted in `rung`, and made when a test says so, by `caller` or a later life of it."""

    def __init__(self, directory: Path, server: OddServer) -> None:
        self.office = Office(directory, ["local", "web-1"])
        self.server = server
        self.rung: list[str] = []
        self.office.desk = replace(self.office.desk, call=self.rung.extend)
        self.caller = self.life()

    def life(self) -> Caller:
        return Caller.start(self.office.control, "control-io", Policy.read(False, "127.0.0.1/32"))

    def submit(self, text: str, **parameters: Any) -> str:
        url = f"http://127.0.0.1:{self.server.port}"
        return self.office.submit(text.replace("URL", url), **parameters)

    def make(self) -> None:
        """Make every call that was rung for, and settle what came of it, until nothing is left."""
        while self.rung:
            rung, self.rung[:] = self.rung[:], []
            for job in rung:
                calling.look(self.caller, job)
            self.settle_all()

    def settle_all(self) -> None:
        with self.office.store.read() as connection:
            found = set(connection.execute(select(jobs.c.execution)).scalars())
        for execution in found:
            collect.settle(self.office.desk, execution)

    def tick(self, seconds: float) -> None:
        self.office.clock.now += seconds
        calls_due.look(self.office.desk)

    def job(self, execution: str, task: str = "a", attempt: int = 1) -> Any:
        return self.office.job(f"{execution}.{task}.0.{attempt}")

    def status(self, execution: str) -> str:
        return str(self.office.execution(execution).status)

    @contextmanager
    def held(self, execution: str, task: str = "a") -> Iterator[None]:
        """Inside, the call of a task is on its way: the server has it and does not answer."""
        thread = threading.Thread(target=calling.look, args=(self.caller, f"{execution}.{task}.0.1"))
        thread.start()
        wait_until(lambda: self.server.asked.total())
        try:
            yield
        finally:
            self.server.gate.set()
            thread.join(PATIENCE)
            assert not thread.is_alive()
            self.settle_all()
