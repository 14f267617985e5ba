"""What a machine says it is, before anything is run there."""

from __future__ import annotations

import re
from typing import NamedTuple

from app.node import shells
from app.ssh import far_side
from app.ssh.failures import Refused
from app.ssh.link import Link, run
from app.ssh.target import Target

WITHIN = 20.0
"""Seconds that a machine has to answer: one may take a login and then hang."""

_SHOWN = re.compile(r"[ -~]*")
_MOST = 500
_MOST_NAMES = 2000
_EXPORTED = re.compile(r"^(?:export|declare -x|typeset -x) ([A-Za-z_][A-Za-z0-9_]*)", re.MULTILINE)
"""How shells list their environment. A line within a value that looks like one costs nothing: it names no variable."""


class Facts(NamedTuple):
    """`base` is the directory there for what we keep, `programs` those that are there of the ones that were asked for,
    `variables` the names in the environment of a session."""

    base: str
    programs: tuple[str, ...]
    variables: tuple[str, ...]

    @property
    def shells(self) -> tuple[str, ...]:
        return shells.among(self.programs)


class Details(NamedTuple):
    """`system` is what `uname -sm` says, `free` are bytes where jobs are kept, `python` is the version of python3."""

    system: str
    free: int
    python: str

    @property
    def version(self) -> tuple[int, ...]:
        """Of Python, as far as it can be compared; none where there is none."""
        return tuple(int(part) for part in re.findall(r"\d{1,4}", self.python)[:2])

    def told(self) -> dict[str, str]:
        """For heartbeats."""
        system, _, machine = self.system.partition(" ")
        return {
            "os": system[:60],
            "arch": machine[:60],
            "python3": self.python[:30],
            "free_mb": str(self.free >> 20),
        }


def greet(link: Link, ground: far_side.Ground, target: Target) -> Facts:
    """What has to be known before a job. Raises `Refused` where the machine has no usable `sh` or no place for us, and
    `Unreachable`."""
    done = run(link, far_side.COMMAND, far_side.greet(ground), within=WITHIN)
    _, found, text = done.stdout.partition(far_side.OPENING)
    head, _, exported = text.decode("utf-8", "surrogateescape").partition("\nvariables\n")
    values = _values(head)
    if "failed" in values:
        why = _plain(values["failed"][0].removeprefix("base "))
        raise Refused(
            "far_side",
            f"{target.address} has no place for what is kept of jobs: {why}",
            hint=f"give the user {target.user} a private directory to write in, and free space",
        )
    if not found or not exported.endswith("variables end\n"):
        said = _plain((done.stderr or done.stdout).decode("utf-8", "replace").strip()) or "nothing"
        raise Refused(
            "far_side",
            f"{target.address} has no `sh` that works for the user {target.user}: it says {said}",
            hint="scripts need a login shell that may run commands, and POSIX sh with cat, dd, mkfifo, and mkdir",
        )
    names = dict.fromkeys(_EXPORTED.findall(exported))
    return Facts(values.get("base", [""])[0], tuple(values.get("program", ())), tuple(names)[:_MOST_NAMES])


def look(link: Link, ground: far_side.Ground) -> Details:
    """The rest. Raises `Unreachable`."""
    done = run(link, far_side.COMMAND, far_side.look(ground), within=WITHIN)
    _, _, text = done.stdout.partition(far_side.OPENING)
    values = _values(text.decode("utf-8", "replace"))
    return Details(
        _plain(values.get("system", ["unknown"])[0]),
        _free(values.get("free", [""])[0]),
        _plain(values.get("python", [""])[0]),
    )


def _values(text: str) -> dict[str, list[str]]:
    """The rest of each line by its first word."""
    values: dict[str, list[str]] = {}
    for line in text.splitlines()[:1000]:
        word, _, rest = line.partition(" ")
        values.setdefault(word, []).append(rest)
    return values


def _free(line: str) -> int:
    """Bytes by the last line of `df -Pk`; as good as endless where it cannot be read."""
    found = re.search(r" (\d{1,15}) +\d{1,3}% ", line)
    return int(found[1]) << 10 if found else 1 << 62


def _plain(text: str) -> str:
    return "".join(char if _SHOWN.fullmatch(char) else "?" for char in text[:_MOST])
