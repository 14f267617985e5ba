"""Starts a claimed job: fills its directory and hands it to the system.

A script starts in a session and process group of its own, in `cwd` or else in an empty directory of its
own, with exactly this environment: PATH, HOME, USER, LOGNAME, SHELL, LANG, LC_ALL, TZ and TMPDIR as the
runner has them, TERM=dumb, the job's own `env`, and MUSTER_INPUT, MUSTER_OUTPUT (paths), MUSTER_JOB,
MUSTER_EXECUTION, MUSTER_TASK, MUSTER_NODE and MUSTER_COOKIE. Of the names that begin with MUSTER_ a job
may set MUSTER_V… only: the values that are bound into its text.
"""

from __future__ import annotations

import errno
import json
import os
import pwd
import subprocess
from typing import Any

from app.node import jobdir, shells, spool, sweep
from app.node.process import Process

_INHERITED = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "TZ", "TMPDIR")


class NotStarted(Exception):
    """The process could not be started: the job fails with this error, without having had any effect."""

    def __init__(self, kind: str, message: str, exit_code: int | None = None) -> None:
        super().__init__(message)
        self.error = {"type": kind, "message": message}
        self.exit_code = exit_code


def start(
    job: dict[str, Any], directory: str, identity: tuple[str, str], times: tuple[float, float]
) -> Process:
    """Prepares the claimed directory and starts the process.

    `identity` is the job's digest and the node's name;
    `times` is now, monotonic and Unix. Raises `NotStarted`; then nothing runs.
    """
    digest, node = identity
    environment = _environment(job, directory, node)
    spools: list[spool.Spool] = []
    pipes: list[tuple[int, int]] = []
    stdin = -1
    try:
        argv = _argv(job, directory, environment["PATH"])
        cwd = _cwd(job, directory)
        jobdir.write(directory, "input.json", json.dumps(job.get("input")).encode())
        stdin = _stdin(job, directory)
        for name in spool.STREAMS:
            spools.append(spool.Spool(directory, name, job["output_limit"]))
            pipes.append(os.pipe2(os.O_CLOEXEC))
        popen = _spawn(argv, cwd, environment, (stdin, pipes[0][1], pipes[1][1]))
    except (NotStarted, OSError, ValueError) as error:
        for made in spools:
            made.finish()
        for reading, _ in pipes:
            os.close(reading)
        raise error if isinstance(error, NotStarted) else _unprepared(error) from None
    finally:
        for descriptor in (stdin, *(writing for _, writing in pipes)):
            if descriptor >= 0:
                os.close(descriptor)
    process = Process(job, directory, digest, times)
    process.attach(popen, list(zip((reading for reading, _ in pipes), spools, strict=True)))
    _note_identity(directory, popen.pid)
    return process


def _unprepared(error: OSError | ValueError) -> NotStarted:
    if isinstance(error, ValueError):
        return NotStarted("refused", f"the job holds text that the system cannot take: {error}")
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return NotStarted("no_space" if full else "spool", f"the job's directory cannot be prepared: {error}")


def _spawn(
    argv: list[str], cwd: str, environment: dict[str, str], streams: tuple[int, int, int]
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            [_encode(word) for word in argv],
            cwd=cwd,
            env={_encode(name): _encode(value) for name, value in environment.items()},
            stdin=streams[0],
            stdout=streams[1],
            stderr=streams[2],
            start_new_session=True,
        )
    except FileNotFoundError:
        message = f"{argv[0]}: no such program (or the interpreter that its first line names is missing)"
        raise NotStarted("not_found", message, 127) from None
    except PermissionError:
        raise NotStarted("not_executable", f"{argv[0]}: may not be executed", 126) from None
    except OSError as error:
        # E2BIG, ENOEXEC, EAGAIN (no more processes): the system's own words are the best there are.
        raise NotStarted("not_executable", f"{argv[0]}: {error.strerror}", 126) from None


def _environment(job: dict[str, Any], directory: str, node: str) -> dict[str, str]:
    environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    environment.setdefault("PATH", shells.SEARCH_PATH)
    if not {"HOME", "USER"} <= environment.keys():
        try:
            user = pwd.getpwuid(os.geteuid())
        except KeyError:
            pass
        else:
            environment.setdefault("HOME", user.pw_dir)
            environment.setdefault("USER", user.pw_name)
    environment["TERM"] = "dumb"
    for name, value in (job.get("env") or {}).items():
        if name.startswith("MUSTER_") and not name.startswith("MUSTER_V"):
            message = f"env may not set {name}: names that begin with MUSTER_ are Muster's own"
            raise NotStarted("refused", message)
        if not name or "=" in name:
            raise NotStarted("refused", f"{name!r} cannot be the name of an environment variable")
        environment[name] = value
    environment.update(
        {
            "MUSTER_INPUT": os.path.join(directory, "input.json"),
            "MUSTER_OUTPUT": os.path.join(directory, "output.json"),
            "MUSTER_JOB": job["id"],
            "MUSTER_EXECUTION": job.get("execution") or "",
            "MUSTER_TASK": job.get("task") or "",
            "MUSTER_NODE": node,
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
    return [*command, jobdir.write(directory, "script", _encode(job["script"]), 0o500)]


def _cwd(job: dict[str, Any], directory: str) -> str:
    cwd: str | None = job.get("cwd")
    if cwd is None:
        own = os.path.join(directory, "work")
        os.mkdir(own, 0o700)
        return own
    if not os.path.isabs(cwd):
        raise NotStarted("cwd", f"the working directory {cwd!r} must be an absolute path")
    if not os.path.isdir(cwd):
        raise NotStarted("cwd", f"the working directory {cwd} does not exist on this node")
    if not os.access(cwd, os.X_OK):
        raise NotStarted("cwd", f"the working directory {cwd} may not be entered by the runner's user")
    return cwd


def _stdin(job: dict[str, Any], directory: str) -> int:
    text = job.get("stdin")
    if text is None:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    return os.open(jobdir.write(directory, "stdin", _encode(text)), os.O_RDONLY | os.O_CLOEXEC)


def _note_identity(directory: str, pid: int) -> None:
    found = sweep.stat(pid)
    identity = {
        "pid": pid,
        "pgid": pid,
        "boot_id": sweep.boot_id(),
        "start_time": found.start if found else None,
    }
    try:
        jobdir.write(directory, "pid", json.dumps(identity).encode())
    except OSError:
        # Only a runner that comes after a crash reads it, and that finds the process by its cookie as well.
        pass


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
