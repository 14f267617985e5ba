"""What the fields of a message may hold, checked after the signature: a signed lie is still a lie.

`messages.from_json` knows which fields there are; here are their types and bounds, so that what a node
sends can go into a row, a log line or an engine event as it is. Every function raises `BadMessage`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from app.transport.life import Heartbeat, Report
from app.transport.messages import JOB_ID, NODE_NAME, BadMessage, Order, Outcome, Stream

_TOKEN = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_TRACE_ID = re.compile(r"(?:[0-9a-f]{32})?")
_BASE64 = re.compile(r"[A-Za-z0-9+/]*={0,2}")
_STREAM_END = 16_384
_ADDRESS = re.compile(r"(?:(?:\[[0-9a-f:.]{2,45}\]|[a-z0-9._-]{1,249}):[0-9]{1,5})?")
_HELD = 5000
_SECRETS = 1000
_FILES_BYTES = 4096


def order(message: Order) -> None:
    _place(message)
    _need(isinstance(message.id, str) and bool(JOB_ID.fullmatch(message.id)), "an order's id")
    _need(_is_time(message.issued_at) and _is_time(message.expires_at), "an order's times")
    _need(type(message.at_once) is bool, "whether an order's jobs run at once")
    secrets = message.secrets
    _need(isinstance(secrets, dict) and len(secrets) <= _SECRETS, "an order's secrets")
    _need(
        all(isinstance(value, str) and "\0" not in value for value in secrets.values()), "an order's secrets"
    )
    for named in message.job_ids:
        _job_id(named)
    for job in message.jobs:
        texts = (job.id, job.execution, job.task, job.action)
        _need(all(isinstance(text, str) for text in texts), "a job's names")
        _need(_matches(_TRACE_ID, job.trace_id), "a job's trace_id")
        _need(_is_count(job.unit) and _is_count(job.attempt), "a job's unit and attempt")
        _need(job.timeout is None or (_is_time(job.timeout) and job.timeout > 0), "a job's timeout")
        _need(_is_time(job.grace), "a job's grace")
        _need(_is_count(job.output_limit), "a job's output_limit")
        _need(all(type(code) is int for code in job.ok_codes), "a job's ok_codes")
        for text in (job.cwd, job.stdin):
            _need(text is None or isinstance(text, str), "a job's cwd or stdin")
    files = message.files
    _need(files is None or _has_texts(files, ("token", "url"), _FILES_BYTES), "an order's files")


def outcome(message: Outcome) -> None:
    _place(message)
    _job_id(message.job)
    _need(_matches(_SHA256, message.digest), "an outcome's digest")
    for neighbour in (message.after, message.then):
        _need(neighbour == "" or _matches(JOB_ID, neighbour), "the jobs before and behind an outcome's")
    _need(message.exit_code is None or type(message.exit_code) is int, "an outcome's exit_code")
    _need(message.signal is None or type(message.signal) is int, "an outcome's signal")
    for time in (message.started_at, message.ended_at):
        _need(time is None or _is_time(time), "an outcome's times")
    error = message.error
    if error is not None:
        _need(isinstance(error, dict) and all(isinstance(name, str) for name in error), "an outcome's error")
        _need(
            isinstance(error.get("type"), str) and isinstance(error.get("message"), str), "an outcome's error"
        )
    _need(message.output is None or isinstance(message.output, dict), "an outcome's output")
    files = message.files
    _need(files is None or _has_texts(files, ("artifacts", "changes"), 64), "an outcome's files")
    for digest in (files or {}).values():
        _need(digest == "" or _matches(_SHA256, digest), "an outcome's files")
    _stream(message.stdout)
    _stream(message.stderr)


def report(message: Report) -> None:
    _place(message)
    _need(_is_time(message.sent_at), "a report's time")
    _need(len(message.jobs) <= _HELD, "the number of a report's jobs")
    for job, _, time in message.jobs:
        _job_id(job)
        _need(_is_time(time), "a report's times")


def heartbeat(message: Heartbeat) -> None:
    _place(message)
    _need(_is_time(message.sent_at) and _is_time(message.started_at), "a heartbeat's times")
    counts = (message.sequence, message.slots, message.free)
    _need(all(_is_count(count) for count in counts), "a heartbeat's counts")
    _need(len(message.held) <= _HELD and len(message.shells) <= 64, "the length of a heartbeat's lists")
    for job in message.held:
        _job_id(job)
    _need(all(_matches(_TOKEN, shell) for shell in message.shells), "a heartbeat's shells")
    _need(_matches(_ADDRESS, message.address), "a heartbeat's address")
    versions = message.versions
    _need(isinstance(versions, dict) and len(versions) <= 64, "a heartbeat's versions")
    for name, version in versions.items():
        _need(
            _matches(_TOKEN, name) and isinstance(version, str) and len(version) <= 256,
            "a heartbeat's versions",
        )


def _place(message: Any) -> None:
    _need(_matches(_TOKEN, message.installation), "the installation")
    _need(_matches(NODE_NAME, message.node), "the node")
    _need(_matches(_TOKEN, message.epoch), "the epoch")


def _stream(stream: Stream) -> None:
    _need(_is_count(stream.bytes) and _is_count(stream.kept), "a stream's counts")
    _need(_matches(_SHA256, stream.sha256), "a stream's sha256")
    for end in (stream.head, stream.tail):
        _need(_matches(_BASE64, end) and len(end) <= _STREAM_END, "a stream's head or tail")
    _need(type(stream.truncated) is bool, "a stream's truncated")


def _job_id(value: Any) -> None:
    _need(_matches(JOB_ID, value), "a job's id")


def _has_texts(value: Any, names: Sequence[str], most: int) -> bool:
    """Whether it is a map with exactly these names, of texts with so many characters at the most."""
    if not isinstance(value, dict) or sorted(value) != list(names):
        return False
    return all(isinstance(text, str) and len(text) <= most for text in value.values())


def _matches(pattern: re.Pattern[str], value: Any) -> bool:
    return isinstance(value, str) and bool(pattern.fullmatch(value))


def _is_time(value: Any) -> bool:
    # A date beyond the year 9999 has no datetime.
    return type(value) in (int, float) and math.isfinite(value) and 0 <= value < 253_402_300_800


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _need(holds: bool, what: str) -> None:
    if not holds:
        raise BadMessage(f"{what} cannot be that")
