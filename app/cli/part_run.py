"""`muster run` without a server: a part of a workflow file, from one task up to another, in this process.

Nothing in here needs click: the same verb is in `muster.pyz`.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from queue import SimpleQueue
from typing import Any, Final

from app.cli import folder
from app.cli.files import read_text
from app.cli.given import read_actions
from app.cli.plain import as_json, safe, say
from app.compiler.plan import Plan
from app.engine.status import CANCELLED, COMPLETED, TASK_LIVE, TIMED_OUT
from app.errors import InvalidInput, MusterError
from app.language.part import Ends
from app.local import state
from app.local.load import load
from app.local.player import STOPPED, Events, Written
from app.local.run import Ended, run
from app.local.state import State

_CODES: Final = {COMPLETED: 0, TIMED_OUT: 124}
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_MOST_LINE: Final = 10_000
"""Characters of a line after which it is shown though it has not ended."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a person typed. `entry` and `exit` are names of tasks, `given` and `left` the paths of files with states,
    each "" for none; `parameters` win over those of the file. `actions` is the path of a file with the actions of packs
    that there are, which is then asked instead of any folder. `timeout` is in seconds.
    """

    file: str
    entry: str = ""
    exit: str = ""
    given: str = ""
    left: str = ""
    parameters: Mapping[str, Any] | None = None
    folders: Sequence[str] = ()
    actions: str = ""
    timeout: float | None = None
    following: bool = True
    json: bool = False


def run_part(asked: Asked) -> int:
    """Run it to its end, and leave the state; what the process exits with.

    Raises InvalidInput for whatever is wrong before anything runs, and MusterError where its state cannot be left.
    """
    if asked.timeout is not None and not 0 < asked.timeout < 1e9:
        raise InvalidInput(f"--timeout {asked.timeout:g} is no time", hint="give seconds, more than 0")
    if asked.left:
        state.check_target(asked.left)
    given = state.read(asked.given) if asked.given else State()
    given = replace(given, parameters={**given.parameters, **(asked.parameters or {})})
    text = read_text(asked.file)
    if asked.actions:
        known = read_actions(asked.actions)
    else:
        known = folder.known_for(asked.file, asked.folders).over(folder.shipped(text))
    file = "<stdin>" if asked.file == "-" else asked.file
    loaded = load(text, file, known, Ends(asked.entry, asked.exit), given)
    shown = _Shown(loaded.plan, asked.following and not asked.json)
    with _stopped_by_signals() as (events, caught):
        ended = run(loaded.plan, loaded.part, loaded.given, shown, events, timeout=asked.timeout)
    shown.close()
    _leave(asked, ended)
    return 128 + caught[0] if ended.status == CANCELLED and caught else _CODES.get(ended.status, 1)


def _leave(asked: Asked, ended: Ended) -> None:
    document = ended.to_json()
    try:
        state.refuse_other_than_json(document, "what the run left")
    except InvalidInput as problem:
        # As a failure: that of an input would say that nothing ran.
        raise MusterError(problem.message, hint=problem.hint, code=problem.code) from None
    if asked.left:
        try:
            state.write(asked.left, document)
        except OSError as refused:
            hint = "see that the disk has room"
            raise MusterError(f"{asked.left} cannot be written: {refused.strerror}", hint=hint) from None
    if asked.json:
        say(as_json(document))
        return
    error = ended.error
    if error is not None:
        where = f"{error['task']}: " if error["task"] else ""
        say(f"error: {where}{safe(error['message'])} [{safe(error['type'])}]")
    say(f"status={ended.status}")


@contextmanager
def _stopped_by_signals() -> Iterator[tuple[Events, list[int]]]:
    """The events of a run, to which signals add theirs; and the numbers of those that came."""
    events: Events = SimpleQueue()
    caught: list[int] = []
    reading, writing = os.pipe()
    os.set_blocking(writing, False)

    def tell() -> None:
        # A handler in Python would wait for the main thread, which waits for events.
        while numbers := os.read(reading, 64):
            for number in (one for one in numbers if one in _SIGNALS):
                caught.append(number)
                events.put((STOPPED, f"stopped by {signal.Signals(number).name}"))
        os.close(reading)

    before = {number: signal.signal(number, lambda *_: None) for number in _SIGNALS}
    woken = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=tell, name="signals", daemon=True).start()
    try:
        yield events, caught
    finally:
        signal.set_wakeup_fd(woken)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(writing)


class _Shown:
    """What happens, for people: each task's statuses, and what scripts write, line by line behind the task's name."""

    def __init__(self, plan: Plan, is_wanted: bool) -> None:
        self._plan = plan
        self._is_wanted = is_wanted
        self._width = max(len(name) for name in plan.tasks)
        self._begun: dict[tuple[str, str], tuple[str, bytes]] = {}

    def task(self, name: str, status: str) -> None:
        """Only where it begins and how it ends: what it waits for is the engine's business."""
        if self._is_wanted and not (status in TASK_LIVE and status != "running"):
            say(f"{name:<{self._width}} · {status}")

    def wrote(self, piece: Written) -> None:
        if not self._is_wanted:
            return
        is_loop = self._plan.tasks[piece.task].kind == "loop"
        label = f"{piece.task}[{piece.unit}]" if is_loop else piece.task
        at = (piece.job, piece.stream)
        *lines, rest = (self._begun.pop(at, (label, b""))[1] + piece.data).split(b"\n")
        for line in lines:
            self._line(label, line)
        if len(rest) > _MOST_LINE:
            self._line(label, rest)
        elif rest:
            self._begun[at] = (label, rest)

    def close(self) -> None:
        """The lines that never ended."""
        for label, rest in self._begun.values():
            self._line(label, rest)
        self._begun.clear()

    def _line(self, label: str, line: bytes) -> None:
        text = safe(line.removesuffix(b"\r").decode("utf-8", "backslashreplace"))
        say(f"{label:<{self._width}} │ {text}".rstrip())
