"""What a script writes: huge, binary, followed while it is written, on a disk that is full."""

from __future__ import annotations

import hashlib
import os
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from runner_bench import Bench, decoded
from waiting import PATIENCE, wait_until

from app.node import jobdir, spool
from app.node.runner_client import RunnerClient
from app.transport.messages import Job

GIGABYTE = 1 << 30


@pytest.mark.parametrize("limit", [1 << 20, 64 << 20])
def test_a_gigabyte_costs_no_memory(bench: Bench, limit: int) -> None:
    client = bench.client()
    runner = next(iter(bench.pids))
    job = bench.job(argv=("head", "-c", str(GIGABYTE), "/dev/zero"), output_limit=limit)
    began = time.monotonic()
    record = bench.run(client, job)
    took = time.monotonic() - began
    stream = record["stdout"]
    assert (record["status"], stream["bytes"], stream["kept"]) == ("succeeded", GIGABYTE, limit)
    assert stream["truncated"]
    kept = bytes(limit // 2) + spool.cut_mark(GIGABYTE - limit) + bytes(limit // 2)
    assert stream["sha256"] == hashlib.sha256(kept).hexdigest()
    peak = bench.memory(runner)["VmHWM"]
    print(f"\n1 GB, {limit >> 20} MB kept: {GIGABYTE / took / 1e6:.0f} MB/s, peak {peak} kB")
    assert peak < 64_000


def test_two_loud_jobs_do_not_silence_a_quiet_one(bench: Bench) -> None:
    client = bench.client()
    loud = [bench.job(argv=("yes",)) for _ in range(2)]
    for job in loud:
        client.start(job)
        bench.until_running(client, job)
    assert decoded(bench.run(client, bench.job("echo quiet"))["stdout"]) == b"quiet\n"
    for job in loud:
        client.cancel(job.id)
        record = client.wait(job.id)
        text = bench.text(job)
        assert record["status"] == "cancelled"
        assert text.startswith(b"y\ny\n")
        assert len(text) == (1 << 20) + len(spool.cut_mark(record["stdout"]["bytes"] - (1 << 20)))


def test_every_byte_is_kept_exactly(bench: Bench, tmp_path: Path) -> None:
    client = bench.client()
    data = bytes(range(256)) * 1000 + os.urandom(200_001) + b"\xff\xfe\x00\x1b[31m\r\n"
    (tmp_path / "data").write_bytes(data)
    job = bench.job(f"cat {tmp_path}/data; cat {tmp_path}/data >&2")
    record = bench.run(client, job)
    for name in spool.STREAMS:
        stream = record[name]
        assert bench.text(job, name) == data
        assert stream["sha256"] == hashlib.sha256(data).hexdigest()
        assert (stream["bytes"], stream["kept"], stream["truncated"]) == (len(data), len(data), False)
        assert decoded(stream) == data[:8192] + data[-8192:]


def follow(client: RunnerClient, job: Job, nudged: threading.Event, pieces: list[tuple[int, bytes]]) -> None:
    with spool.Follower(client.spool(job.id), "stdout") as follower:
        while True:
            over = follower.is_over
            offset, data = follower.read(4096)
            if data:
                pieces.append((offset, data))
            elif over:
                return
            else:
                assert nudged.wait(PATIENCE)
                nudged.clear()


def test_a_follower_sees_it_as_it_comes_and_then_the_rest(bench: Bench, tmp_path: Path) -> None:
    nudged = threading.Event()
    client = bench.client(on_output=lambda _: nudged.set(), on_exited=lambda _: nudged.set())
    script = f"echo first; while [ ! -e {tmp_path}/go ]; do sleep 0.01; done; seq 1 5000; echo last"
    job = bench.job(script, output_limit=2000)
    client.start(job)
    pieces: list[tuple[int, bytes]] = []
    thread = threading.Thread(target=follow, args=(client, job, nudged, pieces))
    thread.start()
    wait_until(lambda: pieces, "the first line arrives while the script runs")
    assert pieces[0] == (0, b"first\n")
    (tmp_path / "go").touch()
    client.wait(job.id)
    thread.join(PATIENCE)
    at = 0
    for offset, data in pieces:
        assert offset == at
        at += len(data)
    seen = b"".join(data for _, data in pieces)
    assert seen == bench.text(job)
    assert seen.startswith(b"first\n1\n2\n")
    assert b"bytes cut]" in seen
    assert seen.endswith(b"5000\nlast\n")


def test_events_come_in_order_and_nudges_are_few(bench: Bench) -> None:
    events: list[str] = []
    client = bench.client(
        on_started=lambda job, pid, at: events.append("started"),
        on_output=lambda job: events.append("output"),
        on_exited=lambda job: events.append("exited"),
    )
    bench.run(client, bench.job(argv=("head", "-c", "100000000", "/dev/zero")))
    wait_until(lambda: "exited" in events, "the last event")
    assert events[0] == "started"
    assert 1 <= events.count("output") <= 200
    assert events.count("exited") == 1


def test_a_callback_that_fails_does_not_cut_the_worker_off(bench: Bench) -> None:
    def fail(_: str) -> None:
        raise RuntimeError("a fault of the worker")

    client = bench.client(on_output=fail, on_exited=fail)
    assert bench.run(client, bench.job("echo one"))["status"] == "succeeded"
    assert bench.run(client, bench.job("echo two"))["status"] == "succeeded"


def test_a_disk_that_refuses_output_loses_output_only(bench: Bench) -> None:
    client = bench.client()
    # A file size limit is the disk error that a test can make: writes past it fail with EFBIG.
    resource.prlimit(next(iter(bench.pids)), resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
    job = bench.job("yes | head -c 3000000; echo end >&2; exit 3")
    record = bench.run(client, job)
    assert (record["status"], record["exit_code"]) == ("failed", 3)
    assert "too large" in record["spool_error"]
    assert (record["stdout"]["bytes"], record["stdout"]["truncated"]) == (3_000_000, True)
    assert record["stdout"]["kept"] == 100_000
    assert record["stdout"]["sha256"] == hashlib.sha256(bench.text(job)).hexdigest()
    assert decoded(record["stderr"]) == b"end\n"


def test_an_exit_record_that_the_disk_refuses_is_told_and_stored_later(bench: Bench) -> None:
    client = bench.client()
    runner = next(iter(bench.pids))
    resource.prlimit(runner, resource.RLIMIT_FSIZE, (500, resource.RLIM_INFINITY))
    job = bench.job("exit 6")
    record = bench.run(client, job)
    assert (record["status"], record["exit_code"]) == ("failed", 6)
    directory = jobdir.path(bench.root, job.id)
    assert jobdir.exit_record(directory) is None
    another = bench.client()
    assert another.wait(job.id) == record
    assert another.start(job) == "ended"
    resource.prlimit(runner, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    wait_until(lambda: jobdir.exit_record(directory) == record, "the record is stored")


def test_the_record_of_an_orphan_that_the_disk_refuses_is_not_lost(bench: Bench) -> None:
    job = bench.job("echo")
    directory = jobdir.path(bench.root, job.id)
    os.makedirs(directory)
    # Longer than the limit that the runner starts with: nothing can be added.
    jobdir.write(directory, "record", b'{"digest": "", "at": 1.5}\n' + bytes(2000))
    command = [sys.executable, "-m", "app.node.runner", "--dir", bench.root]
    root = Path(jobdir.__file__).parents[2]
    runner = subprocess.Popen(["sh", "-c", 'ulimit -S -f 2; exec "$@"', "sh", *command], cwd=root)
    try:
        wait_until(lambda: os.path.exists(os.path.join(bench.root, "runner.json")), "the runner listens")
        client = bench.client()
        record = client.wait(job.id)
        assert record["status"] == "unknown"
        assert jobdir.exit_record(directory) is None
        assert client.start(job) == "ended"
        resource.prlimit(runner.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        wait_until(lambda: jobdir.exit_record(directory) == record, "the record is stored")
        client.stop()
        assert runner.wait(PATIENCE) == 0
    finally:
        runner.kill()
        runner.wait()
