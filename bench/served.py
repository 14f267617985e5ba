"""Our side behind its API: ten nodes, gunicorn as the Procfile starts it, requests over HTTP, `muster` as a process.

The allowlist is off (MUSTER_ALLOWLIST_MODE): what is asked for here is none of the commands that it comes with.
"""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

from app.cli.client import api
from app.services import people
from bench import spoken, web
from bench.ours import Ours
from bench.processes import BIN, ROOT, Broken, Processes, wait_for

NODES = 10
POSTS = 100
"""Executions that are asked for in one run of `posts`."""
ANSWER_WITHIN = 60

_TRUE = ["true"]
_STORED = (
    "ref: bench.one\ntasks:\n"
    "  - {name: one, action: core.shell, delegate_to: node-1, input: {command: ['true']}}\n"
)


class Served:
    """A fleet of NODES nodes with its API; every node has run one job."""

    def __init__(self, processes: Processes, socket_path: str) -> None:
        self._processes = processes
        self.fleet = Ours(processes, socket_path, NODES, extra={"MUSTER_ALLOWLIST_MODE": "off"})
        token = people.bootstrap_admin(self.fleet.store, time.time()) or ""
        self._client = web.serve(processes, "api", self.fleet.environment, token=token)
        self._client.call("POST", api("packs", "bench", "workflows"), body={"definition": _STORED})
        self._next_node = 0
        self.shell()

    def shell(self) -> float:
        """Seconds for `true` on every node: from the request to all results read back."""
        began = time.perf_counter()
        asked = {"nodes": self.fleet.nodes, "command": _TRUE}
        execution = self._client.post(api("nodes", "execute"), asked, wait=ANSWER_WITHIN)["id"]
        units = self._client.items(api("workflow-executions", execution, "tasks"))
        took = time.perf_counter() - began
        succeeded = {
            unit["node"] for unit in units if (unit["status"], unit["exit_code"]) == ("succeeded", 0)
        }
        if succeeded != set(self.fleet.nodes):
            raise Broken(f"execution {execution} succeeded on {sorted(succeeded)} alone")
        self.fleet.check(execution, NODES)
        return took

    def lines(self) -> spoken.Late:
        """How late lines of one node come to a follower while another node bursts."""
        quiet, loud = self.fleet.nodes[:2]
        asked = {"command": spoken.PRINTER, "stream_output": True}
        opened = self._client.open_once(
            api("nodes", quiet, "execute"), asked, {"Accept": "text/event-stream"}
        )
        bursts: list[str] = []

        def burst() -> None:
            asked = {"command": spoken.BURST}
            bursts.append(self._client.post(api("nodes", loud, "execute"), asked)["execution"])

        late = spoken.follow(opened, burst)
        for execution in (opened.location.rpartition("/")[2], *bursts):
            self.fleet.check(execution, 1)
        written = self.fleet.row("SELECT sum(bytes) FROM outputs WHERE execution = ?", bursts[0])[0]
        if written != spoken.BURST_BYTES:
            raise Broken(f"the burst was {written} bytes and should have been {spoken.BURST_BYTES}")
        return late

    def posts(self) -> float:
        """Executions of a stored workflow accepted in a second. Control stands still meanwhile, as nothing stands
        behind the bare application; all are executed before this returns."""
        before, succeeded = self._executions(), self._succeeded()
        body = json.dumps({"parameters": {}}).encode()
        with self.fleet.control_stopped():
            found = web.rate(self._client, api("workflows", "bench.one", "execute"), body, requests=POSTS)
            if self._executions() != before + POSTS:
                raise Broken(f"{self._executions() - before} executions are stored, not {POSTS}")
        wait_for("all have run", lambda: self._succeeded() == succeeded + POSTS, self._processes)
        return found

    def memory(self) -> float:
        """MiB of a node's worker; of another node each time."""
        node = self.fleet.nodes[self._next_node % NODES]
        self._next_node += 1
        return resident(self._processes.pids()[node])

    def runner_memory(self) -> dict[str, float]:
        """MiB of the largest runner of all nodes."""
        return {"runner_mib": round(max(resident(self.fleet.runner(node)) for node in self.fleet.nodes), 2)}

    def command(self) -> float:
        """Seconds for `muster exec NODE -- true`, from its start to its exit."""
        given = {"MUSTER_URL": self._client.url, "MUSTER_TOKEN": self._client.token}
        took = timed([str(BIN / "muster"), "exec", self.fleet.nodes[0], "--", *_TRUE], given)[0]
        newest = "SELECT id FROM executions ORDER BY created_at DESC, id DESC LIMIT 1"
        self.fleet.check(str(self.fleet.row(newest)[0]), 1)
        return took

    def _executions(self) -> int:
        return int(self.fleet.row("SELECT count(*) FROM executions")[0])

    def _succeeded(self) -> int:
        """Executions of what is stored whose script ended with 0."""
        query = (
            "SELECT count(*) FROM executions JOIN jobs ON jobs.execution = executions.id"
            " WHERE workflow_ref = 'bench.one' AND executions.status = 'completed' AND exit_code = 0"
        )
        return int(self.fleet.row(query)[0])


def resident(pid: int) -> float:
    """MiB of a process in memory (VmRSS)."""
    status = Path(f"/proc/{pid}/status").read_text("ascii", "replace")
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def timed(command: list[str], environment: dict[str, str]) -> tuple[float, str]:
    """Seconds that a process took, and what it printed. Raises Broken where it did not end with 0."""
    given = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "PYTHONPATH": str(ROOT), **environment}
    began = time.perf_counter()
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=given,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=ANSWER_WITHIN,
    )
    took = time.perf_counter() - began
    if done.returncode:
        raise Broken(f"{command[0]} ended with {done.returncode}: {done.stderr[-500:]}")
    return took, done.stdout
