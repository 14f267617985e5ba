"""The socket: who may talk, what is refused, who is slow, where it is."""

from __future__ import annotations

import json
import os
import socket
import stat
import time
from pathlib import Path
from typing import Any

import pytest
from runner_bench import Bench
from waiting import PATIENCE, wait_until

from app.errors import Conflict, Unavailable
from app.node import endpoint, jobdir
from app.node.connection import Connection
from app.transport.messages import JOB_ID


class Raw:
    """A client that says exactly what it is told to."""

    def __init__(self, root: str) -> None:
        self.sock = endpoint.connect(root, 10.0)
        self._lines = self.sock.makefile("rb")

    def say(self, line: bytes) -> None:
        self.sock.sendall(line + b"\n")

    def hear(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._lines.readline())
        return found

    def close(self) -> None:
        self._lines.close()
        self.sock.close()


JOB = {"id": "a", "argv": ["true"]}
BAD = [
    b"",
    b"not json",
    b"[]",
    b"null",
    b"7",
    b'"start"',
    b"{}",
    b'{"do": "fly"}',
    b'{"do": ["start"]}',
    b'{"do": "start"}',
    b'{"do": "cancel"}',
    b'{"do": "forget", "job": 7}',
    b"\xff\xfe",
    b"[" * 100_000,
    *(json.dumps({"do": "start", "job": job}).encode() for job in (None, [], "x", {}, {"id": "a"})),
    *(
        json.dumps({"do": "start", "job": {**JOB, **wrong}}).encode()
        for wrong in (
            {"script": "echo"},
            {"argv": None},
            {"argv": []},
            {"argv": [""]},
            {"argv": "true"},
            {"argv": [1]},
            {"env": []},
            {"env": {"A": 1}},
            {"cwd": 1},
            {"stdin": 1},
            {"timeout": "1"},
            {"timeout": -1},
            {"timeout": True},
            {"grace": None},
            {"output_limit": 0},
            {"output_limit": 1.5},
            {"ok_codes": ["0"]},
            {"ok_codes": 0},
            {"shell": None},
            {"task": 1},
        )
    ),
    *(
        json.dumps({"do": verb, "job": {**JOB, "id": name} if verb == "start" else name}).encode()
        for verb in ("start", "cancel", "forget")
        for name in (".", "..", "", "a/b", "../a", "/etc", "a\n", "a\0", "ä", "x" * 201, None)
    ),
]


def test_a_bad_request_is_answered_and_changes_nothing(bench: Bench) -> None:
    client = bench.client()
    raw = Raw(bench.root)
    for line in BAD:
        raw.say(line)
        answer = raw.hear()
        assert (answer["ok"], answer["error"]["type"]) == (False, "bad_request"), line
    assert os.listdir(os.path.join(bench.root, "jobs")) == []
    raw.say(b'{"id": 9, "do": "ping"}')
    assert raw.hear()["id"] == 9
    assert client.ping()["pid"] in bench.pids
    raw.close()


def test_job_ids_are_those_of_the_messages() -> None:
    for name in ("a", "A.b_c-9", "01ARZ3NDEKTSV4RRFFQ69G5FAV.build.0.1", "x" * 200):
        assert jobdir.is_id(name)
        assert JOB_ID.fullmatch(name)
    for name in ("", "a b", "a/b", "é", "x" * 201, "a:b", "a\0", "a\n", ".", ".."):
        assert not jobdir.is_id(name)
        assert not JOB_ID.fullmatch(name)
    for name in (".", "..", "a\n", 7, None):
        assert not jobdir.is_id(name)
    with pytest.raises(ValueError, match="not a job's id"):
        jobdir.path("/r", "../x")


def test_only_the_owner_gets_to_it(bench: Bench) -> None:
    client = bench.client()
    job = bench.job("stat -c %a $0; echo '{}' > $MUSTER_OUTPUT", stdin="s")
    bench.run(client, job)

    def mode(*parts: str) -> int:
        return stat.S_IMODE(os.stat(os.path.join(bench.root, *parts)).st_mode)

    assert stat.S_IMODE(os.stat(endpoint.read(bench.root)["socket"]).st_mode) == 0o600
    for parts in ((), ("jobs",), ("trash",), ("jobs", job.id), ("jobs", job.id, "work")):
        assert mode(*parts) == 0o700
    for name in ("record", "input.json", "stdin", "stdout"):
        assert mode("jobs", job.id, name) == 0o600
    assert bench.text(job) == b"700\n"
    assert mode("runner.log") == mode("runner.json") == 0o600


def test_a_long_path_gets_a_short_socket_that_goes_with_the_runner(bench: Bench) -> None:
    bench.root = os.path.join(bench.root, "deep" * 30)
    client = bench.client()
    path = endpoint.read(bench.root)["socket"]
    assert len(path) < 100
    assert stat.S_IMODE(os.stat(os.path.dirname(path)).st_mode) == 0o700
    assert bench.run(client, bench.job("echo hi"))["status"] == "succeeded"
    client.stop()
    client.close()
    wait_until(lambda: not os.path.exists(os.path.dirname(path)), "the directory is removed")


def test_a_watcher_that_never_reads_delays_nobody_and_is_cut_off(bench: Bench) -> None:
    client = bench.client()
    runner = next(iter(bench.pids))
    deaf = endpoint.connect(bench.root, 10.0)
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    deaf.sendall(b'{"id": 1, "do": "watch"}\n')
    job = bench.job(argv=("head", "-c", "20000000", "/dev/zero"), output_limit=64 << 20)
    assert bench.run(client, job)["status"] == "succeeded"
    # Answers may pile up only so far: ask, and never read.
    deaf.setblocking(False)
    refused = False
    line = b'{"id": "' + b"x" * 60_000 + b'", "do": "ping"}\n'
    deadline = time.monotonic() + PATIENCE
    rest = b""
    while not refused and time.monotonic() < deadline:
        try:
            rest = rest or line
            rest = rest[deaf.send(rest) :]
        except BlockingIOError:
            assert client.ping()["pid"] == runner
        except OSError:
            refused = True
    assert refused
    deaf.close()
    assert bench.run(client, bench.job("echo hi"))["status"] == "succeeded"
    assert bench.memory(runner)["VmRSS"] < 64_000


def test_a_line_without_an_end_is_cut_off(bench: Bench) -> None:
    client = bench.client()
    endless = endpoint.connect(bench.root, 10.0)

    def talk() -> None:
        for _ in range(1000):
            endless.sendall(b"x" * 65536)

    with pytest.raises(OSError, match=r"Broken pipe|reset"):
        talk()
    endless.close()
    assert client.ping()["pid"] in bench.pids


def test_an_idle_runner_uses_no_processor(bench: Bench) -> None:
    client = bench.client()
    runner = next(iter(bench.pids))
    quiet = bench.job("echo begun; sleep 600")
    client.start(quiet)
    bench.until_running(client, quiet)

    def woken() -> int:
        lines = Path(f"/proc/{runner}/status").read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("voluntary_ctxt_switches")))

    before = woken()
    deadline = time.monotonic() + 0.7
    wait_until(lambda: time.monotonic() > deadline, "some time passes")
    # It may still have been on its way to sleep.
    assert woken() <= before + 1


def test_a_running_job_cannot_be_forgotten(bench: Bench) -> None:
    client = bench.client()
    job = bench.job("echo begun; sleep 600")
    client.start(job)
    bench.until_running(client, job)
    with pytest.raises(Conflict, match="cancel it first"):
        client.forget(job.id)
    client.cancel(job.id)
    client.wait(job.id)
    client.forget(job.id)


def test_forgetting_twice_and_again_under_the_same_id(bench: Bench) -> None:
    client = bench.client()
    job = bench.job("mkdir -p a/b; touch a/b/c; chmod 500 a/b")
    for _ in range(3):
        assert bench.run(client, job)["status"] == "succeeded"
        client.forget(job.id)
        client.forget(job.id)


def test_a_closed_client_refuses(bench: Bench) -> None:
    client = bench.client()
    other = bench.client()
    other.close()
    with pytest.raises(Unavailable):
        other.ping()
    assert client.ping()["pid"] in bench.pids


def test_of_output_nothing_is_said_after_the_end_of_its_job() -> None:
    """However far behind a client is: whoever was told the end would follow the job anew, and for ever."""
    ours, theirs = socket.socketpair()
    client = Connection(ours)
    filler = json.dumps({"event": "started", "job": "x" * 4000}).encode() + b"\n"
    while not client.wants_to_write:
        client.send(filler)
    client.nudge("a")
    client.nudge("b")
    client.send(b'{"event": "exited", "job": "a"}\n', "a")
    theirs.setblocking(False)
    heard = bytearray()
    while client.wants_to_write or b'"b"' not in heard:
        heard += theirs.recv(1 << 20)
        client.flush()
    lines = [json.loads(line) for line in heard.splitlines()]
    told = [(line["event"], line["job"]) for line in lines if line["job"] in ("a", "b")]
    assert told == [("output", "a"), ("exited", "a"), ("output", "b")]
    client.close()
    theirs.close()
