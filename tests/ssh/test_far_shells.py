"""What runs on the far side, by each `sh` that may be there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest
from far_bench import FarBench, Running
from shell_server import ShellServer
from test_contract import alive, first_line

SHELLS = ("dash", "busybox")
MORE_SHELLS = ("bash", "ksh93", "mksh", "zsh")


@pytest.fixture(
    scope="module", params=[*SHELLS, *(pytest.param(shell, marks=pytest.mark.long) for shell in MORE_SHELLS)]
)
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FarBench]:
    """A machine whose `sh` is the one that is asked for."""
    found = shutil.which(request.param)
    if found is None:
        assert not os.environ.get("CI"), f"{request.param} must be there in CI"
        pytest.skip(f"{request.param} is not installed")
    directory = tmp_path_factory.mktemp(request.param)
    server = ShellServer(directory, found)
    made = FarBench(directory, server.start())
    yield made
    made.close()
    server.stop()


def test_scripts_and_their_ends(bench: FarBench) -> None:
    runner = bench.runner()
    jobs = {
        "plain": bench.job('echo "out $A|$MUSTER_TASK"; echo err >&2', env={"A": "it's \\ $(id) %s é"}),
        "exit": bench.job("exit 3"),
        "signal": bench.job("kill -9 $$"),
        "stdin": bench.job("cat; wc -c <$MUSTER_INPUT", stdin="a\\b%\nc", input={"x": "y"}),
        "output": bench.job('echo "{\\"a\\": 1}" >"$MUSTER_OUTPUT"'),
        "argv": bench.job(argv=["echo", "; reboot", "$(id)"]),
        "missing": bench.job(argv=["no-such-program"]),
        "cwd": bench.job("pwd", cwd="/no/such"),
        "timeout": bench.job("trap '' TERM; echo up; while :; do sleep 0.1; done", timeout=0.4, grace=0.3),
        "long": bench.job("echo one; sleep 0.6; echo two"),
        "cut": bench.job("seq 1 1500000", shell="bash", output_limit=1000),
        "python": bench.job("import os; print(os.getsid(0) == os.getpid())", shell="python"),
    }
    running = {name: Running(runner, job) for name, job in jobs.items()}
    records = {name: one.record() for name, one in running.items()}
    texts = {name: bench.text(job) for name, job in jobs.items()}
    ends = {name: (record["status"], record["exit_code"]) for name, record in records.items()}
    assert ends == {
        **dict.fromkeys(("plain", "stdin", "output", "argv", "long", "cut", "python"), ("succeeded", 0)),
        "exit": ("failed", 3),
        "signal": ("failed", 137),
        "missing": ("failed", 127),
        "cwd": ("failed", None),
        "timeout": ("timed_out", None),
    }
    assert texts["plain"].decode() == "out it's \\ $(id) %s é|build\n"
    assert bench.text(jobs["plain"], "stderr") == b"err\n"
    assert texts["stdin"].split() == [b"a\\b%", b"c10"]
    assert records["output"]["output"] == {"a": 1}
    assert texts["argv"] == b"; reboot $(id)\n"
    assert texts["long"] == b"one\ntwo\n"
    assert (texts["cut"][:4], texts["cut"][-8:]) == (b"1\n2\n", b"1500000\n")
    assert records["cut"]["stdout"]["bytes"] == sum(len(str(one)) + 1 for one in range(1, 1_500_001))
    assert texts["python"] == b"True\n"


def test_a_cancel_leaves_nothing(bench: FarBench) -> None:
    runner = bench.runner()
    job = bench.job("trap '' TERM; setsid sleep 60 & echo $!; wait; sleep 60", grace=0.3)
    running = Running(runner, job)
    child = int(first_line(bench, job.id))
    runner.cancel(job.id)
    assert running.record()["status"] == "cancelled"
    assert not alive(child)
