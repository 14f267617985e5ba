"""What a runner owes to its station, over SSH: by each way to a far side the same."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest
from far_bench import FarBench, Running
from waiting import PATIENCE, wait_until

from app.errors import Conflict
from app.node.jobdir import exit_record, path
from app.node.spool import Follower
from app.ssh.remote_runner import RemoteRunner


@pytest.fixture(scope="module")
def runner(far: FarBench) -> RemoteRunner:
    return far.runner()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def first_line(far: FarBench, job_id: str) -> str:
    """Waits for it."""
    with Follower(path(far.root, job_id), "stdout") as follower:
        data = b""
        deadline = time.monotonic() + PATIENCE
        while b"\n" not in data:
            assert time.monotonic() < deadline
            data += follower.read()[1]
            time.sleep(0.005)
    return data.split(b"\n")[0].decode()


def test_the_first_line_is_there_before_the_end(far: FarBench, runner: RemoteRunner, tmp_path: Path) -> None:
    go = tmp_path / "go"
    job = far.job(f"echo first; echo oops >&2; until [ -e {go} ]; do sleep 0.05; done; echo last")
    running = Running(runner, job)
    assert first_line(far, job.id) == "first"
    wait_until(lambda: far.text(job, "stderr") == b"oops\n", "standard error is live as well")
    assert exit_record(path(far.root, job.id)) is None
    go.touch()
    assert running.record()["status"] == "succeeded"
    assert far.text(job) == b"first\nlast\n"
    assert far.text(job, "stderr") == b"oops\n"
    assert job.id in far.heard.output
    assert [one for one, _ in far.heard.started].count(job.id) == 1
    assert far.heard.exited.count(job.id) == 1


def test_output_of_every_byte_and_of_any_length(far: FarBench, runner: RemoteRunner) -> None:
    script = "import os, sys; data = bytes(range(256)) * 4096; os.write(1, data); os.write(2, data[::-1])"
    job = far.job(script, shell="python", output_limit=4 << 20)
    record = runner.run(job)
    assert record["status"] == "succeeded"
    data = bytes(range(256)) * 4096
    assert far.text(job) == data
    assert far.text(job, "stderr") == data[::-1]


def test_output_that_came_in_drops_is_kept_up_to_its_limit(far: FarBench, runner: RemoteRunner) -> None:
    """More small writes than the far side takes in one go, each by itself, then a long one."""
    script = "import time\nfor n in range(70): print(n, flush=True), time.sleep(0.002)\nprint('x' * 700_000)"
    job = far.job(script, shell="python", output_limit=1 << 20)
    record = runner.run(job)
    assert (record["status"], record["stdout"]["truncated"]) == ("succeeded", False)
    assert far.text(job) == b"".join(b"%d\n" % n for n in range(70)) + b"x" * 700_000 + b"\n"


def test_output_past_its_limit_keeps_both_ends(far: FarBench, runner: RemoteRunner) -> None:
    # More than the far side keeps from the beginning of a stream: the rest of it never travels.
    job = far.job("seq 1 3000000", output_limit=10_000)
    record = runner.run(job)
    whole = "".join(f"{number}\n" for number in range(1, 3_000_001)).encode()
    kept = far.text(job)
    assert kept.startswith(whole[:5000])
    assert kept.endswith(whole[-5000:])
    assert record["stdout"]["bytes"] == len(whole)
    assert record["stdout"]["truncated"] is True


def test_values_that_want_to_be_more(far: FarBench, runner: RemoteRunner) -> None:
    values = {
        "PLAIN": "a b",
        "QUOTES": 'it\'s "so" `id` $(id) $HOME \\ \\n %s %%',
        "LINES": "one\ntwo\r\n\tthree\n",
        "LETTERS": "grüße 漢字 🚀 \x81\x82\x88",
        "EMPTY": "",
        "IFS": "/",
        "UID": "7",
        "with-dash": "x y",
        "LONG": "0123456789" * 10_000,
    }
    script = "import json, os; print(json.dumps(dict(os.environ)))"
    job = far.job(script, shell="python", env=values, output_limit=1 << 20)
    record = runner.run(job)
    assert record["status"] == "succeeded", far.text(job, "stderr")
    found = json.loads(far.text(job))
    for name, value in values.items():
        assert found[name] == value
    allowed = {
        *values,
        "PATH",
        "HOME",
        "USER",
        "LOGNAME",
        "SHELL",
        "LANG",
        "LC_ALL",
        "LC_CTYPE",
        "TZ",
        "TMPDIR",
    }
    assert {name for name in found if not name.startswith("MUSTER_")} - allowed <= {"TERM", "PWD"}


def test_what_is_too_long_for_a_process_is_said(far: FarBench, runner: RemoteRunner) -> None:
    record = runner.run(far.job("true", env={"LONG": "x" * 200_000}))
    assert record["status"] == "failed"
    assert (record["exit_code"], record["error"]["type"]) == (126, "not_executable")


def test_a_long_script_and_a_long_input(far: FarBench, runner: RemoteRunner) -> None:
    script = "wc -c; " + "# a long line of no use\n" * 40_000 + 'wc -c <"$MUSTER_INPUT"'
    job = far.job(script, stdin="x" * 2_000_000, input={"text": "y" * 1_000_000})
    record = runner.run(job)
    assert far.text(job).split() == [b"2000000", b"1000012"], record


def test_text_with_nul_goes_in_as_it_is(far: FarBench, runner: RemoteRunner) -> None:
    job = far.job("od -An -c | tr -d ' '", stdin="a\0%s\\b")
    runner.run(job)
    assert far.text(job) == b"a\\0%s\\b\n"


def test_secrets_are_seen_nowhere(far: FarBench, runner: RemoteRunner) -> None:
    value = "s3cret'value with $(id)"
    mark = "﷐secret:x﷑"
    script = """
echo "<$KEY>"; cat; cat "$MUSTER_INPUT"
echo "{\\"a\\": \\"$KEY\\"}" >"$MUSTER_OUTPUT"
tr "\\0" "\\n" </proc/$PPID/cmdline
"""
    job = far.job(script, env={"KEY": mark}, stdin=f"-{mark}-", input={"key": mark})
    record = runner.run(job, {"secret:x": value})
    assert record["status"] == "succeeded", record
    assert record["output"] == {"a": "***"}
    text = far.text(job)
    assert text.startswith(b'<***>\n-***-{"key": "***"}')
    assert value.encode() not in text
    kept = [one for one in Path(far.root).rglob("*") if one.is_file() and value.encode() in one.read_bytes()]
    assert kept == []


def test_a_cut_leaves_no_piece_of_a_secret(far: FarBench, runner: RemoteRunner) -> None:
    # What the far side keeps of the end begins anywhere: here in the middle of the secret's value.
    value = "0123456789abcdefghijklmnopqrstuvwxyz"
    script = """
ten="$KEY$KEY$KEY$KEY$KEY$KEY$KEY$KEY$KEY$KEY"
i=0; while [ $i -lt 200 ]; do printf "%s" "$ten"; i=$((i+1)); done
head -c 9000000 /dev/zero
printf "%s" "$KEY$KEY$KEY$KEY"
"""
    job = far.job(script, env={"KEY": "﷐secret:x﷑"}, output_limit=100)
    record = runner.run(job, {"secret:x": value})
    assert record["status"] == "succeeded"
    assert not any(value[at : at + 8].encode() in far.text(job) for at in range(len(value) - 8))


def test_cancel_lets_the_script_clean_up(far: FarBench, runner: RemoteRunner) -> None:
    job = far.job("trap 'echo cleaned; exit 0' TERM; echo up; while :; do sleep 0.05; done")
    running = Running(runner, job)
    assert first_line(far, job.id) == "up"
    assert runner.cancel(job.id, "enough") == "ending"
    record = running.record()
    assert (record["status"], record["exit_code"]) == ("cancelled", 0)
    assert record["error"] == {"type": "cancelled", "message": "enough"}
    assert far.text(job) == b"up\ncleaned\n"
    assert runner.cancel(job.id) == "ended"


def test_cancel_ends_what_has_left_the_group(far: FarBench, runner: RemoteRunner) -> None:
    job = far.job(
        "trap '' TERM; setsid sh -c 'trap \"\" TERM; echo $$; sleep 60' & wait; sleep 60", grace=0.3
    )
    running = Running(runner, job)
    child = int(first_line(far, job.id))
    runner.cancel(job.id)
    assert running.record()["status"] == "cancelled"
    assert not alive(child)


def test_what_stays_in_the_background_is_not_waited_for(far: FarBench, runner: RemoteRunner) -> None:
    job = far.job("sleep 60 & echo $!")
    record = runner.run(job)
    child = int(far.text(job))
    try:
        assert record["status"] == "succeeded"
        assert alive(child)
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_cancel_that_comes_first(far: FarBench, runner: RemoteRunner, tmp_path: Path) -> None:
    job = far.job(f"touch {tmp_path}/effect")
    assert runner.cancel(job.id, "never mind") == "remembered"
    record = runner.run(job)
    assert (record["status"], record["error"]["message"]) == ("cancelled", "never mind")
    assert not (tmp_path / "effect").exists()


def test_the_same_job_runs_once(far: FarBench, runner: RemoteRunner, tmp_path: Path) -> None:
    job = far.job(f"echo x >>{tmp_path}/effect; sleep 0.3")
    both = [Running(runner, job), Running(runner, job)]
    records = [one.record() for one in both]
    assert records[0] == records[1] == runner.run(job)
    assert (tmp_path / "effect").read_text() == "x\n"
    with pytest.raises(Conflict):
        runner.run(far.job("echo other", id=job.id))


def test_another_runner_finds_the_job_again(far: FarBench, tmp_path: Path) -> None:
    first = far.runner()
    go = tmp_path / "go"
    job = far.job(f"echo one; echo x >>{tmp_path}/effect; until [ -e {go} ]; do sleep 0.05; done; echo two")
    running = Running(first, job)
    first_line(far, job.id)
    first.close()
    with pytest.raises(Exception, match="given up"):
        running.record()
    go.touch()
    record = far.runner().run(job)
    assert record["status"] == "succeeded"
    assert far.text(job) == b"one\ntwo\n"
    assert (tmp_path / "effect").read_text() == "x\n"


def test_fifty_jobs_at_once(far: FarBench, runner: RemoteRunner) -> None:
    jobs = [far.job(f"echo {number}; echo {number} >&2") for number in range(50)]
    running = [Running(runner, job) for job in jobs]
    assert {one.record()["status"] for one in running} == {"succeeded"}
    assert [far.text(job) for job in jobs] == [b"%d\n" % number for number in range(50)]


def test_nothing_is_left_on_the_machine(far: FarBench, runner: RemoteRunner) -> None:
    runner.run(far.job("touch here"))
    base = Path(runner.base)
    wait_until(lambda: not list((base / "jobs").iterdir()), "what is over is removed")
    assert base.stat().st_mode & 0o777 == 0o700
