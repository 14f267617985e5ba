"""From what the far side says of a job's end to the exit record that a runner here would have written."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from typing import Any, NamedTuple

from app.masking import Masker
from app.node import jobdir, shells
from app.node.process import opening
from app.ssh.transcript import Ended

_OUTPUT = {
    "link": "the file named by MUSTER_OUTPUT cannot be read: it is a link",
    "kind": "what MUSTER_OUTPUT names is no longer a regular file",
    "copy": "the file named by MUSTER_OUTPUT cannot be read: the disk of the machine may be full",
}
_CWD = {
    "cwd_missing": "the working directory {cwd} does not exist on this node",
    "cwd_file": "the working directory {cwd} cannot be entered: Not a directory",
    "cwd_outside": "the working directory {cwd} leads out of the workspace",
    "cwd_denied": "the working directory {cwd} may not be entered by the user that is logged in",
}
_NOT_BEGUN = {
    "not_found": "{program}: no such program",
    "not_executable": "{program}: may not be executed, or is too long with all that it is given",
    "no_space": "the job's directory on the machine cannot be prepared: its disk may be full",
    **_CWD,
}


class Times(NamedTuple):
    """Unix seconds, and seconds of duration."""

    started_at: float
    ended_at: float
    duration: float


def not_begun(
    job: Mapping[str, Any], digest: str, kind: str, message: str, exit_code: int | None = None
) -> dict[str, Any]:
    """The record of a job that failed without having had any effect."""
    record = opening(job["id"], digest, "failed", {"type": kind, "message": message})
    return {**record, "exit_code": exit_code}


def refused(
    job: Mapping[str, Any], digest: str, ended: Ended, available: tuple[str, ...]
) -> dict[str, Any] | None:
    """The record of a job whose script could not become a process; None of one that did."""
    kind = ended.verdict
    if kind == "no_shell":
        message = f"this node has no {job['shell']!r}; it has {', '.join(available)}"
        return not_begun(job, digest, kind, message)
    if kind not in _NOT_BEGUN:
        return None
    argv = job.get("argv")
    program = argv[0] if argv else " or ".join(_programs(job["shell"]))
    message = _NOT_BEGUN[kind].format(program=program, cwd=job.get("cwd"))
    return not_begun(job, digest, "cwd" if kind in _CWD else kind, message, ended.code)


def ended(
    job: Mapping[str, Any],
    digest: str,
    end: Ended,
    times: Times,
    streams: Mapping[str, Any],
    given: tuple[bytes, str],
    *,
    reason: str,
    leash: float,
    masker: Masker | None,
) -> dict[str, Any]:
    """The record of a job that ran. `given` is what was in the file of MUSTER_OUTPUT and what was wrong with it."""
    code, number = _exit(end.code)
    output, complaint = _output(*given)
    if masker is not None:
        output = masker.value(output)
    status, error = _judge(job, end, code, number, reason, leash)
    if status == "succeeded" and complaint:
        status, error = "failed", {"type": "output", "message": complaint}
    record = {
        **opening(job["id"], digest, status, error),
        "exit_code": None if status in ("timed_out", "unknown") else code,
        "signal": number,
        "started_at": times.started_at,
        "ended_at": times.ended_at,
        "duration": times.duration,
        "output": output,
        **streams,
    }
    return {**record, "left": end.left} if end.left else record


def _judge(
    job: Mapping[str, Any], end: Ended, code: int | None, number: int | None, reason: str, leash: float
) -> tuple[str, dict[str, Any] | None]:
    if end.verdict == "timed_out":
        message = f"it ran longer than its timeout of {job['timeout']:g} s"
        return "timed_out", {"type": "timeout", "message": message}
    if end.verdict == "cancelled":
        return "cancelled", {"type": "cancelled", "message": reason or "cancelled"}
    if end.verdict == "lost":
        message = f"the machine heard nothing from here for {leash:g} s, and ended the script"
        return "failed", {"type": "lost", "message": message}
    if end.verdict != "exit":
        message = (
            "what watched over the script on the machine died while it ran; nothing of it was left running"
        )
        return "unknown", {"type": "interrupted", "message": message}
    if code in job.get("ok_codes", (0,)):
        return "succeeded", None
    if number is None:
        return "failed", {"type": "exit", "message": f"exit code {code}"}
    return "failed", {
        "type": "signal",
        "message": f"killed by signal {number} ({signal.Signals(number).name})",
    }


def _exit(code: int | None) -> tuple[int | None, int | None]:
    """Exit code and signal. A shell says both by one number: what looks like a signal is taken for one."""
    if code is None:
        return None, None
    number = code - 256 if code > 256 else code - 128
    if number in signal.valid_signals() and number in set(signal.Signals):
        return 128 + number, number
    return code, None


def _output(data: bytes, complaint: str) -> tuple[dict[str, Any] | None, str]:
    if complaint.startswith("size "):
        size = complaint.removeprefix("size ")[:20]
        return None, f"the file named by MUSTER_OUTPUT has {size} bytes, over {jobdir.OUTPUT_LIMIT}"
    if complaint:
        return None, _OUTPUT.get(complaint, "the file named by MUSTER_OUTPUT cannot be read")
    try:
        return jobdir.parse_output(data), ""
    except jobdir.BadOutput as error:
        return None, str(error)


def _programs(shell: str) -> tuple[str, ...]:
    known = shells.shell_of(shell)
    return known.programs if known else (shell,)
