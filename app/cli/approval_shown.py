"""A question on the screen: what would run where, down to the text of the script, and what was said to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.cli.plain import cell, safe
from app.cli.terminal import Screen

_FACTS = (
    "id", "status", "kind", "prompt", "execution", "workflow", "task", "requester", "approvers", "quorum",
    "created_at", "expires_at", "decided_at", "answer", "schema", "digest",
)  # fmt: skip


def show(screen: Screen, found: Mapping[str, Any]) -> None:
    """The question, then each run with its script, then the decisions."""
    screen.facts({name: found[name] for name in _FACTS if found.get(name) not in (None, [], {}, "")})
    about = found.get("about") or {}
    if about.get("is_genuine") is False:
        screen.line("")
        screen.line("what it is about was changed in the database: its text has not the digest above")
    for run in about.get("runs") or ():
        _run(screen, about, run)
    if not about.get("runs") and about.get("parameters"):
        screen.line("")
        screen.facts({"parameters": about["parameters"]})
    for one in found.get("decisions") or ():
        screen.line("")
        reason = f": {cell(one['reason'])}" if one.get("reason") else ""
        screen.line(f"{cell(one.get('at'))} {cell(one.get('person'))} {cell(one.get('decision'))}{reason}")


def _run(screen: Screen, about: Mapping[str, Any], run: Mapping[str, Any]) -> None:
    screen.line("")
    screen.line("what would run")
    script = about.get("script")
    timeout = run.get("timeout")
    facts = {
        "script": f"{script.get('name')} version {script.get('version')}" if script else "",
        "nodes": run.get("nodes"),
        "shell": run.get("shell"),
        "command": run.get("command"),
        "timeout": None if timeout is None else f"{timeout:g} s",
        "values": about.get("parameters"),
        "secrets": [f"{name} version {one['version']}" for name, one in _stored(run)],
        "sha256": run.get("script"),
    }
    screen.facts({name: value for name, value in facts.items() if value not in (None, [], {}, "")})
    body = run.get("body")
    if isinstance(body, str):
        screen.line("")
        for line in body.splitlines():
            screen.line(f"    {safe(line)}".rstrip())


def _stored(run: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """The kept secrets that it would use, by their names."""
    return sorted((str(one["secret"]), one) for one in (run.get("secrets") or {}).values() if one["secret"])
