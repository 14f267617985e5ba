"""A fleet as its users have it: started by `muster up`, asked over HTTP and by the command line, and nothing else.

Nodes beside those of `muster up` are enrolled and started by hand, as the guide to nodes tells it: those may be killed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from fleet_api import ROLES, Caller
from fleet_database import Database
from fleet_processes import BIN, ROOT, Broker, kill_all_with, processes_with
from rabbit import ON_RABBIT, Rabbit
from waiting import PATIENCE, wait_until

SHIPPED = ROOT / "config" / "allowlist.yaml"
GUIDE = ROOT / "docs" / "user" / "guides" / "workflows.md"
REMOTE_SHELL = GUIDE.with_name("remote-shell.md")
WEB = ("web-1", "web-2", "web-3")
SETTINGS = {
    "MUSTER_HEARTBEAT_EVERY": "1",
    "MUSTER_OFFLINE_AFTER": "5",
    "MUSTER_LOST_AFTER": "10",
    "MUSTER_GRACE": "1",
}
"""A fleet that notices within seconds, and has the same patience otherwise."""


class Servers:
    """What `muster up --external` is given where MUSTER_TEST_BROKER=amqp: RabbitMQ, a Redis, the tests' database."""

    def __init__(self, directory: Path) -> None:
        self._redis = Broker(directory)
        self._rabbit = Rabbit()
        self._database = Database(directory, "")

    def start(self) -> dict[str, str]:
        """Starts or makes them; the settings that name them."""
        self._redis.part.start()
        self._rabbit.make()
        wait_until(self._redis.answers, "redis-server")
        return {
            "REDIS_URL": f"redis+socket://{self._redis.socket}",
            "CELERY_BROKER_URL": self._rabbit.url,
            "DATABASE_URL": self._database.make(),
        }

    def close(self) -> None:
        self._redis.close()
        if self._redis.part.process is not None:
            self._redis.part.process.kill()
            self._redis.part.process.wait()
        self._rabbit.drop()
        self._database.drop()


class Running(Caller):
    """`with Running() as fleet`: three nodes, `local` and Flower. Tests and scripts share the directory `effects`.

    Every node has a `ksh`, whatever this machine has, unless it is enrolled with another PATH.
    """

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="ma-", dir="/tmp"))
        self.data = self.directory / "data"
        self.effects = self.directory / "effects"
        self.effects.mkdir()
        self.allowlist = self.directory / "allowlist.yaml"
        self.allow("audit")
        self._nodes: dict[str, subprocess.Popen[bytes]] = {}
        self._servers = Servers(self.directory) if ON_RABBIT else None
        self._urls: dict[str, str] = {}
        shells = self.directory / "shells"
        shells.mkdir()
        (shells / "ksh").symlink_to("/bin/sh")
        self.path = f"{shells}{os.pathsep}{os.environ['PATH']}"

    def __enter__(self) -> Running:
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self) -> None:
        self._errors = (self.directory / "up.log").open("wb")
        if self._servers is not None:
            self._urls = self._servers.start()
        external = ["--external"] if self._servers is not None else []
        self.up = subprocess.Popen(
            [*MUSTER, "up", "--data", str(self.data), "--nodes", ",".join(WEB), "--flower", *external],
            cwd=self.directory,
            env=self.environment(**self._urls),
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        assert self.up.stdout is not None
        ready = self.up.stdout.readline()
        assert ready.startswith("ready "), (self.directory / "up.log").read_text()
        self.flower = ready.rpartition("flower=")[2].strip()
        client = (self.data / "client.env").read_text()
        known = dict(line.split("=", 1) for line in client.splitlines())
        super().__init__(known["MUSTER_URL"], {"admin": known["MUSTER_TOKEN"]})
        for role in ROLES:
            made = self.muster("token", "create", role, "--role", role, "--json", role="admin")
            self.tokens[role] = json.loads(made.stdout)["token"]

    def environment(self, **more: str) -> dict[str, str]:
        """What a person's shell has, with the allowlist's mode left to its file."""
        ours = ("MUSTER", "REDIS", "DATABASE", "CELERY")
        plain = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        allow = {"MUSTER_ALLOWLIST": str(self.allowlist), "MUSTER_ALLOWLIST_MODE": ""}
        return {
            **plain,
            "PYTHONPATH": str(ROOT),
            "PATH": self.path,
            **SETTINGS,
            **allow,
            **self._urls,
            **more,
        }

    def close(self) -> None:
        for name in list(self._nodes):
            self.kill(name)
        if hasattr(self, "up"):
            with suppress(ProcessLookupError):
                self.up.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                self.up.wait(PATIENCE)
            assert self.up.stdout is not None
            self.up.stdout.close()
            self._errors.close()
        kill_all_with(str(self.directory))
        if hasattr(self, "up"):
            self.up.wait()
        if self._servers is not None:
            self._servers.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def allow(self, mode: str) -> None:
        """The allowlist that is shipped, in a mode. Processes read it again when it changes."""
        text = re.sub("^mode: .*$", f"mode: {mode}", SHIPPED.read_text(), flags=re.M)
        fresh = self.allowlist.with_suffix(".new")
        fresh.write_text(text)
        fresh.replace(self.allowlist)

    # people

    def muster(self, *words: str, role: str = "author") -> subprocess.CompletedProcess[str]:
        """The command line, to its end."""
        return subprocess.run(
            [*MUSTER, *words],
            env=self.client_environment(role),
            cwd=self.directory,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def client_environment(self, role: str) -> dict[str, str]:
        """What somebody with this role has set."""
        return {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "MUSTER_URL": self.url,
            "MUSTER_TOKEN": self.tokens[role],
        }

    def execute(self, node: str, role: str = "operator", wait: float | None = None, **body: Any) -> Any:
        """POST nodes/NODE/execute; the answer."""
        query = "" if wait is None else f"?wait={wait:g}"
        return self.post(f"/nodes/{node}/execute{query}", body, role)

    def run(self, *tasks: dict[str, Any]) -> dict[str, Any]:
        """Executes a workflow that is not stored, to its end; the execution, whose output has each task's result."""
        found: dict[str, Any] = self.begin(*tasks, query="?wait=60")
        return found

    def begin(self, *tasks: dict[str, Any], query: str = "") -> dict[str, Any]:
        """The same without waiting."""
        told = {task["name"]: f"{{{{ task.{task['name']}.result }}}}" for task in tasks}
        definition = {"tasks": list(tasks), "output_map": told}
        asked = self.post(f"/workflow-executions{query}", {"definition": definition}, "author")
        assert asked.status == 201, asked.data
        found: dict[str, Any] = asked.data
        return found

    def execution(self, id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.get(f"/workflow-executions/{id}").data
        return found

    def text(self, path: str, root: str = "/api/v1") -> str:
        """What a path below `root` answers that is no JSON."""
        with self._open("GET", f"{root}{path}", None, "viewer", {}) as answer:
            return str(answer.read().decode())

    def units(self, id: str) -> list[dict[str, Any]]:
        """A row for every unit of every task."""
        found: list[dict[str, Any]] = self.get(f"/workflow-executions/{id}/tasks?limit=200").data["items"]
        return found

    def audit(self, subject: str = "", action: str = "") -> list[dict[str, Any]]:
        """Entries of the audit trail, the oldest first."""
        query = f"/api/v1/audit?subject={subject}" if subject else f"/api/v1/audit?action={action}"
        found: list[dict[str, Any]] = self.ask("GET", query, role="admin").data["items"]
        return found[::-1]

    # nodes beside those of `muster up`

    def enrol(self, *names: str, label: str, **environment: str) -> None:
        """Nodes that are enrolled and started by hand; returns when they are online."""
        for name in names:
            token = self.directory / f"{name}.token"
            made = self.muster("node", "token", name, "--label", label, "--json", role="admin")
            assert made.returncode == 0, made.stderr
            token.write_text(made.stdout)
            place = ("--url", self.url, "--token-file", str(token), "--dir", str(self.home(name)))
            done = self.muster("node", "enroll", name, *place)
            assert done.returncode == 0, done.stderr
            self._start_node(name, environment)
        wait_until(lambda: set(names) <= self.online(), lambda: self.log(*names))

    def home(self, name: str) -> Path:
        """The directory of a node that was enrolled by hand."""
        return self.directory / "nodes" / name

    def _start_node(self, name: str, environment: dict[str, str]) -> None:
        more = {
            "MUSTER_NODE": name,
            "MUSTER_NODE_DIR": str(self.home(name)),
            **(self._urls or {"REDIS_URL": self._own_redis()}),
            **environment,
        }
        # A node knows of no database.
        more.pop("DATABASE_URL", None)
        with (self.directory / f"{name}.log").open("ab") as log:
            self._nodes[name] = subprocess.Popen(
                [str(BIN / "celery"), "-A", "workers.node", "worker"],
                cwd=ROOT,
                env=self.environment(**more),
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def _own_redis(self) -> str:
        """The URL of the Redis that `muster up` has started."""
        configuration = (self.data / "redis" / "redis.conf").read_text()
        found = re.search('^unixsocket "(.*)"$', configuration, re.M)
        assert found is not None
        return f"redis+socket://{found[1]}"

    def log(self, *names: str) -> str:
        """The ends of the logs of nodes that were started by hand."""
        return "\n".join((self.directory / f"{name}.log").read_text()[-2000:] for name in names)

    def online(self) -> set[str]:
        return {node["name"] for node in self.get("/nodes").data["items"] if node["online"]}

    def processes(self, name: str) -> list[int]:
        """Pids of a node that was started by hand: worker, runner and scripts."""
        return list(processes_with(str(self.home(name))))

    def signal(self, name: str, number: int) -> None:
        """To every process of a node that was started by hand, as when its machine is gone."""
        for pid in self.processes(name):
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill(self, name: str) -> None:
        self.signal(name, signal.SIGKILL)
        self._nodes.pop(name).wait()


MUSTER = (sys.executable, "-m", "app.cli.main")


def peak(pids: Iterable[int]) -> dict[int, int]:
    """The most bytes of memory that each process has ever held; without those that are gone."""
    found = {}
    for pid in pids:
        with suppress(OSError, AttributeError):
            told = re.search(r"^VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.M)
            assert told is not None
            found[pid] = int(told[1]) * 1024
    return found
