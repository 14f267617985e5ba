"""kill -9 of the runner and of its clients: no second effect, nothing left running, the truth told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
from runner_bench import Bench, alive, decoded
from waiting import PATIENCE, wait_until

from app.errors import NotFound
from app.node import endpoint, jobdir, sweep
from app.node.runner_client import Interrupted, RunnerClient

ROOT = Path(jobdir.__file__).parents[2]


CLAIM = '{"digest": "", "at": 1.5}'


def kill_runner(bench: Bench) -> int:
    pid = int(endpoint.read(bench.root)["pid"])
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not alive(pid), "the runner is dead")
    return pid


def test_a_killed_runner_is_replaced_and_the_job_is_unknown(bench: Bench, tmp_path: Path) -> None:
    client = bench.client()
    script = f"""echo ran >> {tmp_path}/effects
        setsid sh -c 'while :; do sleep 0.1; done' >/dev/null 2>&1 &
        echo begun; while :; do sleep 0.1; done"""
    job = bench.job(script)
    client.start(job)
    main = bench.until_running(client, job)
    found: list[dict[str, object]] = []
    waiter = threading.Thread(target=lambda: found.append(client.wait(job.id)))
    waiter.start()
    killed = kill_runner(bench)
    waiter.join(PATIENCE)
    bench.pids.add(client.ping()["pid"])
    assert killed != client.ping()["pid"]
    (record,) = found
    assert record["status"] == "unknown"
    assert record["error"]["type"] == "interrupted"  # type: ignore[index]
    assert "the script was killed" in record["error"]["message"]  # type: ignore[index]
    assert decoded(record["stdout"]) == b"begun\n"  # type: ignore[arg-type]
    assert record["digest"] == job.digest
    assert not alive(main)
    assert sweep.bearers(frozenset({job.id})) == {}
    assert client.start(job) == "ended"
    assert client.wait(job.id) == record
    assert (tmp_path / "effects").read_text() == "ran\n"


def test_an_orphan_that_ended_by_itself_is_unknown_too(bench: Bench) -> None:
    client = bench.client()
    job = bench.job("echo begun; sleep 0.2")
    client.start(job)
    main = bench.until_running(client, job)
    client.close()
    kill_runner(bench)
    wait_until(lambda: not alive(main), "the script ends")
    record = bench.client().wait(job.id)
    assert record["status"] == "unknown"
    assert "nothing of the script was left" in record["error"]["message"]


@pytest.mark.parametrize(
    ("files", "status"),
    [
        ({}, "started"),
        ({"record": f"{CLAIM}\n"}, "unknown"),
        ({"record": ""}, "unknown"),
        ({"record": "\0" * 100}, "unknown"),
        ({"record": CLAIM[:9]}, "unknown"),
        ({"record": CLAIM, "script": "echo", "stdout": "x"}, "unknown"),
        ({"record": f'{CLAIM}\n{{"pid": 1, "boot_id": "other", "start_time": 1}}\n'}, "unknown"),
        ({"record": f'{CLAIM}\n{{"pid": 1, "boot'}, "unknown"),
        ({"record": f'{CLAIM}\n\n{{"job": "x", "status": "succe'}, "unknown"),
        ({"record": f'{CLAIM}\n\n{{"job": "x", "status": "succeeded"}}\n'}, "succeeded"),
        ({"record": f'{CLAIM[:9]}\n{{"job": "x", "status": "succeeded"}}'}, "succeeded"),
        ({"cancel": '{"reason": "no", "at": 4000000000}'}, "cancelled"),
        ({"cancel": "half a rec"}, "started"),
    ],
)
def test_every_crash_point(bench: Bench, tmp_path: Path, files: dict[str, str], status: str) -> None:
    job = bench.job(f"echo ran >> {tmp_path}/effects")
    directory = Path(jobdir.path(bench.root, job.id))
    directory.mkdir(parents=True)
    for name, text in files.items():
        (directory / name).write_text(text)
    client = bench.client()
    assert client.start(job) == ("started" if status == "started" else "ended")
    record = client.wait(job.id)
    assert record["status"] == ("succeeded" if status == "started" else status)
    assert (tmp_path / "effects").exists() == (status == "started")


@pytest.mark.timeout(60)
def test_a_runner_comes_up_whatever_a_script_made_of_its_own_directory(bench: Bench) -> None:
    client = bench.client()
    job = bench.job('cd "${MUSTER_INPUT%/*}"; rm record; mkfifo record stdout; touch ready; sleep 60')
    client.start(job)
    wait_until(lambda: os.path.exists(os.path.join(client.spool(job.id), "ready")), "the pipes are there")
    kill_runner(bench)
    bench.pids.add(client.ping()["pid"])
    assert bench.run(client, bench.job("echo next"))["status"] == "succeeded"


def test_a_live_script_of_a_dead_runner_is_found_by_its_cookie_alone(bench: Bench) -> None:
    # As when the runner is killed between starting the process and writing down who it is.
    job = bench.job("echo")
    Path(jobdir.path(bench.root, job.id)).mkdir(parents=True)
    jobdir.write(jobdir.path(bench.root, job.id), "record", CLAIM.encode())
    script = subprocess.Popen(["sleep", "600"], env={"PATH": os.environ["PATH"], "MUSTER_COOKIE": job.id})
    try:
        client = bench.client()
        assert script.wait(PATIENCE) == -signal.SIGKILL
        assert "the script was killed" in client.wait(job.id)["error"]["message"]
    finally:
        script.kill()
        script.wait()


def test_a_process_that_got_a_recorded_number_later_is_not_touched(bench: Bench) -> None:
    job = bench.job("echo")
    directory = jobdir.path(bench.root, job.id)
    Path(directory).mkdir(parents=True)
    other = subprocess.Popen(["sleep", "600"], start_new_session=True)
    try:
        found = sweep.stat(other.pid)
        assert found is not None
        identity = f'{{"pid": {other.pid}, "boot_id": "{sweep.boot_id()}", "start_time": {found.start - 1}}}'
        jobdir.write(directory, "record", f"{CLAIM}\n{identity}\n".encode())
        assert bench.client().wait(job.id)["status"] == "unknown"
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_the_script_outlives_a_killed_client(bench: Bench, tmp_path: Path) -> None:
    job = bench.job(f"echo ran >> {tmp_path}/effects; sleep 0.7; echo done")
    code = f"""
        import json, sys, time
        from app.node.runner_client import RunnerClient
        from app.transport.messages import Job
        client = RunnerClient({bench.root!r}, "web-1")
        client.ensure()
        client.start(Job.from_json(json.loads(sys.argv[1])))
        print("started", flush=True)
        time.sleep(60)
    """
    worker = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), json.dumps(job.to_json())],
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )
    assert worker.stdout is not None
    assert worker.stdout.readline() == b"started\n"
    before = int(endpoint.read(bench.root)["pid"])
    worker.kill()
    worker.wait()
    worker.stdout.close()
    client = bench.client()
    assert client.ping()["pid"] == before
    assert [entry["job"] for entry in client.list()] == [job.id]
    assert client.start(job) == "running"
    record = client.wait(job.id)
    assert (record["status"], decoded(record["stdout"])) == ("succeeded", b"done\n")
    assert (tmp_path / "effects").read_text() == "ran\n"


def test_release_lets_every_waiter_go_at_once_and_the_script_goes_on(bench: Bench) -> None:
    client = bench.client()
    job = bench.job("echo begun; sleep 1; echo done")
    client.start(job)
    bench.until_running(client, job)
    let_go: list[type[BaseException]] = []

    def wait() -> None:
        try:
            client.wait(job.id)
        except Interrupted as error:
            let_go.append(type(error))

    waiters = [threading.Thread(target=wait) for _ in range(8)]
    for waiter in waiters:
        waiter.start()
    client.release()
    for waiter in waiters:
        waiter.join(PATIENCE)
    assert let_go == [Interrupted] * 8
    assert decoded(bench.client().wait(job.id)["stdout"]) == b"begun\ndone\n"


def test_release_lets_go_of_who_waits_for_an_answer(bench: Bench) -> None:
    client = bench.client()
    runner = next(iter(bench.pids))
    job = bench.job("echo done")
    let_go: list[type[BaseException]] = []

    def run() -> None:
        try:
            client.run(job)
        except Interrupted as error:
            let_go.append(type(error))

    os.kill(runner, signal.SIGSTOP)
    try:
        waiter = threading.Thread(target=run)
        waiter.start()
        wait_until(lambda: job.id in client._waits, "it waits")
        client.release()
        waiter.join(PATIENCE)
        assert let_go == [Interrupted]
        with pytest.raises(Interrupted):
            client.run(job)
    finally:
        os.kill(runner, signal.SIGCONT)


@pytest.mark.parametrize(
    "script", ["true", "echo begun; sleep 0.3", "exit 3", "seq 1 40000; seq 1 40000 >&2"]
)
def test_run_is_start_and_wait(bench: Bench, script: str) -> None:
    started: list[str] = []
    client = bench.client(on_started=lambda job, pid, at: started.append(job))
    watcher_started: list[str] = []
    watcher = bench.client(on_started=lambda job, pid, at: watcher_started.append(job))
    job = bench.job(script)
    record = client.run(job)
    assert record == jobdir.exit_record(jobdir.path(bench.root, job.id))
    assert client.run(job) == record
    assert watcher.wait(job.id) == record
    assert started == [job.id]
    wait_until(lambda: watcher_started == [job.id], "the other client is told, once")


def test_an_output_too_long_for_an_event_is_read_from_the_record(bench: Bench) -> None:
    client = bench.client()
    job = bench.job("""printf '{"a": "%0200000d"}' 0 > "$MUSTER_OUTPUT\"""")
    assert len(client.run(job)["output"]["a"]) == 200_000


def test_run_survives_a_runner_that_is_killed(bench: Bench, tmp_path: Path) -> None:
    client = bench.client()
    job = bench.job(f"echo ran >> {tmp_path}/effects; echo begun; sleep 600")
    found: list[dict[str, object]] = []
    waiter = threading.Thread(target=lambda: found.append(client.run(job)))
    waiter.start()
    bench.until_running(client, job)
    kill_runner(bench)
    waiter.join(PATIENCE)
    bench.pids.add(client.ping()["pid"])
    assert [record["status"] for record in found] == ["unknown"]
    assert (tmp_path / "effects").read_text() == "ran\n"


def test_waiting_for_a_job_that_was_never_started_or_was_forgotten(bench: Bench) -> None:
    client = bench.client()
    job = bench.job("echo hi")
    with pytest.raises(NotFound):
        client.wait(job.id)
    bench.run(client, job)
    client.forget(job.id)
    with pytest.raises(NotFound):
        client.wait(job.id)
    assert not Path(jobdir.path(bench.root, job.id)).exists()
    assert list((Path(bench.root) / "trash").iterdir()) == []


def test_starting_while_runners_are_killed_never_runs_twice(bench: Bench, tmp_path: Path) -> None:
    client = bench.client()
    effects = tmp_path / "effects"
    effects.touch()
    jobs = [bench.job(f'echo "$MUSTER_JOB" >> {effects}; sleep 0.02') for _ in range(60)]
    stop = threading.Event()
    killed: set[int] = set()

    def killer() -> None:
        while not stop.wait(0.15):
            pid = int(endpoint.read(bench.root).get("pid", 0))
            # Only what is a runner now: the file may be a dead one's.
            if pid and bench.root.encode() in (
                Path(f"/proc/{pid}/cmdline").read_bytes() if alive(pid) else b""
            ):
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)

    chaos = threading.Thread(target=killer)
    chaos.start()
    statuses = []
    try:
        for job in jobs:
            client.start(job)
            statuses.append(client.wait(job.id)["status"])
    finally:
        stop.set()
        chaos.join()
    bench.pids = {client.ping()["pid"]}
    assert len(killed) >= 3
    ran = effects.read_text().split()
    assert len(ran) == len(set(ran))
    succeeded = {job.id for job, status in zip(jobs, statuses, strict=True) if status == "succeeded"}
    assert succeeded <= set(ran)
    assert set(statuses) <= {"succeeded", "unknown"}
    assert sweep.bearers(frozenset(job.id for job in jobs)) == {}


def test_a_second_runner_on_the_directory_refuses(bench: Bench) -> None:
    bench.client()
    command = [sys.executable, "-m", "app.node.runner", "--dir", bench.root]
    second = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20, check=False)
    assert second.returncode == endpoint.ALREADY_RUNNING
    assert "another runner owns" in second.stderr


def test_clients_that_start_a_runner_at_once_share_one(bench: Bench) -> None:
    clients = [RunnerClient(bench.root, "web-1") for _ in range(6)]
    found: list[int] = []
    threads = [threading.Thread(target=lambda c=c: found.append(c.ensure()["pid"])) for c in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    bench.pids = set(found)
    for client in clients[1:]:
        client.close()
    clients[0].stop()
    clients[0].close()
    assert len(found) == 6
    assert len(set(found)) == 1


def test_sigterm_waits_for_the_jobs_and_a_second_one_ends_them(bench: Bench) -> None:
    client = bench.client()
    pid = next(iter(bench.pids))
    job = bench.job("echo begun; sleep 600")
    client.start(job)
    bench.until_running(client, job)
    os.kill(pid, signal.SIGTERM)
    log = Path(bench.root) / "runner.log"
    wait_until(lambda: "stopping" in log.read_text(), "the runner takes the signal")
    with pytest.raises(Exception, match="stopping"):
        client.start(bench.job("echo no"))
    assert client.start(job) == "running"
    assert alive(pid)
    os.kill(pid, signal.SIGTERM)
    assert client.wait(job.id)["status"] == "cancelled"
    wait_until(lambda: not alive(pid), "the runner ends")


def test_sigterm_ends_an_idle_runner_at_once_and_cleans_up(bench: Bench) -> None:
    client = bench.client()
    pid = next(iter(bench.pids))
    client.close()
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not alive(pid), "the runner ends")
    left = set(os.listdir(bench.root))
    assert left == {"jobs", "trash", "runner.lock", "runner.log"}
