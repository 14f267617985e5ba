"""Starts a claimed job: fills its directory and hands it to the system.

A script starts in a session and process group of its own, in `cwd`, else in its workspace (`workdir`), else in an
empty directory of its own, with exactly this environment: PATH, HOME, USER, LOGNAME, SHELL, LANG, LC_ALL, TZ and
TMPDIR as the runner has them, TERM=dumb, TRACEPARENT, the job's own `env`, and MUSTER_INPUT, MUSTER_OUTPUT (paths),
MUSTER_WORKSPACE (the path, where there is one), MUSTER_JOB, MUSTER_EXECUTION, MUSTER_TASK, MUSTER_NODE,
MUSTER_TRACE_ID and MUSTER_COOKIE. Of the names that begin with MUSTER_
a job may set MUSTER_V… only: the values that are bound into its text.
"""

from __future__ import annotations

import errno
import functools
import json
import os
import pwd
import signal
from collections.abc import Mapping
from typing import Any

from app import marks
from app.ids import traceparent
from app.masking import Masker
from app.node import jobdir, shells, spool, sweep
from app.node.process import Process

INHERITED = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "TZ", "TMPDIR")
"""What every script has of the environment of who starts it."""


class NotStarted(Exception):
    """The process could not be started: the job fails with this error, without having had any effect."""

    def __init__(self, kind: str, message: str, exit_code: int | None = None) -> None:
        super().__init__(message)
        self.error = {"type": kind, "message": message}
        self.exit_code = exit_code


def start(
    job: dict[str, Any],
    directory: str,
    claim: int,
    identity: tuple[str, str],
    times: tuple[float, float],
    secrets: Mapping[str, str],
) -> Process:
    """Prepares the claimed directory and starts the process.

    `claim` is the descriptor of the job's record, which the process keeps; `identity` is the job's digest and the
    node's name; `times` is now, monotonic and Unix; `secrets` are the values of the job's marks, which are put in here
    and masked in what it writes. Raises `NotStarted`; then nothing runs.
    """
    if not secrets:
        return _start(job, directory, claim, identity, times, None)
    masker = Masker(secrets.values())
    try:
        return _start(with_values(job, secrets), directory, claim, identity, times, masker)
    except NotStarted as refused:
        jobdir.remove_given(directory)
        kind, message = refused.error["type"], masker.text(refused.error["message"])
        raise NotStarted(kind, message, refused.exit_code) from None


def with_values(job: dict[str, Any], secrets: Mapping[str, str]) -> dict[str, Any]:
    """The job with the values of its marks put in. Raises `NotStarted` where one is missing."""
    try:
        found = {name: marks.put(job.get(name), secrets) for name in ("env", "stdin", "input")}
    except KeyError as missing:
        raise NotStarted("refused", f"the order holds no value for {missing.args[0]}") from None
    return {**job, **found}


def _start(
    job: dict[str, Any],
    directory: str,
    claim: int,
    identity: tuple[str, str],
    times: tuple[float, float],
    masker: Masker | None,
) -> Process:
    digest, node = identity
    environment = _environment(job, directory, node)
    # By number: the ends that this process keeps, and those that it hands over.
    kept: list[int] = []
    handed: list[int] = []
    try:
        jobdir.write(directory, "input.json", input_text(job).encode())
        handed.append(_stdin(job, directory) if masker is None else _unwritten_stdin(job))
        for _ in spool.STREAMS:
            reading, writing = os.pipe2(os.O_CLOEXEC)
            kept.append(reading)
            handed.append(writing)
        argv = _argv(job, directory, environment["PATH"])
        pid = _spawn(argv, _cwd(job, directory), environment, handed)
    except (NotStarted, OSError, ValueError) as error:
        for descriptor in kept:
            os.close(descriptor)
        raise error if isinstance(error, NotStarted) else _unprepared(error) from None
    finally:
        for descriptor in handed:
            os.close(descriptor)
    spools = [spool.Spool(directory, name, job["output_limit"]) for name in spool.STREAMS]
    _note_identity(claim, pid, cleanup(job))
    pipes = list(zip(kept, spools, strict=True))
    return Process(
        job, directory, digest, times, pid=pid, pipes=pipes, claim=claim, masker=masker, cleanup=cleanup(job)
    )


def _unprepared(error: OSError | ValueError) -> NotStarted:
    if isinstance(error, ValueError):
        return NotStarted("refused", f"the job holds text that the system cannot take: {error}")
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return NotStarted("no_space" if full else "spool", f"the job's directory cannot be prepared: {error}")


def _spawn(argv: list[str], cwd: str, environment: dict[str, str], streams: list[int]) -> int:
    """The pid of the job's main process, which leads a session of its own and has `streams` as 0, 1 and 2."""
    try:
        _enter(cwd)
        return os.posix_spawn(
            _encode(_program(argv[0], environment["PATH"])),
            [_encode(word) for word in argv],
            {_encode(name): _encode(value) for name, value in environment.items()},
            file_actions=[(os.POSIX_SPAWN_DUP2, given, number) for number, given in enumerate(streams)],
            setsid=True,
            # Python ignores these two; handlers are reset by the system.
            setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),
        )
    except FileNotFoundError:
        message = f"{argv[0]}: no such program (or the interpreter that its first line names is missing)"
        raise NotStarted("not_found", message, 127) from None
    except PermissionError:
        raise NotStarted("not_executable", f"{argv[0]}: may not be executed", 126) from None
    except OSError as error:
        # E2BIG, ENOEXEC, EAGAIN (no more processes): the system's own words are the best there are.
        raise NotStarted("not_executable", f"{argv[0]}: {error.strerror}", 126) from None
    finally:
        os.chdir("/")


def _program(name: str, search_path: str) -> str:
    """The file to execute. Raises FileNotFoundError, or PermissionError where there is one that may not be."""
    if "/" in name:
        return name
    found = shells.find(name, search_path)
    if found is not None:
        return found
    for folder in search_path.split(":"):
        if os.path.exists(os.path.join(folder or ".", name)):
            raise PermissionError
    raise FileNotFoundError


@functools.cache
def _inherited() -> dict[str, str]:
    """What every script has of the runner's environment, which never changes."""
    environment = {name: os.environ[name] for name in INHERITED if name in os.environ}
    environment.setdefault("PATH", shells.SEARCH_PATH)
    if not {"HOME", "USER"} <= environment.keys():
        try:
            user = pwd.getpwuid(os.geteuid())
        except KeyError:
            pass
        else:
            environment.setdefault("HOME", user.pw_dir)
            environment.setdefault("USER", user.pw_name)
    return environment


def _environment(job: dict[str, Any], directory: str, node: str) -> dict[str, str]:
    return {**_inherited(), **environment_of(job, directory, node)}


def input_text(job: dict[str, Any]) -> str:
    """What is in the file named by MUSTER_INPUT."""
    return json.dumps(job.get("input"))


def environment_of(job: dict[str, Any], directory: str, node: str) -> dict[str, str]:
    """What a script's environment has beside `INHERITED`. Raises `NotStarted` for a name that it may not set."""
    environment = {"TERM": "dumb"}
    if job.get("trace_id"):
        # Under the name that programs look for; a job may give another.
        environment["TRACEPARENT"] = traceparent(job["trace_id"], job["id"])
    for name, value in (job.get("env") or {}).items():
        if name.startswith("MUSTER_") and not name.startswith("MUSTER_V"):
            message = f"env may not set {name}: names that begin with MUSTER_ are Muster's own"
            raise NotStarted("refused", message)
        if not name or "=" in name:
            raise NotStarted("refused", f"{name!r} cannot be the name of an environment variable")
        environment[name] = value
    if job.get("workdir"):
        environment["MUSTER_WORKSPACE"] = job["workdir"]
    environment.update(
        {
            "MUSTER_INPUT": os.path.join(directory, "input.json"),
            "MUSTER_OUTPUT": os.path.join(directory, "output.json"),
            "MUSTER_JOB": job["id"],
            "MUSTER_EXECUTION": job.get("execution") or "",
            "MUSTER_TASK": job.get("task") or "",
            "MUSTER_NODE": node,
            "MUSTER_TRACE_ID": job.get("trace_id") or "",
            sweep.COOKIE: job["id"],
        }
    )
    return environment


def _argv(job: dict[str, Any], directory: str, search_path: str) -> list[str]:
    argv = job.get("argv")
    if argv is not None:
        return list(argv)
    command = shells.command_for(job["shell"], search_path)
    if command is None:
        raise NotStarted(
            "no_shell", f"this node has no {job['shell']!r}; it has {', '.join(shells.available())}"
        )
    files = shells.files_for(job["shell"], job["file"], _encode(job["script"]), job["env"])
    return [*command, *[jobdir.write(directory, name, data, job["mode"]) for name, data in files][-1:]]


def _cwd(job: dict[str, Any], directory: str) -> str:
    cwd: str | None = job.get("cwd")
    workdir: str | None = job.get("workdir")
    if cwd is None and workdir:
        return workdir
    if cwd is None:
        own = os.path.join(directory, "work")
        os.mkdir(own, 0o700)
        return own
    if os.path.isabs(cwd):
        return cwd
    if not workdir:
        raise NotStarted("cwd", f"the working directory {cwd!r} must be an absolute path")
    inside = os.path.realpath(os.path.join(workdir, cwd))
    if os.path.commonpath((inside, os.path.realpath(workdir))) != os.path.realpath(workdir):
        raise NotStarted("cwd", f"the working directory {cwd!r} leads out of the workspace")
    return inside


def _enter(cwd: str) -> None:
    """Makes `cwd` this process' directory: posix_spawn cannot, and nothing else runs here meanwhile."""
    try:
        os.chdir(_encode(cwd))
    except FileNotFoundError:
        raise NotStarted("cwd", f"the working directory {cwd} does not exist on this node") from None
    except PermissionError:
        message = f"the working directory {cwd} may not be entered by the runner's user"
        raise NotStarted("cwd", message) from None
    except OSError as error:
        raise NotStarted("cwd", f"the working directory {cwd} cannot be entered: {error.strerror}") from None


def _stdin(job: dict[str, Any], directory: str) -> int:
    text = job.get("stdin")
    if text is None:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    return os.open(jobdir.write(directory, "stdin", _encode(text)), os.O_RDONLY | os.O_CLOEXEC)


def _unwritten_stdin(job: dict[str, Any]) -> int:
    """The same in memory: a secret may be in it."""
    descriptor = os.memfd_create("stdin", os.MFD_CLOEXEC)
    view = memoryview(_encode(job.get("stdin") or ""))
    while len(view):
        view = view[os.write(descriptor, view) :]
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def cleanup(job: dict[str, Any]) -> list[str]:
    """The files that are to be removed once the job is over, by their names in its directory."""
    scripted = job["cleanup"] and job.get("script") is not None
    return shells.names_for(job["shell"], job["file"]) if scripted else []


def _note_identity(claim: int, pid: int, cleanup: list[str]) -> None:
    found = sweep.stat(pid)
    start = found.start if found else None
    identity = {"pid": pid, "start_time": start, "boot_id": sweep.boot_id(), "cleanup": cleanup}
    try:
        jobdir.note(claim, json.dumps(identity))
    except OSError:
        # Only a runner that comes after a crash reads it, and that finds the process by its cookie as well.
        pass


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
