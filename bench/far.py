"""Our side where machines have only an SSH server: the gateway, an API, and as many loopback addresses of a real sshd.

The allowlist is off (MUSTER_ALLOWLIST_MODE), as in `bench.served`.
"""

from __future__ import annotations

import time
from typing import Any

from app.cli.client import Client, api
from app.services import keyring, people
from bench import web
from bench.ours import Ours
from bench.processes import BIN, Broken, Processes, wait_for
from bench.served import ANSWER_WITHIN, timed
from tests.sshd import Sshd

SCRIPT = "echo hello; hostname"
"""What both sides run on every machine."""
SAID = "hello"

_SECRET = "ssh/bench"
_KNOWN_WITHIN = 60.0
_GONE_WITHIN = 10.0


class Gateway:
    """A fleet with `workers` node workers and the gateway; every node that is there is online."""

    def __init__(self, processes: Processes, socket_path: str, *, workers: int = 0) -> None:
        port = web.free_port()
        settings = {"MUSTER_ALLOWLIST_MODE": "off", "MUSTER_API_URL": f"http://{web.HOST}:{port}"}
        self.fleet = Ours(processes, socket_path, workers, extra=settings)
        keyring.make(self.fleet.directory / "secret.keys")
        environment = self.fleet.environment
        processes.worker("ssh", "workers.remote", environment)
        token = people.bootstrap_admin(self.fleet.store, time.time()) or ""
        self.client: Client = web.serve(processes, "api", environment, token=token, port=port)
        self._processes = processes

    def bring_in(self, sshd: Sshd) -> None:
        """Makes every address of the server a node over SSH, and waits until they are online."""
        processes, client = self._processes, self.client
        names = [f"far-{number}" for number in range(1, len(sshd.addresses) + 1)]
        client.call("PUT", api("secrets", _SECRET), body={"value": sshd.private_key, "users": ["admin"]})
        for name, address in zip(names, sshd.addresses, strict=True):
            place = f"{sshd.user}@{address}:{sshd.port}"
            client.post(
                api("nodes"),
                {"name": name, "transport": "ssh", "address": place, "key": _SECRET, "labels": {}},
            )
        offered = "SELECT count(*) FROM nodes WHERE transport = 'ssh' AND offered_key != ''"
        online = "SELECT count(*) FROM nodes WHERE transport = 'ssh' AND last_seen IS NOT NULL"
        wanted = (len(names),)
        wait_for("host keys are seen", lambda: self.fleet.row(offered) == wanted, processes, _KNOWN_WITHIN)
        for name in names:
            fingerprint = client.get(api("nodes", name))["ssh"]["offered_key"]
            client.post(api("nodes", name, "trust"), {"fingerprint": fingerprint})
        wait_for("SSH nodes are online", lambda: self.fleet.row(online) == wanted, processes, _KNOWN_WITHIN)
        self.fleet.nodes += names


class Far:
    """What is asked of nodes: those over SSH that `sshd` has addresses for, or as many with a worker."""

    def __init__(
        self, processes: Processes, socket_path: str, sshd: Sshd, *, has_workers: bool = False
    ) -> None:
        self._processes = processes
        self._sshd = sshd
        workers = len(sshd.addresses) if has_workers else 0
        self._gateway = Gateway(processes, socket_path, workers=workers)
        if not has_workers:
            self._gateway.bring_in(sshd)
        self._client = self._gateway.client
        self.names = list(self._gateway.fleet.nodes)
        self.warm()

    def warm(self) -> float:
        """Seconds for SCRIPT on every node: from the request to all results read back, over open connections."""
        began = time.perf_counter()
        asked = {"nodes": self.names, "command": SCRIPT, "language": "sh"}
        execution = self._client.post(api("nodes", "execute"), asked, wait=ANSWER_WITHIN)["id"]
        units = self._client.items(api("workflow-executions", execution, "tasks"))
        took = time.perf_counter() - began
        self._check(execution, units)
        return took

    def cold(self) -> float:
        """The same without a connection: every session of the sshd was ended just before, so each is made anew. The
        gateway would make them by itself within seconds; nothing that it does is before the clock starts."""
        self._sshd.drop_sessions()
        wait_for("no session is left", lambda: not self._sshd.sessions(), self._processes, _GONE_WITHIN)
        return self.warm()

    def command(self) -> float:
        """Seconds for `muster exec NODE… -- SCRIPT`, from its start to its exit."""
        given = {"MUSTER_URL": self._client.url, "MUSTER_TOKEN": self._client.token}
        words = ["exec", *self.names, "--shell", "sh", "--", SCRIPT]
        took, printed = timed([str(BIN / "muster"), *words], given)
        if printed.count(SAID) < len(self.names):
            raise Broken(f"`muster exec` printed {printed.count(SAID)} of {len(self.names)} answers")
        newest = "SELECT id FROM executions ORDER BY created_at DESC, id DESC LIMIT 1"
        self._gateway.fleet.check(str(self._gateway.fleet.row(newest)[0]), len(self.names))
        return took

    def _check(self, execution: str, units: list[dict[str, Any]]) -> None:
        succeeded = {
            unit["node"] for unit in units if (unit["status"], unit["exit_code"]) == ("succeeded", 0)
        }
        if succeeded != set(self.names):
            raise Broken(f"execution {execution} succeeded on {sorted(succeeded)} alone")
        self._gateway.fleet.check(execution, len(self.names))
