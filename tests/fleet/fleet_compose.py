"""The services of docker-compose.yml without Docker: their commands, environments, volumes, order and health checks
as they stand there, on this machine.

Of a container only the paths and the names of other containers are translated: each has a root directory of its
own, and the ports are free ones of the loopback. The commands of images that are not
ours need their programs here; PostgreSQL is a server that is there, or a SQLite file.
"""

from __future__ import annotations

import os
import re
import secrets
import shlex
import shutil
import socket
import subprocess
import tempfile
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import yaml
from fleet_database import Database
from fleet_processes import BIN, ROOT, Keeper, Part, kill_all_with
from waiting import wait_until

COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
DOCKERFILE = (ROOT / "Dockerfile").read_text()
DIRECTORIES = re.findall(r"(?<= )/[\w/-]+", re.findall(r"install -d (?:.|\\\n)+?\n\n", DOCKERFILE)[0])
"""Those that the image makes."""
IMAGE_ENVIRONMENT = dict(
    pair.split("=", 1) for pair in re.findall(r"^ENV (.+)$", DOCKERFILE, re.M)[0].split()
)
QUICK = {"MUSTER_HEARTBEAT_EVERY": "1", "MUSTER_ALLOWLIST_MODE": "audit"}
ELSEWHERE = "postgres"
"""The one service that does not run: its server, if there is one, is somebody's already."""


class Containers:
    """`with Containers() as containers`: all of them up. `url` is where the API answers on this machine."""

    def __init__(self, postgres: str = "") -> None:
        self.services: dict[str, Any] = COMPOSE["services"]
        self.directory = Path(tempfile.mkdtemp(prefix="mc-", dir="/tmp"))
        self.keeper = Keeper()
        self._volumes: dict[str, Path] = {}
        self._mounts: dict[tuple[str, str], Path] = {}
        self._database = Database(self.directory, postgres)
        names = ("REDIS_PASSWORD", "POSTGRES_PASSWORD", "FLOWER_PASSWORD")
        self._variables = {name: secrets.token_hex(8) for name in names}
        self._ports = {"6379": free_port(), "8088": free_port(), "5555": free_port()}
        self.url = f"http://127.0.0.1:{self._ports['8088']}"
        self.flower = f"http://127.0.0.1:{self._ports['5555']}"
        self.flower_auth = f"flower:{self._variables['FLOWER_PASSWORD']}"

    def __enter__(self) -> Containers:
        try:
            self._database_url = self._database.make()
            for name in self.services:
                self._make_root(name)
            for name in TopologicalSorter(self._edges()).static_order():
                if name != ELSEWHERE:
                    self._start(name)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.keeper.close("redis")
        kill_all_with(str(self.directory))
        self._database.drop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def root(self, name: str) -> Path:
        """The root directory of a container."""
        return self.directory / name

    def volume(self, name: str) -> Path:
        return self._volumes[name]

    def run(self, name: str, *words: str) -> subprocess.CompletedProcess[str]:
        """`docker compose exec NAME …`; without words the service's own command, to its end."""
        argv = self._argv(name, list(words) or self._words(self.services[name]["command"]))
        return subprocess.run(
            argv,
            env=self._environment(name),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def log(self, name: str) -> str:
        path = self.directory / f"{name}.log"
        return path.read_text(errors="replace")[-3000:] if path.exists() else f"{name} never ran"

    def _edges(self) -> dict[str, set[str]]:
        return {name: set(service.get("depends_on", {})) for name, service in self.services.items()}

    def _start(self, name: str) -> None:
        service = self.services[name]
        for other, wanted in service.get("depends_on", {}).items():
            if wanted["condition"] == "service_healthy" and other != ELSEWHERE:
                wait_until(lambda other=other: self.is_healthy(other), lambda other=other: self.log(other))
        if service.get("restart") == "no":
            done = self.run(name)
            assert done.returncode == 0, done.stdout + done.stderr
            return
        argv = self._argv(name, self._words(service["command"]))
        log = self.directory / f"{name}.log"
        self.keeper.add(Part(name, argv, self._environment(name), log))

    def is_healthy(self, name: str) -> bool:
        """What the service's own health check says."""
        kind, *words = self.services[name]["healthcheck"]["test"]
        assert kind == "CMD"
        if words[0] == "redis-cli":
            words[1:1] = ["-p", str(self._ports["6379"])]
        return self.run(name, *words).returncode == 0

    def _make_root(self, name: str) -> None:
        """The image's directories. A volume is one of the first container that has it."""
        for directory in DIRECTORIES:
            (self.root(name) / directory[1:]).mkdir(mode=0o700, parents=True, exist_ok=True)
        for mount in self.services[name].get("volumes", ()):
            volume, target = mount.split(":")[:2]
            place = self._volumes.setdefault(volume, self.root(name) / target[1:])
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._mounts[name, target] = place

    def _words(self, command: str | list[str]) -> list[str]:
        return shlex.split(self._filled(command)) if isinstance(command, str) else command

    def _argv(self, name: str, words: list[str]) -> list[str]:
        argv = [self._translated(name, word) for word in words]
        if argv[0] == "redis-server":
            argv += ["--port", str(self._ports["6379"]), "--bind", "127.0.0.1", "--save", ""]
            argv += ["--dir", str(self.volume("redis"))]
        return [str(BIN / argv[0]) if (BIN / argv[0]).exists() else argv[0], *argv[1:]]

    def _environment(self, name: str) -> dict[str, str]:
        given = {**IMAGE_ENVIRONMENT, **self.services[name].get("environment", {})}
        found = {key: self._translated(name, self._filled(value)) for key, value in given.items()}
        if "DATABASE_URL" in found:
            found["DATABASE_URL"] = self._database_url
        plain = {"PATH": f"{BIN}:{os.environ['PATH']}", "HOME": str(self.root(name)), "PYTHONPATH": str(ROOT)}
        return {**plain, **QUICK, **found}

    def _filled(self, text: str) -> str:
        """`${NAME:?…}` as .env would fill it."""
        return re.sub(r"\$\{(\w+):\?[^}]*\}", lambda found: self._variables[found[1]], text)

    def _translated(self, name: str, text: str) -> str:
        text = re.sub(
            r"(?<![\w.])/(?:var/lib|enrolment)/\S+", lambda found: self._placed(name, found[0]), text
        )
        text = re.sub(r"(?<=[/@])(?:api|redis)(?=:\d)|0\.0\.0\.0", "127.0.0.1", text)
        return re.sub(r"(?<=[:=])(?:6379|8088|5555)\b", lambda found: str(self._ports[found[0]]), text)

    def _placed(self, name: str, path: str) -> str:
        for (container, target), place in self._mounts.items():
            if container == name and (path == target or path.startswith(f"{target}/")):
                return f"{place}{path.removeprefix(target)}"
        return f"{self.root(name)}{path}"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
