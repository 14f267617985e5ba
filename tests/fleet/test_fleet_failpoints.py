"""SIGKILL of the control worker between any two statements of taking an outcome in, one point after another."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet import Fleet
from fleet_processes import ROOT
from fleet_queues import at_rest
from waiting import PATIENCE, wait_until

pytestmark = [pytest.mark.long, pytest.mark.fleet, pytest.mark.timeout(900)]

LINE = """\
parameters: {effects: {type: string, required: true}}
tasks:
  - {name: a, action: core.shell, delegate_to: web-1, on_success: b,
     input: {command: 'echo $MUSTER_JOB >> {{ parameters.effects }}'}}
  - {name: b, action: core.shell, delegate_to: web-2, input: {command: 'echo $MUSTER_JOB >> {{ parameters.effects }}'}}
"""
CHORD = """\
parameters: {effects: {type: string, required: true}}
tasks:
  - {name: f, type: distributed_shell, on_success: z,
     input: {nodes: [web-1, web-2], command: 'echo $MUSTER_JOB >> {{ parameters.effects }}'}}
  - {name: z, action: core.shell, delegate_to: web-1, input: {command: 'echo $MUSTER_JOB >> {{ parameters.effects }}'}}
"""
EVERY = int(os.environ.get("MUSTER_TEST_FAILPOINT_EVERY", "4"))
"""Every how many points one is tried: 1 tries all."""


class Forge:
    """Makes control workers that die where they are told to."""

    def __init__(self, fleet: Fleet) -> None:
        program = Path(__file__).with_name("failpoint_control.py")
        self._log = (fleet.directory / "control.log").open("ab")
        self._process = subprocess.Popen(
            [sys.executable, str(program)],
            env=fleet.environment(PYTHONPATH=str(ROOT)),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.pid = 0

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line.strip())

    def start(self, at: int) -> None:
        """A worker that dies at that point; the one before has ended."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{at}\n")
        self._process.stdin.flush()
        self.pid = int(self._lines.get(timeout=60))

    def ended(self) -> bool:
        try:
            return self._lines.get_nowait() == "ended"
        except queue.Empty:
            return False

    def kill(self) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            assert self._lines.get(timeout=30) == "ended"

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.kill()
        self._process.wait()
        self._reader.join(PATIENCE)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._log.close()


@pytest.fixture(scope="module")
def failing() -> Iterator[tuple[Fleet, Forge]]:
    with Fleet(("local", "web-1", "web-2"), has_control=False) as fleet:
        forge = Forge(fleet)
        try:
            forge.start(0)
            fleet.wait_ready()
            forge.kill()
            yield fleet, forge
        finally:
            forge.close()


def _how_it_went(fleet: Fleet, forge: Forge, execution: str) -> str:
    def known() -> str:
        if forge.ended():
            return "died"
        return "lived" if fleet.is_over(execution) and at_rest(fleet) else ""

    return wait_until(known, lambda: fleet.story(execution))


@pytest.mark.parametrize(("text", "jobs"), [(LINE, 2), (CHORD, 3)], ids=["line", "chord"])
def test_control_dies_at_every_point(failing: tuple[Fleet, Forge], text: str, jobs: int) -> None:
    fleet, forge = failing
    points = 0
    for at in range(1, 500, EVERY):
        forge.start(at)
        execution = fleet.submit(text)
        died = _how_it_went(fleet, forge, execution)
        if died == "died":
            points += 1
            forge.start(0)
        fleet_row = fleet.wait_for(execution)
        assert fleet_row.status == "completed", f"killed at {at}: {fleet.story(execution)}"
        ran = {job: count for job, count in fleet.ran().items() if job.startswith(execution)}
        assert (len(ran), max(ran.values())) == (jobs, 1), f"killed at {at}: {fleet.story(execution)}"
        forge.kill()
        if died == "lived":
            break
    assert points >= 30 // EVERY, points
