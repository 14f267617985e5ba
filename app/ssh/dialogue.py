"""What is said over one connection about one job: by sessions of which each is a command on the far side.

main    starts the job or attaches to it, and says how it ends; what is over soon has its output with it. The process
        for many jobs (`app.ssh.desk`) does that in the place of a session, where there is one
tail    sends output as it comes, of what takes longer
rest    what the tail had not sent at the end
ends    the last bytes of what was cut
cancel  ends the job
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from app.ssh import far_side
from app.ssh.desk import APART, Desk
from app.ssh.failures import Unreachable
from app.ssh.far_side import Ground
from app.ssh.link import Link, Listener, Session
from app.ssh.received import Received
from app.ssh.transcript import Ended, Garbled, Transcript

LIVE_AFTER = 0.15
"""Seconds after which the output of a script is followed; what is over by then sends it with its end."""
ANSWER_WITHIN = 30.0
"""Seconds that the machine has to say that it has begun."""
AGAIN_AFTER = 2.0
"""Seconds until that is tried again where the machine would not open another session."""
FINISH_WITHIN = 60.0
"""Seconds without a byte in which the machine has to go on with what is left."""


class Broken(Exception):
    """The connection or the session ended before the job did. `silent`: the machine did not answer at all; `at_once`:
    it has more to say to who asks."""

    def __init__(self, message: str, *, silent: bool = False, at_once: bool = False) -> None:
        super().__init__(message)
        self.silent = silent
        self.at_once = at_once


class Heard(NamedTuple):
    """From one of the sessions, or from `us`: `cancel` or `release`."""

    source: str
    kind: str
    data: bytes


Inbox = queue.SimpleQueue[Heard]


class Told(NamedTuple):
    """Whom to tell that the machine is about to hear of the job, that it has answered, with the script's pid, that
    there is new output, and that we said something, which may raise to end the dialogue."""

    sending: Callable[[], None]
    answered: Callable[[int], None]
    output: Callable[[], None]
    us: Callable[[str], None]


class _Speaker:
    """A session and what it has said so far. `at`: where in the streams of the script it is."""

    def __init__(self, session: Session, out: int, err: int) -> None:
        self.session = session
        self.transcript = Transcript()
        self.at = {"out": out, "err": err}
        self.status: bytes | None = None


class Dialogue:
    """For one thread. What comes is put into `received`; the sessions end with `close`. `longest_end` is how much the
    machine was told to keep of the end of a stream that is cut."""

    def __init__(
        self,
        link: Link,
        ground: Ground,
        job_id: str,
        received: Received,
        inbox: Inbox,
        tell: Told,
        *,
        longest_end: int,
    ) -> None:
        self._link = link
        self._ground = ground
        self._job_id = job_id
        self._received = received
        self._inbox = inbox
        self._tell = tell
        self._speakers: dict[str, _Speaker] = {}
        self._ends = {"out": bytearray(), "err": bytearray()}
        self._most = dict.fromkeys(self._ends, longest_end)

    def hold(self, program: bytes) -> Transcript:
        """Gives the machine the program and hears it out, to the job's end; then all output is there.

        Raises `Unreachable` where the machine opens no session, `Broken`, `Garbled`, and what `Told` raises.
        """
        main = self._open("main", far_side.COMMAND, b"", keep=True)
        self._tell.sending()
        main.session.write(program)
        main.session.end_input()
        return self._hear_out(main)

    def share(self, desk: Desk, told: Mapping[str, Any]) -> Transcript:
        """The same by the process for many jobs; `told` is what `far_side.told` says."""
        errand = desk.begin(self._listener("main"))
        main = self._speakers["main"] = _Speaker(errand, 0, 0)
        self._tell.sending()
        errand.start(told)
        return self._hear_out(main)

    def _hear_out(self, main: _Speaker) -> Transcript:
        deadline = time.monotonic() + ANSWER_WITHIN
        live_at: float | None = None
        while main.status is None:
            is_answered = main.transcript.started is not None
            if self._hear(live_at if is_answered else deadline):
                if not is_answered and main.transcript.started is not None:
                    live_at = time.monotonic() + LIVE_AFTER
                    self._tell.answered(main.transcript.started)
            elif not is_answered:
                raise Broken("the machine did not say that it has begun", silent=True)
            else:
                live_at = None if self._follow() else time.monotonic() + AGAIN_AFTER
        if main.status == APART:
            raise Broken("there is more to say of the job than fits among others", at_once=True)
        if main.status != b"0" or not main.transcript.is_whole:
            raise Broken(f"the session ended, status {main.status.decode() or 'none'}")
        if main.transcript.ended is not None:
            self._complete(main.transcript, main.transcript.ended)
        return main.transcript

    def cancel(self) -> None:
        """Has the machine end the job; how that ends `hold` hears. Raises `Unreachable`."""
        if "cancel" not in self._speakers:
            self._open("cancel", far_side.COMMAND, far_side.cancel(self._ground, self._job_id))

    def close(self) -> None:
        for speaker in self._speakers.values():
            speaker.session.close()

    def _open(
        self, source: str, command: str, data: bytes, *, at: bool = False, keep: bool = False
    ) -> _Speaker:
        got = self._received.got if at else {"out": 0, "err": 0}
        session = self._link.open(command, data, self._listener(source), keep=keep)
        speaker = self._speakers[source] = _Speaker(session, got["out"], got["err"])
        return speaker

    def _listener(self, source: str) -> Listener:
        return lambda kind, told: self._inbox.put(Heard(source, kind, told))

    def _follow(self) -> bool:
        """Has the output sent as it comes. False: the machine has no session to spare now."""
        got = self._received.got
        line = far_side.tail(self._ground.base, self._job_id, got["out"], got["err"])
        try:
            self._open("tail", far_side.LISTENING, line, at=True, keep=True)
        except Unreachable:
            return False
        return True

    def _hear(self, due: float | None) -> bool:
        """Works off what comes next. False: nothing came until `due`."""
        try:
            heard = self._inbox.get(timeout=None if due is None else max(0.0, due - time.monotonic()))
        except queue.Empty:
            return False
        if heard.source == "us":
            self._tell.us(heard.kind)
            return True
        speaker = self._speakers.get(heard.source)
        if speaker is None:
            # Of a session of an earlier connection.
            return True
        if heard.kind == "closed":
            speaker.status = heard.data
            return True
        speaker.session.taken(len(heard.data))
        if heard.source != "cancel":
            self._take(heard.source, speaker, heard)
        return True

    def _take(self, source: str, speaker: _Speaker, heard: Heard) -> None:
        data = speaker.transcript.feed(heard.kind, heard.data)
        if not data:
            return
        at = speaker.at[heard.kind]
        speaker.at[heard.kind] += len(data)
        if source == "ends":
            self._ends[heard.kind] += data
            if len(self._ends[heard.kind]) > self._most[heard.kind]:
                raise Garbled("the end of the output is longer than it can be")
        elif self._received.take(heard.kind, at, data):
            self._tell.output()

    def _complete(self, transcript: Transcript, ended: Ended) -> None:
        if not transcript.has_data:
            if (tail := self._speakers.get("tail")) is not None:
                tail.session.end_input()
                self._until_closed(tail)
            rest = far_side.rest(
                self._ground, self._job_id, self._received.got["out"], self._received.got["err"]
            )
            self._until_closed(self._open("rest", far_side.COMMAND, rest, at=True), has_to_succeed=True)
        cut = {name: count for name, count in ended.cut.items() if count is not None}
        if cut:
            self._most |= {name: min(count, self._most[name]) for name, count in cut.items()}
            program = far_side.ends(self._ground, self._job_id)
            self._until_closed(self._open("ends", far_side.COMMAND, program), has_to_succeed=True)
            for name, count in cut.items():
                self._received.take_end(name, count, bytes(self._ends[name]))

    def _until_closed(self, speaker: _Speaker, *, has_to_succeed: bool = False) -> None:
        while speaker.status is None:
            if not self._hear(time.monotonic() + FINISH_WITHIN):
                raise Broken("the machine does not send the rest of the output", silent=True)
        if has_to_succeed and speaker.status != b"0":
            raise Broken("the rest of the output did not come")
