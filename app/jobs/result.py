"""From what a node answered to what a workflow sees of it."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any

from app.compiler.plan import Plan
from app.engine.result import misfit
from app.engine.status import FAILED, SUCCEEDED
from app.transport.messages import Outcome, Stream

_OF_INPUT = frozenset({"core.echo"})
"""The actions whose result depends on their input."""


def judged(
    plan: Plan, task: str, outcome: Outcome, given: Callable[[], Mapping[str, Any]]
) -> tuple[str, dict[str, Any], dict[str, Any] | None]:
    """The status of a job by its outcome, its result, and its error.

    `given` is asked for the task's rendered input where the result depends on it.
    """
    # A newer version of the workflow may no longer have the task: what comes of it now is late.
    action = plan.tasks[task].action if task in plan.tasks else ""
    written = storable(outcome.output)
    status, error = outcome.status, storable(dict(outcome.error)) if outcome.error else None
    if status == SUCCEEDED and action in plan.actions:
        error = storable(misfit(plan.actions[action], written))
        status = FAILED if error else status
    own = {"message": given().get("message")} if action in _OF_INPUT else dict(written or {})
    return status, {**own, **_core(outcome)}, error


def _core(outcome: Outcome) -> dict[str, Any]:
    """These keys win over what the script wrote to MUSTER_OUTPUT."""
    return {
        "exit_code": outcome.exit_code,
        "stdout": text_of(outcome.stdout),
        "stderr": text_of(outcome.stderr),
        "truncated": outcome.stdout.truncated or outcome.stderr.truncated,
    }


def storable(value: Any) -> Any:
    """A JSON value as every database keeps it: NUL becomes U+FFFD, half of a surrogate pair `?`.

    A node of ours sends neither; one that is not must not be able to make its outcome unrecordable.
    """
    if isinstance(value, str):
        return (
            value.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
            if not _is_plain(value)
            else value
        )
    if isinstance(value, Mapping):
        return {storable(name): storable(part) for name, part in value.items()}
    return [storable(part) for part in value] if isinstance(value, list | tuple) else value


def _is_plain(text: str) -> bool:
    return text.isprintable() or ("\0" not in text and not any("\ud800" <= char <= "\udfff" for char in text))


def text_of(stream: Stream) -> str:
    """The first and last 8 kB of a stream as text, without trailing newlines, as `$(…)` would give it."""
    if not stream.bytes:
        return ""
    head, tail = base64.b64decode(stream.head), base64.b64decode(stream.tail)
    left = stream.kept - len(head) - len(tail)
    gap = f"\n… {left} bytes more in the stored output …\n".encode() if left > 0 else b""
    return (head + gap + tail).decode("utf-8", "backslashreplace").replace("\0", "\\x00").rstrip("\n")
