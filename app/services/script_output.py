"""What scripts wrote on their nodes, as one answer shows it: bounded, and what is the same told once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Integer, case, cast, func, select

from app.store.tables import Job, Output, table

jobs, outputs = table(Job), table(Output)

STREAMS: Final = ("stdout", "stderr")
OUTPUT_BYTES: Final = 8 << 20
"""Bytes of output that one answer holds: every stream has the same share of it, and the end of each is shown."""
LEAST_SHARE: Final = 512
MOST_SHARE: Final = 1 << 20
_NAMED_AT_MOST: Final = 500
"""Jobs that a statement names one by one."""


@dataclass(frozen=True, slots=True)
class _Stream:
    sha256: str
    kept: int
    truncated: bool
    verified: bool


class Texts:
    """The kept output of the newest jobs of an execution. `read` fetches the texts, of all jobs or of some."""

    def __init__(self, connection: Connection, execution: str, counted: Sequence[str | None]) -> None:
        self._connection = connection
        self._execution = execution
        self._counted = frozenset(job for job in counted if job)
        self._share = MOST_SHARE
        self._texts: dict[tuple[str, str], str] = {}
        self._streams: dict[tuple[str, str], _Stream] = {}
        if not self._counted:
            return
        columns = ("job", "stream", "sha256", "kept", "truncated", "verified")
        query = select(*(outputs.c[name] for name in columns)).where(outputs.c.execution == execution)
        self._streams = {
            (job, stream): _Stream(*rest)
            for job, stream, *rest in connection.execute(query)
            if job in self._counted
        }

    def digests(self, job: str | None) -> tuple[str, ...]:
        """What the streams of a job sum up to, which tells them apart whatever is shown of them."""
        found = (self._streams.get((job or "", stream)) for stream in STREAMS)
        return tuple(one.sha256 if one is not None else "" for one in found)

    def read(self, wanted: Sequence[str] | None) -> None:
        """Fetch the texts, None for those of all jobs: the end of each stream, as much as its share allows."""
        chosen = self._counted if wanted is None else frozenset(job for job in wanted if job)
        some = [key for key in self._streams if key[0] in chosen]
        self._share = max(LEAST_SHARE, min(MOST_SHARE, OUTPUT_BYTES // max(1, len(some))))
        if not some:
            return
        begin = case((outputs.c.kept > self._share, outputs.c.kept - self._share + 1), else_=1)
        tail = func.substr(outputs.c.content, cast(begin, Integer))
        query = select(outputs.c.job, outputs.c.stream, tail).where(
            outputs.c.execution == self._execution, outputs.c.verified
        )
        if wanted is not None and len(chosen) <= _NAMED_AT_MOST:
            query = query.where(outputs.c.job.in_(sorted(chosen)))
        for job, stream, content in self._connection.execute(query):
            if job in chosen:
                self._texts[job, stream] = bytes(content or b"").decode("utf-8", "backslashreplace")
        if any(not self._streams[key].verified for key in some):
            self._read_told(chosen)

    def _read_told(self, chosen: frozenset[str]) -> None:
        """Of output that is still to be fetched from its node, the outcome holds the beginning and the end."""
        late = select(outputs.c.job).where(outputs.c.execution == self._execution, ~outputs.c.verified)
        query = select(jobs.c.id, jobs.c.result).where(jobs.c.id.in_(late))
        for job, result in self._connection.execute(query):
            for stream in STREAMS:
                if job in chosen and (job, stream) not in self._texts:
                    self._texts[job, stream] = str((result or {}).get(stream) or "")[-self._share :]

    def text(self, job: str | None, stream: str) -> str:
        """What was read of a stream; empty where nothing was written."""
        return self._texts.get((job or "", stream), "")

    def is_cut(self, job: str | None) -> bool:
        """Whether the node kept less than was written, or less than that is shown."""
        streams = [self._streams.get((job or "", stream)) for stream in STREAMS]
        return any(one.truncated or not one.verified or one.kept > self._share for one in streams if one)

    def put(self, host: dict[str, Any], *, with_text: bool) -> dict[str, Any]:
        """A host's row with its output."""
        found = {stream: self.text(host["job"], stream) if with_text else None for stream in STREAMS}
        return {**host, **found, "truncated": self.is_cut(host["job"])}


def groups(hosts: Sequence[dict[str, Any]], texts: Texts) -> list[dict[str, Any]]:
    """Hosts whose script ended alike and wrote the same, the largest group first."""
    found: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for host in hosts:
        kind = (host["error"] or {}).get("type", "")
        key = (host["status"], host["return_code"], kind, texts.digests(host["job"]))
        found.setdefault(key, []).append(host)
    groups = [{"of": alike[0], "hosts": sorted(one["host_id"] for one in alike)} for alike in found.values()]
    return sorted(groups, key=lambda group: (-len(group["hosts"]), group["hosts"]))


def fold(groups: list[dict[str, Any]], texts: Texts) -> dict[str, Any]:
    shown = [
        {
            "hosts": group["hosts"],
            "count": len(group["hosts"]),
            "status": group["of"]["status"],
            "return_code": group["of"]["return_code"],
            "error": group["of"]["error"],
            **{stream: texts.text(group["of"]["job"], stream) for stream in STREAMS},
            "truncated": texts.is_cut(group["of"]["job"]),
        }
        for group in groups
    ]
    return {"groups": shown, "summary": summary([one["count"] for one in shown])}


def summary(counts: Sequence[int]) -> str:
    """`47 the same, 3 differ`, for the sizes of groups, the largest first."""
    if not counts:
        return ""
    if not counts[1:]:
        return f"{counts[0]} the same"
    if counts[0] == 1:
        return f"{len(counts)} hosts, all different"
    return f"{counts[0]} the same, {sum(counts[1:])} differ"
