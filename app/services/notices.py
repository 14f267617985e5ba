"""How a notification reads: as JSON for a program, and as plain text for a person, with what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from app.services import notify


def body(row: Any, installation: str) -> dict[str, Any]:
    """What a webhook is sent. `id` is the same for every try of one notification."""
    return {
        "id": row.id,
        "kind": row.kind,
        "subject": row.subject,
        "created_at": _moment(row.created_at),
        "installation": installation,
        "data": row.data,
    }


def subject(row: Any) -> str:
    """The subject of an e-mail."""
    data = row.data
    what = {
        notify.ASKED: "asks for your approval" if data.get("kind") != "inquiry" else "asks a question",
        notify.DECIDED: f"was {data.get('outcome', 'decided')}",
        notify.EXPIRED: "was not decided in time",
    }.get(row.kind)
    if row.kind == notify.HELD_UP:
        return f"[Muster] the schedule {data.get('name')} has skipped {data.get('skips')} times in a row"
    if what is None:
        return f"[Muster] {row.kind}: {row.subject}"
    return f"[Muster] {data.get('workflow', row.subject)} {what}"


def text(row: Any, link: str) -> str:
    """The text of an e-mail. `link` is where the API is for whoever reads it, "" where nobody said."""
    lines = [f"{subject(row).removeprefix('[Muster] ')}.", ""]
    lines += [f"{name.replace('_', ' ')}: {_said(name, value)}" for name, value in row.data.items() if value]
    approval = row.data.get("approval")
    if row.kind == notify.ASKED and approval:
        is_inquiry = row.data.get("kind") == "inquiry"
        lines += ["", "What would run where:", f"  muster approval show {approval}"]
        if link:
            lines += [f"  {link.rstrip('/')}/api/v1/automation/approvals/{approval}"]
        verbs = (f"answer {approval} JSON",) if is_inquiry else (f"approve {approval}", f"reject {approval}")
        lines += ["Decide:", *(f"  muster approval {verb}" for verb in verbs)]
    elif row.kind == notify.ASKED:
        lines += ["", "All of them:", "  muster approval list"]
    elif row.kind == notify.HELD_UP:
        lines += ["", "What became of its times:", f"  muster schedule history {row.data.get('name')}"]
    elif row.data.get("execution"):
        lines += ["", f"  muster execution show {row.data['execution']}"]
    return "\n".join([*lines, "", f"notification {row.id}", ""])


def _said(name: str, value: Any) -> str:
    if name.endswith("_at") and isinstance(value, int | float):
        return _moment(value)
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={one}" for key, one in value.items())
    return str(value)


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
