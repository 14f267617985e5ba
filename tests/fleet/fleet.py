"""A whole Muster fleet for a test: Redis, control, beat, node workers with their runners, and the truth outside.

Scripts of the tests append `$MUSTER_JOB` to `Fleet.effects`, which no part of Muster knows of: what stands there
ran, as often as it stands there.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from bare_path import KSH, path_without
from fleet_database import Database
from fleet_processes import BIN, Broker, Keeper, Part, kill_all_with
from rabbit import ON_RABBIT, Rabbit, rabbitmqctl
from sqlalchemy import insert, select
from waiting import PATIENCE, wait_until

from app.compiler.build import build
from app.engine.status import EXECUTION_OVER, UNKNOWN
from app.language.parse import load_or_raise
from app.node import endpoint
from app.node.identity import KEY_FILE, write_identity
from app.services import cancel as cancelling
from app.services import installation, replay, rotation
from app.services.control import Control
from app.services.submit import Submission, submit
from app.settings import Settings
from app.store import migrate
from app.store.db import Store
from app.store.tables import DeadLetter, Event, Execution, Job, Node, Output, Task, table
from app.transport.celery_app import make_celery
from app.transport.keys import KeyPair
from app.transport.send import Sender

executions, tasks, jobs = table(Execution), table(Task), table(Job)
nodes, outputs, letters, events = table(Node), table(Output), table(DeadLetter), table(Event)

QUICK = {
    "MUSTER_HEARTBEAT_EVERY": "1",
    "MUSTER_RESEND_AFTER": "1",
    "MUSTER_NODE_SLOTS": "4",
    "MUSTER_GRACE": "1",
    "MUSTER_OFFLINE_AFTER": "6",
    "MUSTER_LOST_AFTER": "12",
    # What is allowed has tests of its own; these make up their commands.
    "MUSTER_ALLOWLIST_MODE": "off",
}
"""Settings that make a fleet notice and mend within seconds."""


class Fleet:
    """`with Fleet(...) as fleet`. `tcp`: workers reach Redis by a port, so that MONITOR can tell them apart.

    `redis_url`, set before it starts, makes the URL that workers are given, to put a proxy in between; `own` says what
    else a process sees, by its name: `api` is who submits.
    """

    def __init__(
        self,
        names: Sequence[str] = ("local", "web-1", "web-2", "web-3"),
        *,
        tcp: bool = False,
        has_control: bool = True,
        postgres: str = "",
        **environment: str,
    ) -> None:
        self.names = tuple(names)
        self.directory = Path(tempfile.mkdtemp(prefix="mf-", dir="/tmp"))
        self.effects = self.directory / "effects"
        self.effects.touch()
        self.keeper = Keeper()
        self.has_control = has_control
        self._environment = {**QUICK, **environment}
        self._port = free_port() if tcp else 0
        self.broker = Broker(self.directory, self._port)
        self.rabbit = Rabbit() if ON_RABBIT else None
        self.url = self.rabbit.url if self.rabbit else f"redis+socket://{self.broker.socket}"
        self._redis = f"redis+socket://{self.broker.socket}"
        self._workers_url = f"redis://127.0.0.1:{self._port}/0" if tcp else self._redis
        self.redis_url: Callable[[Path], str] | None = None
        self.own: Callable[[str], dict[str, str]] = lambda _: {}
        self._database = Database(self.directory, postgres)
        self._app: Any = None

    def __enter__(self) -> Fleet:
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, problem: object, *_: object) -> None:
        self.close(replays=problem is None)

    def _start(self) -> None:
        self.keeper.add(self.broker.part)
        if self.rabbit:
            self.rabbit.make()
        self.store = Store(self._database.make())
        migrate.upgrade(self.store)
        installed = installation.ensure(self.store, str(self.directory), time.time())
        rotation.ensure(Control(Settings(data_dir=str(self.directory)), self.store))
        for name in self.names:
            self._enrol(name, installed)
        wait_until(self.broker.answers, "redis-server")
        if self.redis_url is not None:
            self._workers_url = self.redis_url(self.directory)
        broker = self.own("api").get("CELERY_BROKER_URL", self.url)
        self._app = make_celery("sender", broker_url=broker, name="cli")
        self.sender = Sender(self._app)
        self.control = Control(self.settings(), self.store, nudge=self.sender.settle)
        if self.has_control:
            self._celery("control", "workers.control", "worker")
        self._celery("beat", "workers.beat", "beat")
        for name in self.names:
            self._celery(name, "workers.node", "worker", MUSTER_NODE=name, PATH=self._path(name))
        if self.has_control:
            self.wait_ready()

    def settings(self) -> Settings:
        return Settings(data_dir=str(self.directory), database_url=self.store.url.render_as_string(False))

    def _enrol(self, name: str, installed: installation.Installed) -> None:
        directory = self.directory / "nodes" / name
        directory.mkdir(mode=0o700, parents=True)
        keys = KeyPair.generate()
        keys.save(directory / KEY_FILE)
        write_identity(directory, name, installed.id, [installed.public])
        values = {"public_keys": keys.public(), "sign_kid": keys.kid, "enrolled_at": time.time()}
        labels = {"role": name.partition("-")[0]}
        with self.store.write() as connection:
            connection.execute(insert(nodes).values(name=name, labels=labels, shells=[], slots=0, **values))

    def environment(self, **more: str) -> dict[str, str]:
        """What a process of this fleet sees."""
        ours = ("MUSTER", "REDIS", "DATABASE", "CELERY")
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith(ours)},
            "REDIS_URL": self._workers_url,
            **({"CELERY_BROKER_URL": self.url} if self.rabbit else {}),
            "MUSTER_DATA_DIR": str(self.directory),
            "DATABASE_URL": self.store.url.render_as_string(False),
            **self._environment,
            **more,
        }

    def _celery(self, name: str, app: str, *words: str, **environment: str) -> Part:
        command = [str(BIN / "celery"), "-A", app, *words]
        return self.keeper.add(
            Part(
                name,
                command,
                self.environment(**environment, **self.own(name)),
                self.directory / f"{name}.log",
            )
        )

    def _path(self, name: str) -> str:
        """PATH of a node: all but `local` and web-3 have a `ksh`, whatever this machine has."""
        shells, bare = self.directory / "shells", self.directory / "bare"
        if not shells.exists():
            shells.mkdir()
            (shells / "ksh").symlink_to("/bin/sh")
            path_without(KSH, bare)
        return str(bare) if name in ("local", "web-3") else f"{shells}{os.pathsep}{os.environ['PATH']}"

    def wait_ready(self) -> None:
        """Control has heard every node since this was called: then it consumes, and so do they."""
        since = time.time()
        wait_until(lambda: not self.unheard(since), lambda: "\n".join(map(self.log, self.unheard(since))))

    def unheard(self, since: float) -> list[str]:
        """Nodes without a heartbeat since a Unix time."""
        return [row.name for row in self.nodes() if not row.last_seen or row.last_seen <= since]

    def close(self, *, replays: bool = False) -> None:
        """Stops everything. With `replays`, every execution that is left is made again from its events."""
        self.keeper.close("redis")
        self._stop_runners()
        kill_all_with(str(self.directory))
        self.broker.close()
        if self._app is not None:
            self._app.close()
        odd: list[str] = []
        if self.rabbit:
            self.rabbit.drop()
        if hasattr(self, "store"):
            odd = list(self._replayed_otherwise()) if replays else []
            self.store.close()
        self._database.drop()
        shutil.rmtree(self.directory, ignore_errors=True)
        assert not odd, "the replay of its events comes to something else: " + "; ".join(odd[:10])

    def _replayed_otherwise(self) -> Iterator[str]:
        """Every execution that is left, made again from its events."""
        with self.store.read() as connection:
            for execution in connection.execute(select(executions.c.id)).scalars().all():
                found = replay.replayed(connection, execution)
                yield from (f"{execution}: {one}" for one in found.differences)

    def _stop_runners(self) -> None:
        for name in self.names:
            with suppress(OSError), endpoint.connect(str(self.directory / "nodes" / name), 2.0) as runner:
                runner.sendall(b'{"id": 1, "do": "stop", "cancel": true}\n')
                runner.recv(4096)

    # what happens to it

    def kill(self, name: str) -> None:
        """SIGKILL; the process is started again."""
        self.keeper.send(name, signal.SIGKILL)

    def runner_pid(self, name: str) -> int:
        return int(endpoint.read(str(self.directory / "nodes" / name))["pid"])

    def second_control(self) -> None:
        part = self._celery("control-2", "workers.control", "worker", MUSTER_CONTROL_NAME="control-2")
        wait_until(lambda: self._is_connected("control-2"), lambda: self.log(part.name))

    def _is_connected(self, worker: str) -> bool:
        """Whether a worker of this name talks to the broker."""
        if self.rabbit:
            return f"muster:control:{worker}" in rabbitmqctl("list_connections", "client_properties")
        return any(worker in row["name"] for row in self.broker.client.client_list())

    def worker_of_calls(self) -> Part:
        """Starts `io`, which makes the calls of `core.http` and `core.celery`: most tests need none."""
        return self._celery("io", "workers.io", "worker")

    def gateway(self, **environment: str) -> Part:
        """Starts the worker that reaches machines over SSH."""
        return self._celery("ssh", "workers.remote", "worker", **environment)

    def kill_runner(self, name: str) -> int:
        pid = self.runner_pid(name)
        os.kill(pid, signal.SIGKILL)
        return pid

    # executions

    def submit(self, text: str, **parameters: Any) -> str:
        """Submits a workflow as the API would; `effects` is given where the workflow has such a parameter."""
        return self._submit(self.control, text, parameters)

    def submit_quietly(self, text: str, **parameters: Any) -> str:
        """Submits without a word to the broker: the tick has to find it."""
        return self._submit(Control(self.settings(), self.store), text, parameters)

    def _submit(self, control: Control, text: str, parameters: dict[str, Any]) -> str:
        workflow = load_or_raise(text, "test.yaml")
        if any(parameter.name == "effects" for parameter in workflow.parameters):
            parameters.setdefault("effects", str(self.effects))
        return submit(control, Submission(build(workflow), text, "ada", parameters)).execution

    def cancel(self, execution: str, *, forced: bool = False) -> str:
        return cancelling.cancel(self.control, execution, "ada", forced=forced)

    def wait_for(self, execution: str) -> Any:
        """The execution's row once it is over."""
        return wait_until(lambda: self._over(execution), lambda: self.story(execution))

    def wait_all(self, ids: Iterable[str], seconds: float = PATIENCE) -> dict[str, str]:
        """The status of each once every one is over, or waits with a job that is unknown."""
        wanted = list(ids)
        open_ = wait_until(
            lambda: not self._open(wanted) or None, lambda: self._stories(wanted), seconds=seconds
        )
        assert open_
        with self.store.read() as connection:
            found = connection.execute(select(executions.c.id, executions.c.status))
            return {row.id: row.status for row in found if row.id in wanted}

    def _open(self, wanted: list[str]) -> list[str]:
        with self.store.read() as connection:
            query = select(executions.c.id).where(executions.c.status.not_in(EXECUTION_OVER))
            left = set(connection.execute(query).scalars()) & set(wanted)
            query = select(jobs.c.execution).where(jobs.c.status == UNKNOWN, jobs.c.settled.is_(False))
            return sorted(left - set(connection.execute(query).scalars()))

    def _stories(self, wanted: list[str]) -> str:
        return "\n".join(self.story(execution) for execution in self._open(wanted)[:5])

    def is_over(self, execution: str) -> bool:
        return self._over(execution) is not None

    def _over(self, execution: str) -> Any:
        row = self.execution(execution)
        return row if row.status in EXECUTION_OVER else None

    def execution(self, execution: str) -> Any:
        with self.store.read() as connection:
            return connection.execute(select(executions).where(executions.c.id == execution)).one()

    def tasks(self, execution: str) -> dict[str, Any]:
        with self.store.read() as connection:
            query = select(tasks).where(tasks.c.execution == execution).order_by(tasks.c.task_index)
            return {row.name: row for row in connection.execute(query)}

    def jobs(self, execution: str, task: str = "") -> list[Any]:
        query = select(jobs).where(jobs.c.execution == execution).order_by(jobs.c.created_at, jobs.c.id)
        with self.store.read() as connection:
            return [row for row in connection.execute(query) if task in ("", row.task)]

    def all_jobs(self) -> list[Any]:
        with self.store.read() as connection:
            return list(connection.execute(select(jobs)))

    def job(self, execution: str, task: str) -> Any:
        """The last attempt of a task's only unit; None before it is born."""
        found = self.jobs(execution, task)
        return max(found, key=lambda row: row.attempt) if found else None

    def job_is(self, execution: str, task: str, *statuses: str) -> Any:
        """Waits until a task's job has one of the statuses."""
        return wait_until(
            lambda: (row := self.job(execution, task)) and row.status in statuses and row,
            lambda: f"{task} {statuses}: {self.story(execution)}",
        )

    def outputs(self, job: str) -> dict[str, Any]:
        with self.store.read() as connection:
            return {
                row.stream: row for row in connection.execute(select(outputs).where(outputs.c.job == job))
            }

    def nodes(self) -> list[Any]:
        with self.store.read() as connection:
            return list(connection.execute(select(nodes)))

    def offline(self) -> list[str]:
        return self.unheard(time.time() - float(self._environment["MUSTER_OFFLINE_AFTER"]))

    def letters(self) -> list[Any]:
        with self.store.read() as connection:
            return list(connection.execute(select(letters).order_by(letters.c.id)))

    # the truth outside

    def ran(self) -> Counter[str]:
        """How often each job's script had its effect."""
        return Counter(self.effects.read_text().split())

    def ran_tasks(self, execution: str) -> list[str]:
        """The tasks of an execution whose scripts had their effect, in order."""
        mine = [line for line in self.effects.read_text().split() if line.startswith(execution)]
        return [line.split(".")[1] for line in mine]

    def story(self, execution: str) -> str:
        """Everything that a failing test needs to tell."""
        row = self.execution(execution)
        lines = [f"{execution}: {row.status} intent={row.intent} {row.error_message}"]
        lines += [
            f"  task {t.name}: {t.status} {t.wait_reason} {t.error}" for t in self.tasks(execution).values()
        ]
        for job in self.jobs(execution):
            marks = f"settled={job.settled} sends={job.sends} missing={job.missing} stop={job.stop_asked_at}"
            lines.append(f"  job {job.id} on {job.node}: {job.status} {marks} {job.error}")
        with self.store.read() as connection:
            query = select(events).where(events.c.execution == execution).order_by(events.c.seq)
            lines += [f"  {e.at:.2f} {json.dumps(e.data)[:300]}" for e in connection.execute(query)]
        if self.rabbit:
            lines.append(f"  queues {self.rabbit.contents()}")
        elif self.broker.answers():
            client = self.broker.client
            lists = [key for key in client.scan_iter() if client.type(key) == b"list"]
            lines.append(f"  queues {[(key, client.llen(key)) for key in lists]}")
        return "\n".join(lines)

    def log(self, name: str, last: int = 3000) -> str:
        path = self.directory / f"{name}.log"
        return path.read_text(errors="replace")[-last:] if path.exists() else f"no {path}"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
