"""What is believed of a machine that says what it likes."""

from __future__ import annotations

import queue
import threading
from pathlib import Path

import pytest

from app.ssh import far_side
from app.ssh.dialogue import Dialogue, Told
from app.ssh.far_side import Ground
from app.ssh.link import Listener
from app.ssh.received import Received
from app.ssh.transcript import Garbled, Transcript

LIMIT, SECRET = 1000, 7
LONGEST = far_side.longest_end(LIMIT, SECRET)


class Session:
    def write(self, data: bytes) -> None:
        """Nobody reads it."""

    def end_input(self) -> None:
        """Nobody reads it."""

    def taken(self, count: int) -> None:
        """Nobody waits."""

    def close(self) -> None:
        """Nobody is told."""


class Machine:
    """Says that the job has ended with `cut` bytes cut from its output, and then an end of `length` bytes."""

    is_open = True

    def __init__(self, cut: int, length: int) -> None:
        self.said = [
            b"started 1\nended exit 0 0 - - %d - ok\noutput none\ndata\n" % cut,
            b"data\n" + b"x" * length,
        ]

    def open(self, command: str, data: bytes, listener: Listener, *, keep: bool = False) -> Session:
        said = far_side.OPENING + self.said.pop(0)
        threading.Thread(
            target=lambda: (listener("out", said), listener("closed", b"0")), daemon=True
        ).start()
        return Session()

    def close(self) -> None:
        """It is no real one."""


def talk(directory: Path, cut: int, length: int) -> int:
    """The bytes of standard output that are said to have been written."""
    received = Received(str(directory), LIMIT, None)
    told = Told(lambda: None, lambda _: None, lambda: None, lambda _: None)
    ground = Ground("INST", "web-1", 60.0, "/base")
    machine = Machine(cut, length)
    dialogue = Dialogue(machine, ground, "J", received, queue.SimpleQueue(), told, longest_end=LONGEST)
    dialogue.hold(b"")
    found: int = received.finish()[0]["stdout"]["bytes"]
    return found


@pytest.mark.parametrize(("cut", "length"), [(5, 5), (9000, LONGEST), (9000, 3)])
def test_the_end_of_what_was_cut(tmp_path: Path, cut: int, length: int) -> None:
    assert talk(tmp_path, cut, length) == cut


@pytest.mark.parametrize(("cut", "length"), [(5, 6), (9000, LONGEST + 1), (1 << 40, 1 << 20)])
def test_an_end_is_no_longer_than_was_asked_for(tmp_path: Path, cut: int, length: int) -> None:
    with pytest.raises(Garbled):
        talk(tmp_path, cut, length)


@pytest.mark.parametrize(("code", "is_one"), [("0", True), ("265", True), ("512", False), ("9" * 15, False)])
def test_an_exit_code_is_one_that_a_shell_can_say(code: str, is_one: bool) -> None:
    transcript = Transcript()
    said = far_side.OPENING + b"ended exit %s 0 - - - - ok\noutput none\n" % code.encode()
    if is_one:
        transcript.feed("out", said)
        assert transcript.ended is not None
        assert transcript.ended.code == int(code)
    else:
        with pytest.raises(Garbled):
            transcript.feed("out", said)
