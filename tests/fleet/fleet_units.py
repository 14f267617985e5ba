"""The units of config/systemd without systemd: their commands, with their environments and state directories, as
systemd would start them, on this machine and as this user.

Translated are only the places: where Muster is installed, /etc/muster and /var/lib.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from fleet_compose import free_port
from fleet_processes import BIN, ROOT, Broker, Keeper, Part, kill_all_with
from waiting import wait_until

UNITS = ROOT / "config" / "systemd"
INSTALLED = "/opt/muster/.venv/bin"

Unit = dict[str, list[str]]
"""`Section.Key` -> its values, in order. An empty value takes back those before it."""


def read_unit(path: Path, instance: str = "") -> Unit:
    """A unit file; of a template the unit of this instance."""
    unit: Unit = defaultdict(list)
    section = ""
    for line in path.read_text().replace("\\\n", " ").splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith(("#", ";")):
            key, equals, value = line.partition("=")
            assert equals, f"{path.name}: {line}"
            unit[f"{section}.{key}"].append(value.replace("%i", instance).strip())
    return unit


class Machine:
    """`with Machine() as machine`: a broker, and nothing of Muster's yet. `directory` stands for `/`."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="mu-", dir="/tmp"))
        self.keeper = Keeper()
        self.broker = Broker(self.directory, port := free_port())
        self.redis_url = f"redis://127.0.0.1:{port}/0"
        self.configuration = self.directory / "etc" / "muster"
        self.state = self.directory / "var" / "lib"
        self.configuration.mkdir(parents=True)

    def __enter__(self) -> Machine:
        self.keeper.add(self.broker.part)
        wait_until(self.broker.answers, "redis-server")
        return self

    def __exit__(self, *_: object) -> None:
        self.keeper.close("redis")
        kill_all_with(str(self.directory))
        self.broker.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def start(self, name: str) -> None:
        """`systemctl start NAME`. A oneshot runs to its end; what must run before is run first, each time."""
        unit = self._unit(name)
        environment = self._environment(unit)
        for directory in unit["Service.StateDirectory"]:
            (self.state / directory).mkdir(mode=0o700, parents=True, exist_ok=True)
        commands = [*unit["Service.ExecStartPre"], *unit["Service.ExecStart"]]
        *first, last = [self._argv(command, environment) for command in commands]
        if unit["Service.Type"] == ["oneshot"]:
            first.append(last)
        for argv in first:
            done = subprocess.run(
                argv, env=environment, cwd="/", capture_output=True, text=True, timeout=120, check=False
            )
            assert done.returncode == 0, f"{name}: {done.stdout}{done.stderr}"
        if last not in first:
            assert unit["Service.Restart"] == ["always"]
            self.keeper.add(Part(name, last, environment, self.directory / f"{name}.log"))

    def stop(self, name: str) -> None:
        """`systemctl stop NAME` for a unit whose main process alone is told: TERM, and nothing to the rest."""
        assert self._unit(name)["Service.KillMode"] == ["process"]
        self.keeper.take_down(name, 15)

    def muster(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """The command as a person types it, with the token that setup left."""
        given = {**self._plain(), "MUSTER_DATA_DIR": str(self.state / "muster"), **environment}
        return subprocess.run(
            [str(BIN / "muster"), *words],
            env=given,
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def log(self, name: str) -> str:
        path = self.directory / f"{name}.log"
        return path.read_text(errors="replace")[-3000:] if path.exists() else f"{name} never ran"

    def _unit(self, name: str) -> Unit:
        """`muster-node@web-1` is an instance of `muster-node@.service`."""
        template, at, instance = name.partition("@")
        return read_unit(UNITS / f"{template}{at}.service", instance)

    def _environment(self, unit: Unit) -> dict[str, str]:
        found = self._plain()
        for line in unit["Service.Environment"]:
            found |= dict(pair.split("=", 1) for pair in shlex.split(line))
        for file in unit["Service.EnvironmentFile"]:
            text = Path(self._placed(file)).read_text()
            found |= dict(
                line.split("=", 1) for line in text.splitlines() if line and not line.startswith("#")
            )
        for name in unit["Service.UnsetEnvironment"]:
            found.pop(name, None)
        return {name: self._placed(value) for name, value in found.items()}

    def _plain(self) -> dict[str, str]:
        """What systemd gives every service; PYTHONPATH stands for the installed package."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.directory),
            "PYTHONPATH": str(ROOT),
            # The tests run workflows that they make up on the spot.
            "MUSTER_ALLOWLIST_MODE": "audit",
        }

    def _argv(self, command: str, environment: dict[str, str]) -> list[str]:
        return [self._placed(word) for word in _words(command, environment)]

    def _placed(self, text: str) -> str:
        text = text.replace(INSTALLED, str(BIN))
        return re.sub(r"(?<![\w.])/(?=var/lib/|etc/muster/)", f"{self.directory}/", text)


def _words(command: str, environment: dict[str, str]) -> Iterator[str]:
    """A command line as systemd reads it: `${NAME}` inside of a word, `$NAME` as words of its own."""
    for word in shlex.split(command):
        if word.startswith("$") and not word.startswith("${"):
            yield from environment.get(word[1:], "").split()
        else:
            yield re.sub(r"\$\{(\w+)\}", lambda found: environment.get(found[1], ""), word)
