"""The directory of one job, `DIR/jobs/<job id>`: what is in it and in which order it comes to be there.

    record        first act, O_EXCL: whoever creates it may start the job; nobody else ever may
    cancel        a cancel that came before the start
    script, input.json, stdin, work/     what the process is given; output.json is what it may write. The script's
                                         name is the deploy plan's, and it goes when the job ends
    stdout, stderr                       what it wrote, from the first byte on (see `app.node.spool`)

Of a job with secrets stdin is in memory only, and input.json and output.json go when it ends.

The record is JSON, an object a line: the claim (digest, at), who the process is (pid, start_time, boot_id), and as
the last act how the job ended. One file for the three: to create a file costs ten times what a line does.

A claim without an end and without a live runner that owns it means: nobody knows how it ended.

Nothing here is synced to the disk. What is written survives every process; a power cut may take lines back, and
therefore whoever starts jobs never starts one that was journalled before this boot (`app.node.station`): such a job
without an end is unknown.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
from collections.abc import Iterable
from typing import Any

OUTPUT_LIMIT = 262_144
"""Bytes that the file named by MUSTER_OUTPUT may hold."""

OUTPUT_DEPTH = 200
"""Levels to which it may be nested: who reads it calls itself for each."""

_BRACKETS = re.compile(rb'"(?:[^"\\]|\\.)*+"|[\[\]{}]', re.DOTALL)
_RECORD = "record"
_ID_LETTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-")


class BadOutput(Exception):
    """The file that the process wrote to MUSTER_OUTPUT is not what it must be; says why."""


def is_id(text: object) -> bool:
    """May the text be a job's id, and so the name of a directory?"""
    return (
        isinstance(text, str)
        and 0 < len(text) <= 200
        and text not in (".", "..")
        and _ID_LETTERS.issuperset(text)
    )


def path(root: str, job_id: str) -> str:
    """The directory of the job under the runner's directory `root`. The id must be one."""
    if not is_id(job_id):
        raise ValueError(f"{job_id!r} is not a job's id")
    return os.path.join(root, "jobs", job_id)


def claim(directory: str, digest: str, at: float) -> int | None:
    """Takes the job: the descriptor of its record. None where it was taken before. OSError where the disk refuses."""
    try:
        os.mkdir(directory, 0o700)
    except FileExistsError:
        pass
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        descriptor = os.open(os.path.join(directory, _RECORD), flags, 0o600)
    except FileExistsError:
        return None
    try:
        note(descriptor, json.dumps({"digest": digest, "at": at}))
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def reopen(directory: str) -> int:
    """The descriptor of the record of a job that was claimed before. OSError where there is none."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    return os.open(os.path.join(directory, _RECORD), flags)


def remove_given(directory: str) -> None:
    """Takes away what the process was given, and what it answered: secrets may be in both."""
    remove(directory, ("input.json", "output.json"))


def remove(directory: str, names: Iterable[str]) -> None:
    """Removes files of the job's directory, as `rm -f` does with its errors ignored."""
    for name in names:
        try:
            os.unlink(os.path.join(directory, name))
        except OSError:
            # Not there, or the script has put a directory in its place, whose content is its own business.
            continue


def is_claimed(directory: str) -> bool:
    return os.path.exists(os.path.join(directory, _RECORD))


def note(record: int, line: str) -> None:
    """Adds a line to the record whole or not at all. OSError where the disk refuses."""
    # Whatever a crash left half written ends here: it stays a line of its own, which is no JSON.
    data = b"\n" + line.encode() + b"\n"
    before = os.lseek(record, 0, os.SEEK_END)
    try:
        written = os.write(record, data)
        while written < len(data):
            written += os.write(record, data[written:])
    except OSError:
        os.ftruncate(record, before)
        raise


def write(directory: str, name: str, data: bytes, mode: int = 0o600) -> str:
    """Creates a file that is not there yet; its path."""
    target = os.path.join(directory, name)
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        view = memoryview(data)
        while len(view):
            view = view[os.write(descriptor, view) :]
    finally:
        os.close(descriptor)
    return target


def open_regular(directory: str, name: str) -> int:
    """A descriptor to read the file with. OSError where it is none, or no longer a regular file."""
    # The directory is the script's own: a pipe in the place of a file would keep who opens it waiting for ever.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(os.path.join(directory, name), flags)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no longer a regular file", name)
    return descriptor


def read_json(directory: str, name: str) -> dict[str, Any] | None:
    """A JSON object that a runner wrote; None where there is none or a crash left half of one."""
    try:
        with open(open_regular(directory, name), "rb") as file:
            return _object(file.read())
    except OSError:
        return None


def claim_of(directory: str) -> dict[str, Any]:
    """Who claimed the job when, and which process it became, as far as it was written down."""
    return story_of(directory)[0]


def exit_record(directory: str) -> dict[str, Any] | None:
    """How the job ended, or None where it has not ended (or not begun)."""
    # The last one: a script may write what it likes into its own directory, the runner has the last word.
    return story_of(directory)[1]


def story_of(directory: str) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Both, by one look."""
    lines = _lines(directory)
    claimed = {name: value for line in lines if "status" not in line for name, value in line.items()}
    return claimed, next((line for line in reversed(lines) if "status" in line), None)


def _lines(directory: str) -> list[dict[str, Any]]:
    try:
        with open(open_regular(directory, _RECORD), "rb") as file:
            texts = file.read().split(b"\n")
    except OSError:
        return []
    return [line for line in map(_object, texts) if line is not None]


def _object(text: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def write_exit_record(directory: str, line: str) -> None:
    """Adds how a job ended that this process holds no record of. OSError where the disk refuses."""
    os.makedirs(directory, 0o700, exist_ok=True)
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    record = os.open(os.path.join(directory, _RECORD), flags, 0o600)
    try:
        note(record, line)
    finally:
        os.close(record)


def read_output(directory: str) -> dict[str, Any] | None:
    """The JSON object that the process wrote, None where it wrote nothing. Raises `BadOutput`."""
    target = os.path.join(directory, "output.json")
    try:
        # The script owns this file: it may have put a link or a pipe there.
        descriptor = os.open(target, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BadOutput(f"the file named by MUSTER_OUTPUT cannot be read: {error.strerror}") from None
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise BadOutput("what MUSTER_OUTPUT names is no longer a regular file")
        if found.st_size > OUTPUT_LIMIT:
            raise BadOutput(f"the file named by MUSTER_OUTPUT has {found.st_size} bytes, over {OUTPUT_LIMIT}")
        data = os.read(descriptor, OUTPUT_LIMIT)
    finally:
        os.close(descriptor)
    return parse_output(data)


def parse_output(data: bytes) -> dict[str, Any] | None:
    """The JSON object of what was read of that file, None where it is blank. Raises `BadOutput`."""
    if not data.strip():
        return None
    if _depth(data) > OUTPUT_DEPTH:
        raise BadOutput(f"the file named by MUSTER_OUTPUT is nested deeper than {OUTPUT_DEPTH} levels")
    try:
        value = json.loads(data, parse_constant=_no_constant)
        # Half a surrogate pair can be written as JSON but not be sent as UTF-8 later.
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError) as error:
        raise BadOutput(f"the file named by MUSTER_OUTPUT is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise BadOutput(
            f"the file named by MUSTER_OUTPUT must hold a JSON object, not {type(value).__name__}"
        )
    if _holds_nul(value):
        raise BadOutput("the file named by MUSTER_OUTPUT holds a NUL character, which no database keeps")
    return value


def _depth(data: bytes) -> int:
    """How deep the brackets stand that are in no text."""
    depth = deepest = 0
    for found in _BRACKETS.finditer(data):
        letter = found[0]
        if letter in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif letter in b"]}":
            depth -= 1
    return deepest


def _holds_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any(_holds_nul(part) for pair in value.items() for part in pair)
    return isinstance(value, list) and any(map(_holds_nul, value))


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def discard(root: str, job_id: str) -> None:
    """Takes the job's directory out of the way into `root/trash`; to empty that can take its time."""
    source = path(root, job_id)
    for number in range(1000):
        try:
            os.rename(source, os.path.join(root, "trash", f"{job_id}.{number}"))
        except FileNotFoundError:
            return
        except OSError as error:
            # The same id was discarded before and the trash has not been emptied since.
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        else:
            return
