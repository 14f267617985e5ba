"""What looks after a machine: signs of life whatever else is under way, and nothing removed that is still owed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from far_bench import FarBench, Running
from test_contract import first_line
from waiting import wait_until

from app.node.runner_client import Interrupted
from app.ssh import far_side
from app.ssh.care import Care
from app.ssh.far_side import Ground
from app.ssh.link import Listener
from app.ssh.reach import Reach


class Session:
    def __init__(self, listener: Listener) -> None:
        self.listener = listener
        self.lines: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.lines.append(data)

    def taken(self, count: int) -> None:
        """Nobody waits."""

    def close(self) -> None:
        """Nobody is told."""


class Machine:
    """Answers programs by `answer`, in threads; None is no answer before the end of the test."""

    is_open = True

    def __init__(self) -> None:
        self.keepers: list[Session] = []
        self.removed: list[bytes] = []
        self.found: list[bytes] = []
        self.hangs: Callable[[bytes], bool] = lambda _: False
        self.hung = threading.Event()
        self.over = threading.Event()

    def open(self, command: str, data: bytes, listener: Listener, *, keep: bool = False) -> Session:
        made = Session(listener)
        if command == far_side.LISTENING:
            self.keepers.append(made)
        else:
            threading.Thread(target=self._answer, args=(data, listener), daemon=True).start()
        return made

    def _answer(self, data: bytes, listener: Listener) -> None:
        if self.hangs(data):
            self.hung.set()
            self.over.wait()
        if b"rm -rf" in data:
            self.removed.append(data)
        else:
            listener("out", b"".join(b"jobs/%s/_exit\n" % one for one in self.found))
        listener("closed", b"0")

    def beats(self) -> int:
        return sum(len(one.lines) for one in self.keepers)


@pytest.fixture
def machine() -> Iterator[Machine]:
    made = Machine()
    yield made
    made.over.set()


@pytest.fixture
def cared(machine: Machine) -> Iterator[Callable[..., Care]]:
    """Makes the care of the machine, where something runs all the time."""
    made: list[Care] = []

    def make(**owed: Any) -> Care:
        reach: Any = SimpleNamespace(
            ground=Ground("INST", "web-1", 0.6, "/base"),
            open_link=machine,
            open_desk=None,
            target=SimpleNamespace(address="far"),
            look=lambda: None,
        )
        made.append(Care(cast(Reach, reach), lambda: True, **owed))
        made[-1].wake()
        return made[-1]

    yield make
    machine.over.set()
    for one in made:
        one.close()


@pytest.mark.parametrize("slow", [b"rm -rf", b"find jobs"])
def test_there_are_signs_of_life_while_something_is_slow(
    machine: Machine, cared: Callable[..., Care], slow: bytes
) -> None:
    machine.hangs = lambda data: slow in data
    cared(is_owed=lambda _: False).over("one")
    assert machine.hung.wait(60)
    before = machine.beats()
    wait_until(lambda: machine.beats() > before + 3, "it is still told that we are here")
    assert machine.removed == []


def test_another_takes_the_signs_of_life_where_one_has_ended(
    machine: Machine, cared: Callable[..., Care]
) -> None:
    cared(is_owed=lambda _: False)
    wait_until(lambda: machine.beats() > 1, "it is told that we are here")
    machine.keepers[0].listener("closed", b"1")
    wait_until(lambda: len(machine.keepers) == 2 and machine.keepers[1].lines, "it is told again")


def test_what_is_owed_is_not_removed_for_its_age(machine: Machine, cared: Callable[..., Care]) -> None:
    machine.found = [b"old", b"owed", b"; reboot"]
    cared(is_owed=lambda job_id: job_id == "owed")
    wait_until(lambda: machine.removed, "leftovers are removed")
    assert machine.removed[0].split() == b"cd '/base' && rm -rf -- 'jobs/old'".split()


def test_a_job_is_owed_until_its_end_is_written(near: FarBench) -> None:
    runner = near.runner()
    job = near.job("echo up; sleep 60")
    running = Running(runner, job)
    first_line(near, job.id)
    assert (runner._is_owed(job.id), runner._is_owed("another")) == (True, False)
    runner.release()
    with pytest.raises(Interrupted):
        running.record()
    later = near.runner()
    assert later._is_owed(job.id)
    later.cancel(job.id)
    assert later.run(job)["status"] == "cancelled"
    assert not later._is_owed(job.id)
