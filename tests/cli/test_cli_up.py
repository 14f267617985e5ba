"""`muster up` and `muster demo` as typed: every process real, and nothing left afterwards."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

import pytest
from waiting import PATIENCE, wait_until

pytestmark = [pytest.mark.fleet, pytest.mark.timeout(400)]

ROOT = Path(__file__).resolve().parents[2]
SLEEPER = """
ref: tests.sleeper
parameters: {pid: {type: string, required: true}}
tasks:
  - name: sleep
    action: core.script
    delegate_to: web-1
    input:
      script: |
        trap '' HUP
        sleep 300 &
        echo $$ $! > {{ parameters.pid }}.new
        mv {{ parameters.pid }}.new {{ parameters.pid }}
        wait
"""


def environment(**more: str) -> dict[str, str]:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MUSTER_")}
    # Whatever runs there must never be touched.
    precious = {"REDIS_URL": "redis://127.0.0.1:1/0", "DATABASE_URL": "postgresql://127.0.0.1:1/x"}
    return {**plain, **precious, "PYTHONPATH": str(ROOT), **more}


def command(*args: str) -> list[str]:
    return [sys.executable, "-m", "app.cli.main", *args]


def processes_of(directory: Path) -> dict[int, str]:
    """Every process that has the directory on its command line or in its environment."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                known = (entry / "cmdline").read_bytes() + b"\0" + (entry / "environ").read_bytes()
            except OSError:
                continue
            if os.fsencode(directory) in known:
                found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    return found


def is_alive(pid: int) -> bool:
    """A zombie that nobody has reaped yet is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def status_of(bind: str, auth: str) -> int:
    """How Flower answers to this user and password."""
    given = base64.b64encode(auth.strip().encode()).decode()
    connection = HTTPConnection(bind, timeout=10)
    connection.request("GET", "/workers", headers={"Authorization": f"Basic {given}"})
    try:
        return connection.getresponse().status
    finally:
        connection.close()


class Up:
    """A running `muster up`."""

    def __init__(self, data: Path, *args: str) -> None:
        self.data = data
        self.errors = data.with_suffix(".errors").open("w+")
        self.process = subprocess.Popen(
            command("up", "--data", str(data), *args),
            cwd=data.parent,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
        )
        assert self.process.stdout is not None
        self.ready = self.process.stdout.readline()

    def end(self, number: int = signal.SIGINT) -> int:
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def said(self) -> str:
        self.errors.seek(0)
        return self.errors.read()

    def metrics(self) -> set[str]:
        """The lines of /metrics."""
        known = dict(line.split("=", 1) for line in (self.data / "client.env").read_text().splitlines())
        connection = HTTPConnection(known["MUSTER_URL"].removeprefix("http://"), timeout=20)
        connection.request("GET", "/metrics", headers={"Authorization": f"Bearer {known['MUSTER_TOKEN']}"})
        try:
            return set(connection.getresponse().read().decode().splitlines())
        finally:
            connection.close()

    def muster(self, *args: str) -> subprocess.CompletedProcess[str]:
        known = dict(line.split("=", 1) for line in (self.data / "client.env").read_text().splitlines())
        return subprocess.run(
            command(*args), env=environment(**known), capture_output=True, text=True, timeout=120, check=False
        )


@contextmanager
def up(data: Path, *args: str) -> Iterator[Up]:
    one = Up(data, *args)
    try:
        yield one
    finally:
        one.process.kill()
        one.process.wait()
        assert one.process.stdout is not None
        one.process.stdout.close()
        one.errors.close()
        wait_until(lambda: not processes_of(data))


def run_sleeper(one: Up, tmp_path: Path) -> tuple[int, int, str]:
    """Starts a script that would go on for minutes; its pid, its child's, and the execution."""
    (tmp_path / "sleeper.yaml").write_text(SLEEPER)
    parameter = f"pid={tmp_path / 'pid'}"
    done = one.muster("run", str(tmp_path / "sleeper.yaml"), "-p", parameter, "--no-follow", "--json")
    assert done.returncode == 0, done
    wait_until((tmp_path / "pid").exists)
    first, second = (int(word) for word in (tmp_path / "pid").read_text().split())
    return first, second, json.loads(done.stdout)["id"]


def test_a_fleet_comes_up_works_and_goes_down(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with up(data, "--nodes", "web-1,web-2", "--flower") as one:
        found = re.fullmatch(
            rf"ready url=http://127\.0\.0\.1:\d+ nodes=3 data={data} seconds=[\d.]+ flower=http://(\S+)\n",
            one.ready,
        )
        assert found, one.ready + one.said()
        assert [status_of(found[1], auth) for auth in ("", (data / "flower.auth").read_text())] == [401, 200]
        assert stat.S_IMODE(data.stat().st_mode) == 0o700
        assert stat.S_IMODE((data / "client.env").stat().st_mode) == 0o600
        nodes = json.loads(one.muster("node", "list", "--json").stdout)["items"]
        assert {node["name"] for node in nodes if node["online"]} == {"local", "web-1", "web-2"}
        assert one.muster("doctor").returncode == 0

        second = subprocess.run(
            command("up", "--data", str(data)), env=environment(), capture_output=True, text=True, check=False
        )
        assert second.returncode == 5
        assert "another `muster up`" in second.stderr

        # What dies comes back, the API on the same port.
        victims = [
            pid for pid, line in processes_of(data).items() if re.search("gunicorn|workers.control", line)
        ]
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: "control ended (killed by SIGKILL); it is started again" in one.said())
        wait_until(lambda: one.muster("node", "list").returncode == 0)

        script, its_child, execution = run_sleeper(one, tmp_path)
        assert {script, its_child} <= processes_of(data).keys()
        # Counted by the API's own process, and carried to Redis.
        wait_until(lambda: "muster_executions_created_total 1.0" in one.metrics())
        told = one.metrics()
        assert {"muster_redis_up 1.0", 'muster_queue_messages{queue="node.web-1"} 0.0'} <= told
        assert {"muster_tick_seconds_count", "muster_tick_lag_seconds"} <= {line.split()[0] for line in told}
        assert one.end() == 0
        assert not processes_of(data)
        assert not is_alive(script)
        assert not is_alive(its_child)
    # The data stays: the next start knows the execution, and learns from the node how its script ended.
    with up(data, "--nodes", "web-1,web-2") as one:
        assert one.ready.startswith("ready "), one.said()
        wait_until(
            lambda: (
                json.loads(one.muster("execution", "show", execution, "--json").stdout)["status"] == "failed"
            )
        )
        assert one.end(signal.SIGTERM) == 0
        assert not processes_of(data)


@pytest.mark.long
def test_a_killed_supervisor_leaves_nothing(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with up(data, "--nodes", "web-1", "--quiet") as one:
        assert one.ready.startswith("ready "), one.said()
        configuration = (data / "redis" / "redis.conf").read_text()
        sockets = Path(re.search('^unixsocket "(.*)"$', configuration, re.MULTILINE)[1]).parent
        assert sockets.exists()
        run_sleeper(one, tmp_path)
        one.process.kill()
        wait_until(lambda: not processes_of(data))
        wait_until(lambda: not sockets.exists())


def test_the_demo(tmp_path: Path) -> None:
    env = environment(TMPDIR=str(tmp_path))
    began = time.monotonic()
    done = subprocess.run(
        command("demo"), cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300, check=False
    )
    print(f"demo took {time.monotonic() - began:.1f} s")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert re.fullmatch(r"demo: ok execution=[0-9A-Z]{26} status=completed nodes=3 seconds=[\d.]+", lines[-1])
    for node in ("web-1", "web-2", "web-3"):
        assert any(line.startswith(f"{node}") and "│" in line for line in lines)
        assert any(re.match(rf"{node} +deploy +succeeded +0 ", line) for line in lines)
    assert any(re.match(r"web-3 +load_test +failed +3 ", line) for line in lines)
    assert "\x1b" not in done.stdout
    assert list(tmp_path.iterdir()) == []
    assert not processes_of(tmp_path)


@pytest.mark.long
def test_a_demo_that_is_interrupted(tmp_path: Path) -> None:
    env = environment(TMPDIR=str(tmp_path))
    process = subprocess.Popen(
        command("demo"), cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    with process.stdout as lines:
        for line in lines:
            if line.startswith("ready "):
                break
        process.send_signal(signal.SIGINT)
        rest = lines.read()
    assert process.wait(PATIENCE) == 130, rest
    assert "nothing is left running" in rest
    assert list(tmp_path.iterdir()) == []
    assert not processes_of(tmp_path)


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with (
        tempfile.TemporaryDirectory() as data,
        subprocess.Popen(
            [
                sys.executable,
                "-c",
                "import socket as s; o = s.create_server(('127.0.0.1', 0));"
                "print(o.getsockname()[1], flush=True); input()",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as holder,
    ):
        assert holder.stdout is not None
        port = holder.stdout.readline().strip()
        done = subprocess.run(
            command("up", "--data", data, "--port", port),
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        holder.communicate("\n")
    assert done.returncode == 5
    assert f"127.0.0.1:{port} cannot be listened on" in done.stderr
