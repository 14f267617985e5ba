"""An execution live on a screen: lines of nodes behind their names, tasks, a table at the end."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from app.cli import sse
from app.cli.client import Client, api
from app.cli.failures import TimedOut
from app.cli.plain import safe, seconds
from app.cli.terminal import Screen

_COLOURS = ("cyan", "green", "yellow", "blue", "magenta", "bright_cyan", "bright_green", "bright_blue")
_LINE_END = re.compile(r"\r\n|\n|\r(?!\Z)")
_LONGEST = 8192
_WIDEST = 24
_LONGEST_ERROR = 200
_TASK_COLUMNS = ("node", "task", "status", "exit code", "duration")


class Lines:
    """The output of jobs as whole lines, each chunk once, however often the stream starts again."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, str], tuple[str, str, str]] = {}
        self._seen: dict[tuple[str, str], int] = {}

    def take(self, data: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """(node, line) for every line that this chunk completes."""
        key = (str(data.get("job")), str(data.get("stream")))
        offset, text, node = data.get("offset"), str(data.get("text") or ""), str(data.get("node") or "?")
        if isinstance(offset, int):
            raw = text.encode()
            # After a reconnect the pieces are cut differently: what was shown before is left out.
            known = max(0, self._seen.get(key, 0) - offset)
            if known >= len(raw) and raw:
                return
            self._seen[key] = offset + len(raw)
            text = raw[known:].decode(errors="replace")
        *lines, rest = _LINE_END.split(self._open.pop(key, ("", "", ""))[2] + text)
        for line in lines:
            yield node, line
        while len(rest) > _LONGEST:
            yield node, rest[:_LONGEST]
            rest = rest[_LONGEST:]
        if rest:
            self._open[key] = (str(data.get("task")), node, rest)

    def rest(self, task: str | None = None) -> Iterator[tuple[str, str]]:
        """What has no line end, of one task or of all: its jobs are over."""
        for key, (of, node, line) in list(self._open.items()):
            if task in (None, of):
                del self._open[key]
                yield node, line.rstrip("\r")


class Printer:
    """Prints the messages of an execution's stream; what becomes of its tasks only if that `is_told`."""

    def __init__(self, screen: Screen, *, is_told: bool = True) -> None:
        self._screen = screen
        self._is_told = is_told
        self._lines = Lines()
        self._width = 6
        self._colours: dict[str, str] = {}
        self.status = ""
        self.degraded = False

    def take(self, message: sse.Message) -> None:
        try:
            data = json.loads(message.data)
        except ValueError:
            return
        if not isinstance(data, dict):
            return
        if message.event == "output":
            for node, line in self._lines.take(data):
                self._output(node, line)
        elif message.event == "event":
            for entry in data.get("log") or ():
                if isinstance(entry, dict):
                    self._entry(entry)
        elif message.event == "end":
            for node, line in self._lines.rest():
                self._output(node, line)
            self.status, self.degraded = str(data.get("status") or ""), bool(data.get("degraded"))

    def _output(self, node: str, line: str) -> None:
        node = safe(node)
        self._width = min(_WIDEST, max(self._width, len(node)))
        colour = self._colours.setdefault(node, _COLOURS[len(self._colours) % len(_COLOURS)])
        prefix = self._screen.paint(f"{node:<{self._width}} │", fg=colour)
        self._screen.line(f"{prefix} {safe(line)}".rstrip())

    def _entry(self, entry: Mapping[str, Any]) -> None:
        if entry.get("what") == "task" and entry.get("status") not in ("pending", "running", "waiting"):
            for node, line in self._lines.rest(str(entry.get("task"))):
                self._output(node, line)
        text = told(entry)
        if text and self._is_told:
            self._screen.line(self._screen.paint(f"{'':<{self._width}} · {safe(text)}", dim=True))


def told(entry: Mapping[str, Any]) -> str:
    """What one line of an event's log says, "" for what a person need not see."""
    what, task = entry.get("what"), entry.get("task")
    if what == "task":
        reason = f" ({entry['reason']})" if entry.get("reason") else ""
        return f"{task}: {entry.get('status')}{reason}" if entry.get("status") != "pending" else ""
    if what == "decision":
        return f"{task}: decided for {', '.join(map(str, entry.get('next') or ()))} ({entry.get('when')})"
    if what == "retry" and "attempt" in entry:
        return f"{task}: attempt {entry['attempt']} in {seconds(entry.get('wait'))}"
    if what == "execution":
        return f"execution: {entry.get('status')}"
    return ""


def follow(
    client: Client, execution: str, screen: Screen, *, timeout: float | None = None
) -> tuple[str, bool]:
    """Prints the execution until it is over: its status, and whether it is degraded.

    `timeout` is in seconds; raises TimedOut after it, Unavailable when the server stays away.
    """
    printer = Printer(screen)
    limits = sse.Limits(deadline=None if timeout is None else time.monotonic() + timeout)
    path = api("workflow-executions", execution, "events")
    for message in sse.follow(client, path, {"output": 1}, "", limits):
        printer.take(message)
    return printer.status, printer.degraded


def wait(client: Client, execution: str, *, timeout: float | None = None) -> None:
    """Waits in silence until the execution is over. Raises as `follow` does."""
    limits = sse.Limits(deadline=None if timeout is None else time.monotonic() + timeout)
    for _ in sse.follow(client, api("workflow-executions", execution, "events"), {}, "", limits):
        pass


def table(client: Client, execution: str, screen: Screen) -> None:
    """One row for every unit: on which node, how it ended, how long it took; and what was wrong where anything was."""
    items = client.items(api("workflow-executions", execution, "tasks"))
    placed = Counter((item.get("task"), item.get("node")) for item in items)
    rows = [
        [
            item.get("node"),
            _unit(item, alone=placed[item.get("task"), item.get("node")] == 1),
            item.get("status"),
            item.get("exit_code"),
            seconds(item.get("duration")),
        ]
        for item in items
    ]
    problems = [_problem(item.get("error")) for item in items]
    if any(problems):
        rows = [[*row, problem] for row, problem in zip(rows, problems, strict=True)]
        screen.table((*_TASK_COLUMNS, "error"), rows)
    else:
        screen.table(_TASK_COLUMNS, rows)


def _unit(item: Mapping[str, Any], *, alone: bool) -> str:
    """The task, with the number of its unit where others of it ran on the same node: those of a loop."""
    return str(item.get("task")) if alone else f"{item.get('task')}[{item.get('unit')}]"


def problem_of(error: object) -> str | None:
    """A task's error as one text; None where there is none."""
    if not isinstance(error, dict):
        return None
    return f"{error.get('type')}: {error.get('message')}"


def _problem(error: object) -> str:
    """The same beside an exit code: what that says already is left out, and what is long is cut."""
    if isinstance(error, dict) and error.get("type") == "exit":
        return ""
    text = problem_of(error) or ""
    return text if len(text) <= _LONGEST_ERROR else f"{text[: _LONGEST_ERROR - 1]}…"


def stopped(execution: str, why: str) -> str:
    """What to say when following ends before the execution does."""
    return f"{why}; the execution goes on\nhint: {_way_back(execution)}"


def timed_out(execution: str, timeout: float | None) -> TimedOut:
    """The error for an execution that was not over in time."""
    return TimedOut(
        f"execution {execution} was not over within {timeout or 0:g} s; it goes on",
        hint=_way_back(execution),
    )


def _way_back(execution: str) -> str:
    return f"look again: muster execution follow {execution}; end it: muster execution cancel {execution}"
