"""What a step read that no event and no earlier step had told it: nodes, and how the jobs on them stood.

It is kept with the event, so that the events alone say why an execution went as it did (`replay`). Little is kept:
of a node what placement looked at, of a job what differs from one just born, and of a long result its digest: the
job's row holds the result itself and is never written again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

from app.engine.state import Facts, JobState, Limits, Node
from app.engine.status import QUEUED

RESULT_BYTES = 2000
"""The longest result, as JSON, that an event holds itself."""

_DIGEST = "result_sha256"
_LIMITS = Limits()
_NODE = Node("")
_SAID = ("exit_code", "result", "error", "started_at", "ended_at")

ResultOf = Callable[[str], Any]
"""A job's id → the result in its row."""


class OtherResult(ValueError):
    """A job's row does not hold the result that its event was about."""


def said_of(job: JobState) -> dict[str, Any]:
    """The columns of a job on a node that are not as they were when it was born."""
    said: dict[str, Any] = {} if job.status == QUEUED else {"status": job.status}
    for name in _SAID:
        value = getattr(job, name)
        if value is not None:
            said[name] = value
    return said


def facts_to_json(facts: Facts, limits: Limits) -> dict[str, Any]:
    """Only what there is to say: nothing for a step that read nothing new."""
    data: dict[str, Any] = {}
    if facts.fleet is not None:
        data["fleet"] = {name: _node(node, whole=True) for name, node in facts.fleet.items()}
    elif facts.nodes:
        data["nodes"] = {
            name: _node(node, whole=False) for name, node in facts.nodes.items() if node is not None
        }
    if facts.jobs:
        data["jobs"] = {id_: _short(said) for id_, said in facts.jobs.items()}
    if facts.kv:
        data["kv"] = dict(facts.kv)
    if limits != _LIMITS:
        data["limits"] = {
            name: getattr(limits, name)
            for name in Limits.__slots__
            if getattr(limits, name) != getattr(_LIMITS, name)
        }
    return data


def _node(node: Node, *, whole: bool) -> dict[str, Any]:
    said: dict[str, Any] = {}
    if node.shells != _NODE.shells:
        said["shells"] = list(node.shells)
    if node.state != _NODE.state:
        said["state"] = node.state
    if whole:
        said |= {"labels": dict(node.labels), "address": node.address}
    return said


def _short(said: dict[str, Any]) -> dict[str, Any]:
    result = said.get("result")
    if not isinstance(result, dict) or not _may_be_long(result):
        return said
    digest, size = _digest(result)
    if size <= RESULT_BYTES:
        return said
    return {**{name: value for name, value in said.items() if name != "result"}, _DIGEST: digest}


def _may_be_long(result: Mapping[str, Any]) -> bool:
    """Whether it is worth while to measure it: the texts of the usual result are short, and it holds no more."""
    total = 0
    for value in result.values():
        if isinstance(value, str):
            total += len(value)
        elif isinstance(value, dict | list):
            return True
    return total > RESULT_BYTES // 8


def _digest(result: Any) -> tuple[str, int]:
    text = json.dumps(result, sort_keys=True, separators=(",", ":")).encode()
    return hashlib.sha256(text).hexdigest(), len(text)


def nodes_from_json(data: Mapping[str, Any]) -> dict[str, Node]:
    """The nodes that placement saw."""
    found: Mapping[str, Any] = data.get("fleet") or data.get("nodes") or {}
    return {
        name: Node(name, **{**said, "shells": tuple(said.get("shells", _NODE.shells))})
        for name, said in found.items()
    }


def jobs_from_json(data: Mapping[str, Any], result_of: ResultOf) -> dict[str, dict[str, Any]]:
    """Columns by job. Raises OtherResult where a row does not hold the result that the event was about."""
    found = {}
    for id_, said in data.get("jobs", {}).items():
        columns = dict(said)
        digest = columns.pop(_DIGEST, None)
        if digest is not None:
            columns["result"] = result_of(id_)
            if _digest(columns["result"])[0] != digest:
                raise OtherResult(f"the row of job {id_} does not hold the result that the engine saw")
        found[id_] = columns
    return found


def limits_from_json(data: Mapping[str, Any]) -> Limits:
    """The bounds that held for the step."""
    return Limits(**data.get("limits", {}))
