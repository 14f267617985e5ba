"""A fleet with machines that have only an SSH server: a real sshd on loopback addresses, and the gateway."""

from __future__ import annotations

import signal
import urllib.request
from pathlib import Path
from typing import Any

from fleet import Fleet
from fleet_api import Answer, Api
from fleet_processes import processes_with
from sshd import Sshd
from waiting import wait_until

LEASE = 4
QUICK_SSH = {
    "MUSTER_SSH_LEASH": str(LEASE),
    "MUSTER_SSH_BREAKER_FAILURES": "1",
    "MUSTER_SSH_BREAKER_COOLDOWN": "2",
}
"""A gateway that notices within seconds."""
KEY = "ssh/far"
FAR = {"far-1": "127.0.0.11", "far-2": "127.0.0.12"}
OTHERS = ("127.0.0.13", "127.0.0.14", "127.0.0.15")
"""Addresses of the nodes that are always there, and of those that tests bring in."""


class FarSide:
    """The gateway of a fleet, and how an administrator brings machines in."""

    def __init__(self, fleet: Fleet, api: Api, sshd: Sshd) -> None:
        self.fleet = fleet
        self.api = api
        self.sshd = sshd
        self.put_key(KEY, sshd.private_key)
        fleet.gateway(**QUICK_SSH)

    def leave(self) -> None:
        """Removes all nodes that were added, and ends the gateway."""
        mine = [node["name"] for node in self.api.get("/nodes").data["items"] if node["transport"] == "ssh"]
        for name in mine:
            self.api.ask("DELETE", f"/api/v1/nodes/{name}?force=1", role="admin")
        directory = self.fleet.directory / "ssh"
        wait_until(lambda: not list(directory.iterdir()), lambda: self.fleet.log("ssh"))
        self.fleet.keeper.take_down("ssh", signal.SIGTERM)

    def put_key(self, name: str, text: str) -> None:
        answer = self.api.ask("PUT", f"/api/v1/secrets/{name}", {"value": text, "users": ["admin"]}, "admin")
        assert answer.status in (200, 201), answer.data

    def add(self, name: str, address: str, port: int = 0, **more: Any) -> Answer:
        """Adds a node; its host key is not trusted yet."""
        place = f"{self.sshd.user}@{address}:{port or self.sshd.port}"
        body = {"name": name, "transport": "ssh", "address": place, "key": KEY, **more}
        answer = self.api.post("/nodes", body, "admin")
        assert answer.status == 201, answer.data
        return answer

    def offered(self, name: str) -> str:
        """The fingerprint that a node shows, once the gateway has seen it."""
        return str(wait_until(lambda: self.node(name)["ssh"]["offered_key"], lambda: self.fleet.log("ssh")))

    def trust(self, name: str) -> None:
        answer = self.api.post(f"/nodes/{name}/trust", {"fingerprint": self.offered(name)}, "admin")
        assert answer.status == 200, answer.data

    def bring_in(self, name: str, address: str, port: int = 0, **more: Any) -> None:
        """Adds a node, trusts it, and waits until it is online."""
        self.add(name, address, port, **{"labels": {"role": "far"}, **more})
        self.trust(name)
        self.wait_online(name)

    def node(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.api.get(f"/nodes/{name}").data
        return found

    def wait_online(self, name: str, online: bool = True) -> None:
        wait_until(
            lambda: self.node(name)["online"] is online, lambda: f"{self.node(name)}\n{self.fleet.log('ssh')}"
        )

    def execute(self, name: str, wait: float = 60, **body: Any) -> dict[str, Any]:
        """What became of a command on a node."""
        answer = self.api.post(f"/nodes/{name}/execute?wait={wait:g}", body)
        assert answer.status in (200, 202), answer.data
        found: dict[str, Any] = answer.data
        return found


def is_running(mark: Path) -> list[int]:
    """Processes that have this path in their command line or environment."""
    return list(processes_with(str(mark)))


def begun(far: FarSide, name: str, script: str, **more: Any) -> str:
    """The execution of a script that has written its first word on a node."""
    answer = far.api.post(f"/nodes/{name}/execute?wait=0", {"script": script, "timeout": 300, **more})
    assert answer.status == 202, answer.data
    execution = str(answer.data["execution"])
    wait_until(lambda: far.fleet.job_is(execution, "run", "running"), lambda: far.fleet.story(execution))
    return execution


def metrics(api: Api) -> dict[str, float]:
    request = urllib.request.Request(
        f"{api.url}/metrics", headers={"Authorization": f"Bearer {api.tokens['viewer']}"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        lines = [line.rpartition(" ") for line in answer.read().decode().splitlines() if line[0] != "#"]
    return {name: float(value) for name, _, value in lines}
