"""Children of blocks that run on other machines: each becomes one job, a flow, on the hosts in turn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from app.compiler.plan import LOCAL, PlanTask
from app.language.model import RESERVED_TARGETS, Remote, Retry, Task, Workflow


def lay_out(tasks: dict[str, PlanTask], workflow: Workflow, *, wanted: bool) -> None:
    """Turn the children of remote blocks into flows, unless none are wanted."""
    found = workflow.parallel
    if not wanted or found.remote is None:
        return
    for block in (*workflow.tasks, *workflow.finally_):
        if block.type == "parallel" and found.is_remote(block):
            for number, child in enumerate(block.tasks):
                host = found.remote.hosts[number % len(found.remote.hosts)]
                whole = tasks[child.name]
                tasks[child.name] = _flow(whole, child, exit_of(block), host, found.timeout, found.retry)


def exit_of(block: Task) -> str:
    """What follows a block: where its flows end. "" for the end of the workflow."""
    following = (*block.on_success, *block.on_complete, *block.on_failure)
    return next((name for name in following if name not in RESERVED_TARGETS), "")


def _flow(
    whole: PlanTask, child: Task, exit_point: str, host: str, timeout: float | None, retry: Retry | None
) -> PlanTask:
    """The one job that stands for all of a child: its own `when`, loop, retries and timeout are seen to on the host."""
    wait = child.queue_timeout
    return PlanTask(
        name=whole.name,
        index=whole.index,
        kind="job",
        action=whole.action,
        retry=None if retry is None else asdict(retry),
        timeout=timeout,
        queue_timeout=None if isinstance(wait, str) else wait,
        idempotent=whole.idempotent,
        on_unknown=whole.on_unknown,
        delegate_to=LOCAL,
        parent=whole.parent,
        is_finally=whole.is_finally,
        line=whole.line,
        scripted=whole.scripted,
        flow={"entry_point": whole.name, "exit_point": exit_point, "host": host, "task": whole.own()},
    )


def remote_of(tasks: Mapping[str, PlanTask], workflow: Workflow) -> dict[str, Any] | None:
    """What all flows of a plan share; None where there is none."""
    remote: Remote | None = workflow.parallel.remote
    if remote is None or not any(task.flow for task in tasks.values()):
        return None
    return {**asdict(remote), "hosts": list(remote.hosts), "text": workflow.text_digest}
