"""What `muster up` is made of, with real processes: children, runners, the watchdog, the data directory."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from waiting import wait_until

from app.cli import parts, redis_server, runners
from app.cli.environment import Environments
from app.cli.home import Home
from app.cli.logs import Tail
from app.cli.processes import Child, Spec
from app.cli.supervisor import MOST_DEATHS, Supervisor
from app.errors import Conflict, InvalidInput, Unavailable
from app.node import endpoint
from app.settings import from_environment

ROOT = Path(__file__).resolve().parents[2]


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def child(tmp_path: Path, code: str, name: str = "it", stage: int = 0) -> Child:
    return Child(spec(tmp_path, code, name, stage))


def spec(tmp_path: Path, code: str, name: str = "it", stage: int = 0) -> Spec:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return Spec(name, ["sh", "-c", code], env, tmp_path, tmp_path / f"{name}.log", stage=stage)


def read_pid(path: Path) -> int:
    wait_until(lambda: path.exists() and path.read_text().strip().isdigit())
    return int(path.read_text())


def test_a_child_that_dies_comes_back_later_and_later(tmp_path: Path) -> None:
    one = child(tmp_path, "echo here; exit 3")
    told: list[str] = []
    one.start()
    wait_until(lambda: one.keep_alive(told.append) or one.restarts == 3)
    assert (tmp_path / "it.log").read_text() == "here\n" * 3
    assert "it ended (exit code 3); it is started again in 0.2 s (restart 1)" in told[0]
    assert "in 0.4 s (restart 2)" in told[1]
    assert "in 0.8 s (restart 3)" in told[2]


def test_what_a_child_leaves_in_its_group_is_killed(tmp_path: Path) -> None:
    one = child(tmp_path, "sleep 300 & echo $! > left")
    one.start()
    left = read_pid(tmp_path / "left")
    wait_until(one.has_ended)
    wait_until(lambda: not is_alive(left))


def test_a_child_that_ignores_term_is_killed_with_its_group(tmp_path: Path) -> None:
    one = child(tmp_path, "trap '' TERM; sleep 300 & echo $! > left; wait; wait; sleep 300")
    one.start()
    left = read_pid(tmp_path / "left")
    one.terminate()
    assert not one.has_ended()
    one.kill()
    wait_until(one.has_ended)
    wait_until(lambda: not is_alive(left))


def test_children_end_with_a_supervisor_that_was_killed(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from app.cli.processes import Child, Spec; import os;"
        "d = Path(sys.argv[1]); c = Child(Spec('it', ['sleep', '300'], dict(os.environ), d, d / 'it.log')); c.start();"
        "(d / 'pid').write_text(str(c.pid)); time.sleep(300)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT)
    pid = read_pid(tmp_path / "pid")
    assert is_alive(pid)
    parent.kill()
    parent.wait()
    wait_until(lambda: not is_alive(pid))


def test_a_supervisor_ends_by_stages_and_leaves_nothing(tmp_path: Path) -> None:
    order = tmp_path / "order"
    trap = "trap 'echo {0} >> order; exit' TERM; echo $$ > {0}.pid; while :; do sleep 0.05; done"
    with Supervisor(Home(tmp_path / "data"), lambda _: None) as supervisor:
        supervisor.guard()
        supervisor.start(
            spec(tmp_path, trap.format("broker"), "broker", 2),
            spec(tmp_path, trap.format("api"), "api", 1),
            spec(tmp_path, trap.format("node"), "node", 0),
        )
        pids = [read_pid(tmp_path / f"{name}.pid") for name in ("broker", "api", "node")]
        os.kill(pids[1], signal.SIGKILL)
        supervisor.wait_until(lambda: (tmp_path / "api.pid").read_text() != f"{pids[1]}\n", "the API")
        assert supervisor.restarts == 1
        pids[1] = read_pid(tmp_path / "api.pid")
        assert supervisor.run(spec(tmp_path, "exit 4", "more")) == 4
        os.kill(os.getpid(), signal.SIGTERM)
        supervisor.supervise()
        assert supervisor.is_stopping
    assert order.read_text().split() == ["node", "api", "broker"]
    assert not any(is_alive(pid) for pid in pids)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_what_keeps_dying_is_given_up_with_the_end_of_its_log(tmp_path: Path) -> None:
    with Supervisor(Home(tmp_path / "data"), lambda _: None) as supervisor:
        one = spec(tmp_path, "exit 1", "api")
        log = supervisor.home.log("api")
        supervisor.start(
            Spec(one.name, ["sh", "-c", "echo the port is taken; exit 1"], one.env, tmp_path, log)
        )
        with pytest.raises(Unavailable, match="api keeps dying") as raised:
            supervisor.wait_until(lambda: False, "the API")
    assert "the port is taken" in raised.value.message
    assert supervisor.restarts == 0
    assert MOST_DEATHS == 4


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Path]:
    """A runner with one script that does not end by itself; `pid` in its directory is the script's."""
    root = tmp_path / "nodes" / "web-1"
    root.parent.mkdir()
    process = subprocess.Popen([sys.executable, "-m", "app.node.runner", "--dir", str(root)], cwd=ROOT)
    wait_until(lambda: endpoint.read(str(root)))
    script = f"echo $$ > {tmp_path}/pid.new; mv {tmp_path}/pid.new {tmp_path}/pid; sleep 300"
    job = {"id": "E.t.0.1", "script": script, "grace": 5.0}
    with endpoint.connect(str(root), 5.0) as sock:
        sock.sendall(
            json.dumps({"id": 1, "do": "start", "job": job, "digest": "d", "node": "web-1"}).encode() + b"\n"
        )
        assert json.loads(sock.makefile("rb").readline())["ok"]
    yield root
    process.kill()
    process.wait()


def test_runners_end_with_their_scripts(node: Path, tmp_path: Path) -> None:
    pid = read_pid(tmp_path / "pid")
    assert is_alive(pid)
    assert runners.is_held(node)
    assert runners.end_all(tmp_path / "nodes") == 1
    assert not is_alive(pid)
    assert not runners.is_held(node)
    assert runners.end_all(tmp_path / "nodes") == 0


def test_a_hurry_does_not_wait_for_the_grace_of_scripts(tmp_path: Path, node: Path) -> None:
    pid = read_pid(tmp_path / "pid")
    job = {
        "id": "E.t.0.2",
        "script": f"trap '' TERM; echo $$ > {tmp_path}/deaf; sleep 300; sleep 300",
        "grace": 60.0,
    }
    with endpoint.connect(str(node), 5.0) as sock:
        sock.sendall(
            json.dumps({"id": 1, "do": "start", "job": job, "digest": "d", "node": "web-1"}).encode() + b"\n"
        )
        assert json.loads(sock.makefile("rb").readline())["ok"]
    deaf = read_pid(tmp_path / "deaf")
    began = time.monotonic()
    assert runners.end_all(tmp_path / "nodes", in_a_hurry=lambda: True) == 1
    assert time.monotonic() - began < 60
    wait_until(lambda: not is_alive(deaf) and not is_alive(pid))
    assert not runners.is_held(node)


@pytest.mark.parametrize("said", [b"", b"done"])
def test_the_watchdog_acts_only_when_it_is_left_alone(node: Path, tmp_path: Path, said: bytes) -> None:
    pid = read_pid(tmp_path / "pid")
    doomed = tmp_path / "doomed"
    doomed.mkdir()
    command = [sys.executable, "-m", "app.cli.watchdog", str(tmp_path / "nodes"), str(doomed)]
    dog = subprocess.Popen(command, stdin=subprocess.PIPE, cwd=ROOT)
    dog.communicate(said, timeout=60)
    assert dog.returncode == 0
    assert is_alive(pid) is (said == b"done")
    assert doomed.exists() is (said == b"done")


def test_one_up_a_directory(tmp_path: Path) -> None:
    home = Home(tmp_path / "data")
    home.take()
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700
    with pytest.raises(Conflict, match=f"another `muster up` \\(pid {os.getpid()}\\)"):
        Home(tmp_path / "data").take()
    sockets = home.socket_directory()
    assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
    home.write_client_file("http://x", "mst_1")
    assert stat.S_IMODE((tmp_path / "data" / "client.env").stat().st_mode) == 0o600
    assert (tmp_path / "data" / "client.env").read_text() == "MUSTER_URL=http://x\nMUSTER_TOKEN=mst_1\n"
    home.release()
    again = Home(tmp_path / "data")
    again.take()
    assert again.socket_directory() == sockets
    sockets.rmdir()
    assert again.known_token() == "mst_1"
    again.release()


def test_the_socket_directory_is_ours_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path)[-59:] if len(str(tmp_path)) > 59 else str(tmp_path))
    home = Home(tmp_path / "data")
    first = home.socket_directory()
    assert home.socket_directory() == first
    assert Home(tmp_path / "other").socket_directory() != first
    # Somebody was there before us, or left it open.
    first.chmod(0o777)
    second = home.socket_directory()
    assert second != first
    assert stat.S_IMODE(second.stat().st_mode) == 0o700
    first.rmdir()
    first.symlink_to(tmp_path)
    third = home.socket_directory()
    assert not third.is_symlink()
    assert third != first
    for directory in (second, third, Home(tmp_path / "other").socket_directory()):
        directory.rmdir()
    first.unlink()


def test_logs_are_trimmed_and_followed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = Home(tmp_path / "data")
    home.take()
    tail = Tail(home.logs)
    with home.log("api").open("ab", buffering=0) as log:
        log.write(b"first\nsec")
        tail.show()
        log.write(b"ond\x1b[31m\n")
        tail.show()
        assert [line.partition("│ ")[2] for line in capsys.readouterr().out.splitlines()] == [
            "first",
            "second\\x1b[31m",
        ]
        log.write(b"x" * (21 << 20) + b"\n")
        home.trim_logs()
        log.write(b"after\n")
        assert home.log("api").read_bytes() == b"after\n"
        tail.show()
        assert capsys.readouterr().out.endswith("after\n")
    assert (home.logs / "api.log.old").stat().st_size == 4 << 20
    home.release()


def make_server(path: Path, says: str) -> None:
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("programs", "wanted"),
    [
        ({"redis-server": "Redis server v=6.2.14 sha=0:0"}, (6, 2, 14)),
        ({"valkey-server": "Valkey server v=8.1.0 sha=0:0"}, (8, 1, 0)),
        (
            {"redis-server": "Redis server v=5.0.7 sha=0:0", "valkey-server": "Valkey server v=8.1.0 sha=0"},
            (8, 1, 0),
        ),
        ({"redis-server": "Redis server v=6.0.16 sha=0:0"}, "redis-server is 6.0.16"),
        ({"redis-server": "cannot open shared object file"}, "was found"),
        ({}, "was found"),
    ],
)
def test_finding_a_server(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    programs: dict[str, str],
    wanted: tuple[int, int, int] | str,
) -> None:
    for name, says in programs.items():
        make_server(tmp_path / name, says)
    (tmp_path / "sh").symlink_to("/bin/sh")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    if isinstance(wanted, tuple):
        assert redis_server.find().version == wanted
        return
    with pytest.raises(Unavailable, match=wanted) as raised:
        redis_server.find()
    for way_out in ("server extra", "system's packages", "--external"):
        assert way_out in raised.value.hint


def test_the_broker_is_private_and_keeps_its_data(tmp_path: Path) -> None:
    """A real server: commands that could reconfigure it are gone, EVAL is not, data outlives a kill."""
    server = redis_server.find()
    home = Home(tmp_path / "data")
    home.take()
    sockets = home.socket_directory()
    socket_path = str(sockets / "redis.sock")
    redis_server.write_configuration(home.redis / "redis.conf", socket_path, home.redis)
    cli = str(Path(server.path).with_name(Path(server.path).name.replace("server", "cli")))

    def ask(*words: str) -> str:
        return subprocess.run(
            [cli, "-s", socket_path, *words], capture_output=True, text=True, check=False
        ).stdout

    env = Environments(os.environ, home.root, "redis+socket:///x").control()
    one = Child(
        Spec("redis", [server.path, str(home.redis / "redis.conf")], env, home.root, home.log("redis"))
    )
    one.start()
    wait_until(lambda: redis_server.answers(socket_path))
    assert stat.S_IMODE(os.stat(socket_path).st_mode) == 0o600
    for command in ("CONFIG GET dir", "DEBUG SLEEP 0", "MODULE LIST", "SLAVEOF NO ONE"):
        assert "unknown command" in ask(*command.split())
    assert ask("EVAL", "return 7", "0").strip() == "7"
    assert "maxmemory_policy:noeviction" in ask("INFO", "memory")
    assert ask("SET", "a", "1").strip() == "OK"
    one.kill()
    wait_until(one.has_ended)
    one.start()
    wait_until(lambda: redis_server.answers(socket_path))
    assert ask("GET", "a").strip() == "1"
    one.terminate()
    wait_until(one.has_ended)
    sockets.rmdir()
    home.release()


def test_children_never_see_the_brokers_of_this_machine(tmp_path: Path) -> None:
    given = {
        "PATH": "/bin",
        "REDIS_URL": "redis://precious",
        "DATABASE_URL": "postgresql://precious",
        "CELERY_BROKER_URL": "amqp://precious",
        "CELERY_RESULT_BACKEND": "redis://precious",
        "FLOWER_PORT": "1",
        "GUNICORN_CMD_ARGS": "--bind 0.0.0.0",
        "MUSTER_URL": "http://elsewhere",
        "MUSTER_TOKEN": "mst_secret",
        "MUSTER_NODE": "other",
        "MUSTER_LOST_AFTER": "7",
    }
    own = Environments(given, tmp_path, "redis+socket:///s")
    for found in (own.control(), own.node("web-1", tmp_path / "web-1")):
        assert not [name for name, value in found.items() if "precious" in value or "secret" in value]
        assert found["REDIS_URL"] == "redis+socket:///s"
        assert found["MUSTER_LOST_AFTER"] == "7"
        assert not found.keys() & {"MUSTER_URL", "FLOWER_PORT", "GUNICORN_CMD_ARGS", "DATABASE_URL"}
    assert own.node("web-1", tmp_path / "web-1")["MUSTER_NODE"] == "web-1"
    assert "TMPDIR" not in own.node("web-1", tmp_path / "web-1")
    assert own.settings().lost_after == 7
    others = Environments(given, tmp_path)
    assert others.control()["DATABASE_URL"] == "postgresql://precious"
    assert "DATABASE_URL" not in others.node("web-1", tmp_path)
    assert others.node("web-1", tmp_path)["CELERY_BROKER_URL"] == "amqp://precious"


@pytest.mark.parametrize(("wanted", "had"), [(16, 64), (100, 100)])
def test_the_api_may_hold_as_many_streams_as_it_has_threads_for(
    tmp_path: Path, wanted: int, had: int
) -> None:
    """Told of fewer, it would answer `busy` while most of its threads are idle."""
    spec = parts.api(Home(tmp_path), Environments({}, tmp_path, "redis+socket:///s"), 7, wanted)
    assert spec.argv[spec.argv.index("--threads") + 1] == str(had)
    assert from_environment(spec.env).api_threads == had


def test_a_data_directory_must_be_one(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvalidInput, match="is not a directory"):
        Home(tmp_path / "file").take()
