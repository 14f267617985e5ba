"""Secrets on a node: put in at the last moment, masked in what comes back, and gone from the disk with the job."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest
from runner_bench import Bench, decoded
from waiting import wait_until

from app import marks
from app.node import jobdir

VALUE = "CANARY-s3cret/value+with=all"
REFERENCE = "secret:db/password"
MARK = marks.mark(REFERENCE)
SECRETS = {REFERENCE: VALUE}


def files_with(bench: Bench, text: str = VALUE) -> list[str]:
    found = (path for path in Path(bench.root).rglob("*") if path.is_file())
    return sorted(path.name for path in found if text.encode() in path.read_bytes())


def test_a_script_has_the_values_and_nobody_else(bench: Bench) -> None:
    client = bench.client()
    job = bench.job(
        'test "$A" = "x$(cat)y" && echo same; echo "$A"; echo "$A" >&2\n'
        'grep -c CANARY "$MUSTER_INPUT"; stat -c %a "$MUSTER_INPUT"\n'
        'printf \'{"a": "%s", "n": 5}\' "$A" > "$MUSTER_OUTPUT"; exit 3',
        env={"A": f"x{MARK}y"},
        stdin=MARK,
        input={"env": {"A": MARK}, "list": [MARK]},
    )
    record = client.run(job, SECRETS)
    assert (record["status"], record["exit_code"]) == ("failed", 3)
    assert decoded(record["stdout"]) == b"same\nx***y\n1\n600\n"
    assert decoded(record["stderr"]) == b"x***y\n"
    assert record["output"] == {"a": "x***y", "n": 5}
    assert files_with(bench) == []
    assert not (Path(jobdir.path(bench.root, job.id)) / "input.json").exists()


def test_output_is_live_and_never_shows_a_piece(bench: Bench, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    client = bench.client()
    half = len(VALUE) // 2
    job = bench.job(
        f'echo first; printf %s "${{A%{"?" * half}}}"; while [ ! -e {gate} ]; do sleep 0.02; done\n'
        f'printf "%s\\n" "${{A#"${{A%{"?" * half}}}"}}"',
        env={"A": MARK},
    )
    client.start(job, SECRETS)
    wait_until(lambda: bench.text(job) == b"first\n", "the first line")
    gate.touch()
    assert decoded(client.wait(job.id)["stdout"]) == b"first\n***\n"


def test_a_program_that_is_not_there_and_a_value_that_is_missing(bench: Bench) -> None:
    client = bench.client()
    gone = client.run(bench.job(argv=(f"/no/{VALUE}",), env={"A": MARK}), SECRETS)
    assert gone["error"] == {
        "type": "not_found",
        "message": "/no/***: no such program (or the interpreter that its first line names is missing)",
    }
    other = client.run(bench.job("env", env={"A": marks.mark("secret:other")}), SECRETS)
    assert (other["status"], other["error"]["type"]) == ("failed", "refused")
    assert files_with(bench) == []


def test_without_secrets_a_mark_is_only_text(bench: Bench) -> None:
    record = bench.run(bench.client(), bench.job('printf %s "$A"', env={"A": MARK}))
    assert decoded(record["stdout"]) == MARK.encode()


def test_what_is_put_in_is_not_looked_at_again(bench: Bench) -> None:
    record = bench.client().run(
        bench.job('printf %s "$A" | wc -m', env={"A": MARK}), {REFERENCE: MARK, "secret:x": "long"}
    )
    assert decoded(record["stdout"]).strip() != b"4"


def test_a_runner_that_is_killed_leaves_no_value(bench: Bench) -> None:
    client = bench.client()
    job = bench.job("echo ready; sleep 60", env={"A": MARK}, stdin=MARK, input={"a": MARK})
    client.start(job, SECRETS)
    bench.until_running(client, job)
    assert files_with(bench) == ["input.json"]
    os.kill(next(iter(bench.pids)), signal.SIGKILL)
    assert client.wait(job.id)["status"] == "unknown"
    assert files_with(bench) == []


@pytest.mark.parametrize("secrets", [{}, SECRETS], ids=["without secrets", "with one secret"])
def test_what_masking_costs(bench: Bench, secrets: dict[str, str]) -> None:
    """A figure for the page on security: 1 GB through the pump."""
    client = bench.client()
    env = {"A": MARK} if secrets else {}
    began = time.monotonic()
    record = client.run(bench.job(argv=("head", "-c", "1000000000", "/dev/zero"), env=env), secrets)
    took = time.monotonic() - began
    assert record["stdout"]["bytes"] == 1_000_000_000
    print(f"\n{json.dumps(bool(secrets))}: {1000 / took:.0f} MB/s")
    assert took < 60
