"""Jobs for the tests, written as what they run: `argv`, or `script` by `shell`."""

from __future__ import annotations

from typing import Any

from app.transport import deploy
from app.transport.messages import Job


def planned(
    argv: Any = None,
    script: str | None = None,
    shell: str = "sh",
    timeout: float | None = None,
    **fields: Any,
) -> Job:
    """A Job with these fields and the deploy plan for that."""
    plan = deploy.of_command(argv, timeout) if script is None else deploy.of_script(shell, script, timeout)
    return Job(files=plan.files, commands=plan.commands, **fields)
