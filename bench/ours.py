"""Our side: a fleet on SQLite and the same Redis, and executions submitted in this process as the API does it."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import insert

from app.compiler.build import build
from app.compiler.plan import Plan
from app.language.parse import load_or_raise
from app.node import endpoint, jobdir
from app.node.identity import write_identity
from app.services import installation
from app.services.control import Control
from app.services.submit import Submission, submit
from app.settings import Settings
from app.store.db import Store
from app.store.tables import Base, Node, table
from app.transport.celery_app import make_celery
from app.transport.keys import KeyPair
from app.transport.send import Sender
from bench.processes import BIN, Broken, Processes, stand_still, wait_for, wait_until_gone

END_WITHIN = 120.0
"""Seconds that executions may take."""

LOOK_EVERY = 0.001
"""Seconds between two looks for the end: a read of one row by its key takes some 20 µs."""

_ENDED = frozenset({"completed", "failed", "cancelled", "rejected"})


class Ours:
    """A control worker, beat and `nodes` node workers with their runners, with default settings.

    `control` and `node` name the modules of the workers: the breakdown puts its own in their place. `rabbit` is the URL
    of a RabbitMQ that is the broker in place of Redis.
    """

    def __init__(
        self,
        processes: Processes,
        socket_path: str,
        nodes: int,
        *,
        control: str = "workers.control",
        node: str = "workers.node",
        extra: Mapping[str, str] | None = None,
        rabbit: str = "",
    ) -> None:
        self._processes = processes
        self.directory = processes.directory / "muster"
        self.nodes = [f"node-{number}" for number in range(1, nodes + 1)]
        self.directory.mkdir(mode=0o700)
        redis_url = f"redis+socket://{socket_path}"
        settings = Settings(data_dir=str(self.directory), redis_url=redis_url, broker_url=rabbit)
        self.store = store = Store(settings.database)
        self._enrol(store)
        app = make_celery("sender", broker_url=settings.broker, name="bench")
        self._control = Control(settings, store, nudge=Sender(app).settle)
        self.environment = {
            "MUSTER_DATA_DIR": settings.data_dir,
            "REDIS_URL": redis_url,
            "CELERY_BROKER_URL": rabbit,
            **(extra or {}),
        }
        processes.worker("control", control, self.environment)
        processes.start("beat", [str(BIN / "celery"), "-A", "workers.beat", "beat"], self.environment)
        for name in self.nodes:
            processes.worker(name, node, {**self.environment, "MUSTER_NODE": name})
        self._rows = sqlite3.connect(self.directory / "muster.db", isolation_level=None)
        heard = "SELECT count(*) FROM nodes WHERE last_seen IS NOT NULL"
        wait_for("every node is online", lambda: self.row(heard) == (nodes,), processes)

    def run(self, sources: Sequence[str], jobs_each: int) -> float:
        """Seconds from the first submit until every execution of these workflows has completed.

        Raises Broken where one failed, or where not every job of it ran its script exactly once.
        """
        plans = [(build(load_or_raise(source, "bench.yaml")), source) for source in sources]
        began = time.time()
        executions = [self._submit(plan, source) for plan, source in plans]
        open_, ended = set(executions), began
        while open_:
            open_ = {execution for execution in open_ if not self._has_ended(execution)}
            ended = time.time()
            if ended - began > END_WITHIN:
                raise Broken(f"{sorted(open_)} did not end within {END_WITHIN:.0f} s")
            time.sleep(LOOK_EVERY)
        for execution in executions:
            self.check(execution, jobs_each)
        return ended - began

    @contextmanager
    def control_stopped(self) -> Iterator[None]:
        """The control worker stands still meanwhile."""
        control = self._processes.pids()["control"]
        # Not in the middle of a transaction of its own: nobody else could write until it goes on.
        with self.store.write():
            stand_still(control)
        try:
            yield
        finally:
            os.kill(control, signal.SIGCONT)

    def runner(self, node: str) -> int:
        """The pid of a node's runner."""
        return int(endpoint.read(str(self._node_directory(node)))["pid"])

    def _enrol(self, store: Store) -> None:
        Base.metadata.create_all(store.engine)
        now = time.time()
        installed = installation.ensure(store, str(self.directory), now)
        for name in self.nodes:
            directory = self._node_directory(name)
            directory.mkdir(mode=0o700, parents=True)
            keys = KeyPair.generate()
            keys.save(directory / "node.keys")
            write_identity(directory, name, installed.id, [installed.public])
            row = {"name": name, "public_keys": keys.public(), "sign_kid": keys.kid, "enrolled_at": now}
            with store.write() as connection:
                connection.execute(insert(table(Node)).values(row))

    def _node_directory(self, name: str) -> Path:
        """A node over SSH has its own with the gateway."""
        far = self.directory / "ssh" / name
        return far if far.is_dir() else self.directory / "nodes" / name

    def _submit(self, plan: Plan, source: str) -> str:
        return submit(self._control, Submission(plan, source, "bench", {})).execution

    def _has_ended(self, execution: str) -> bool:
        return self.row("SELECT status FROM executions WHERE id = ?", execution)[0] in _ENDED

    def check(self, execution: str, jobs: int) -> None:
        """Raises Broken unless the execution completed and each of its jobs ran its script exactly once."""
        status = self.row("SELECT status FROM executions WHERE id = ?", execution)[0]
        query = "SELECT count(*) FROM jobs WHERE execution = ? AND status = 'succeeded' AND exit_code = 0"
        recorded = int(self.row(query, execution)[0])
        journalled = sum(self._journalled(name, execution) for name in self.nodes)
        scripts = sum(
            jobdir.exit_record(str(directory)) is not None
            for name in self.nodes
            for directory in self._node_directory(name).glob(f"jobs/{execution}.*")
        )
        if (status, recorded, journalled, scripts) != ("completed", jobs, jobs, jobs):
            raise Broken(
                f"execution {execution} is {status}; of {jobs} jobs {recorded} are recorded as succeeded, "
                f"{journalled} ended in the nodes' journals, {scripts} have an exit record at their runner"
            )

    def _journalled(self, node: str, execution: str) -> int:
        path = self._node_directory(node) / "journal.db"
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as journal:
            query = "SELECT count(*) FROM jobs WHERE job LIKE ? || '.%' AND status = 'ended'"
            return int(journal.execute(query, (execution,)).fetchone()[0])

    def row(self, query: str, *values: Any) -> tuple[Any, ...]:
        """The first row that a query of the database finds."""
        found: tuple[Any, ...] = self._rows.execute(query, values).fetchone()
        return found


def stop_runners(directory: Path) -> None:
    """Ends what the node workers of a bench in `directory` left: a runner outlives its worker, here it may not."""
    for node in directory.glob("muster/nodes/*"):
        pid = endpoint.read(str(node)).get("pid")
        if isinstance(pid, int):
            os.kill(pid, signal.SIGTERM)
            wait_until_gone(pid)
