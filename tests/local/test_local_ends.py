"""However a run in one process ends, no script of it goes on, and no file is left but its state."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from local_runs import CLI, by_archive, environment
from waiting import PATIENCE, wait_until

from app.node import sweep

WORKFLOW = """
tasks:
  - name: long
    action: core.shell
    with_items: [1, 2]
    input:
      command: |
        trap '' HUP
        tell() { echo $2 > "$OUT/new.$1"; mv "$OUT/new.$1" "$OUT/$1"; }
        ( sleep 300 & tell child.{{ item }} $!; wait ) &
        tell script.{{ item }} $$
        wait
      env: {OUT: "{{ parameters.out }}"}
parameters: {out: {type: string, required: true}, hold: {type: boolean, default: false}}
finally:
  - name: tidy
    action: core.shell
    input: {command: "{{ parameters.hold }} || exit 0; : > {{ parameters.out }}/tidy; exec sleep 300"}
"""


@contextmanager
def begun(
    how: Sequence[str], directory: Path, *args: str
) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """The process, once its scripts run, and the numbers of all processes of those."""
    (directory / "w.yaml").write_text(WORKFLOW)
    (directory / "tmp").mkdir()
    words = [*how, "w.yaml", "--output", "out.json", "-p", f"out={directory}", *args]
    env = {**environment(), "TMPDIR": str(directory / "tmp")}
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        words, cwd=directory, env=env, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    )
    try:
        files = [directory / f"{what}.{one}" for what in ("script", "child") for one in (1, 2)]
        wait_until(lambda: all(file.exists() for file in files))
        yield process, [int(file.read_text()) for file in files]
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def nothing_left(pids: list[int], directory: Path) -> bool:
    return not any(sweep.stat(pid) for pid in pids) and not any((directory / "tmp").iterdir())


@pytest.fixture(params=["muster", "muster.pyz"])
def how(request: pytest.FixtureRequest, pyz: Path) -> Sequence[str]:
    return CLI if request.param == "muster" else by_archive(pyz)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_ends_its_scripts_and_the_state_says_so(
    how: Sequence[str], number: signal.Signals, code: int, tmp_path: Path
) -> None:
    with begun(how, tmp_path) as (process, pids):
        process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (code, "")
    assert nothing_left(pids, tmp_path)
    left = json.loads((tmp_path / "out.json").read_text())
    told = {"type": "cancelled", "message": f"stopped by {number.name}", "task": None}
    assert (left["status"], left["error"]) == ("cancelled", told)
    statuses = {name: one["status"] for name, one in left["task"].items()}
    assert statuses == {"long": "cancelled", "tidy": "succeeded"}
    assert out.endswith(f"error: stopped by {number.name} [cancelled]\nstatus=cancelled\n")


def test_a_timeout_ends_its_scripts(tmp_path: Path) -> None:
    with begun(CLI, tmp_path, "--timeout", "5") as (process, pids):
        process.communicate(timeout=PATIENCE)
    assert process.returncode == 124
    assert nothing_left(pids, tmp_path)
    left = json.loads((tmp_path / "out.json").read_text())
    assert (left["status"], left["task"]["tidy"]["status"]) == ("timed_out", "not_reached")


def test_killed_it_leaves_no_script(how: Sequence[str], tmp_path: Path) -> None:
    with begun(how, tmp_path) as (process, pids):
        process.kill()
        process.communicate(timeout=PATIENCE)
        wait_until(lambda: nothing_left(pids, tmp_path))
    assert not (tmp_path / "out.json").exists()


def test_where_its_runner_is_killed_it_has_failed(tmp_path: Path) -> None:
    with begun(CLI, tmp_path) as (process, pids):
        runner = int(Path(f"/proc/{pids[0]}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(runner, signal.SIGKILL)
        process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert nothing_left(pids, tmp_path)
    left = json.loads((tmp_path / "out.json").read_text())
    assert (left["status"], left["error"]["type"]) == ("failed", "runner")


def test_a_second_signal_ends_what_finally_does(tmp_path: Path) -> None:
    with begun(CLI, tmp_path, "-p", "hold=true") as (process, pids):
        process.send_signal(signal.SIGINT)
        wait_until((tmp_path / "tidy").exists)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert nothing_left(pids, tmp_path)
    left = json.loads((tmp_path / "out.json").read_text())
    assert left["task"]["tidy"]["status"] == "cancelled"
