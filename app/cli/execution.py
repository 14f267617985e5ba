"""`muster execution`: what was started, how it goes, and what a person may do about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from app.cli import execution_files as files
from app.cli import follow as live
from app.cli import replay as replaying
from app.cli import run as running
from app.cli.client import api
from app.cli.connection import Call, calls_api
from app.cli.pages import newest
from app.cli.plain import cell, safe, seconds
from app.cli.terminal import Screen, rows_of

_LIST = ("id", "workflow", "status", "degraded", "requester", "created_at", "ended_at")
_TASKS = ("task", "unit", "node", "status", "wait_reason", "attempt", "exit_code", "duration", "error")


@click.group(short_help="Look at executions, follow, cancel and resolve them.")
def execution() -> None:
    """Look at executions, follow, cancel and resolve them."""


for command in (files.workspace, files.artifacts, files.artifact):
    execution.add_command(command)


@execution.command("list")
@click.option("--status", help="Only with this status.")
@click.option("--workflow", "ref", help="Only of this workflow.")
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="How many, newest first."
)
@calls_api
def list_(call: Call, status: str | None, ref: str | None, limit: int) -> None:
    """List executions, the newest first."""
    items, cursor = newest(call.client, api("workflow-executions"), limit, status=status, workflow=ref)
    if call.json:
        call.show({"items": items, "next_cursor": cursor}, str)
    else:
        Screen().table(_LIST, rows_of(items, _LIST))


@execution.command("show")
@click.argument("id_", metavar="ID")
@calls_api
def show(call: Call, id_: str) -> None:
    """Show one execution: status, parameters, variables, what runs and what failed."""
    found = call.client.get(api("workflow-executions", id_))
    if call.json:
        call.show(found, str)
        return
    screen = Screen()
    screen.facts(
        {name: value for name, value in found.items() if name != "task_graph" and value not in (None, {}, [])}
    )
    for task, edges in sorted((found.get("task_graph") or {}).items()):
        for edge in edges:
            screen.line(f"{safe(str(task))} ─{safe(str(edge.get('on')))}→ {safe(str(edge.get('to')))}")


@execution.command("tasks")
@click.argument("id_", metavar="ID")
@calls_api
def tasks(call: Call, id_: str) -> None:
    """List the tasks of an execution, a fan-out's units each in a row of its own."""
    items = call.client.items(api("workflow-executions", id_, "tasks"))
    if call.json:
        call.show({"items": items}, str)
        return
    Screen().table(_TASKS, [[_task_value(item, name) for name in _TASKS] for item in items])


def _task_value(item: Mapping[str, Any], name: str) -> Any:
    if name == "duration":
        return seconds(item.get(name))
    return live.problem_of(item.get(name)) if name == "error" else item.get(name)


@execution.command("output")
@click.argument("id_", metavar="ID")
@click.option("--task", help="Only of this task.")
@click.option("--node", help="Only of this node.")
@click.option("--stream", type=click.Choice(["stdout", "stderr"]), help="Only this stream.")
@calls_api
def output(call: Call, id_: str, task: str | None, node: str | None, stream: str | None) -> None:
    """Print what the scripts of an execution wrote."""
    items = call.client.items(api("workflow-executions", id_, "output"), task=task, node=node, stream=stream)
    if call.json:
        call.show({"items": items}, str)
        return
    screen = Screen()
    for item in items:
        notes = [
            f"{item.get('bytes')} bytes",
            *(["cut"] if item.get("truncated") else []),
            *([] if item.get("verified", True) else ["unverified"]),
        ]
        place = " ".join(cell(item.get(name)) for name in ("task", "node", "stream"))
        screen.line(screen.paint(f"── {place} ({', '.join(notes)})", dim=True))
        for line in str(item.get("text") or "").splitlines():
            screen.line(safe(line))


@execution.command("follow")
@click.argument("id_", metavar="ID")
@click.option("--timeout", type=float, help="Stop following after so many seconds (exit code 124).")
@calls_api
def follow(call: Call, id_: str, timeout: float | None) -> int:
    """Follow an execution live until it is over. Ctrl-C stops following only."""
    return running.show_until_over(call, id_, timeout)


@execution.command("cancel")
@click.argument("id_", metavar="ID")
@click.option("--force", is_flag=True, help="A second, forced cancel: ends `finally` tasks too.")
@click.option("--reason", default="", help="Why; kept in the audit trail.")
@calls_api
def cancel(call: Call, id_: str, force: bool, reason: str) -> None:
    """Cancel an execution: running scripts are ended, `finally` tasks still run."""
    _ask(call, id_, "cancel", {"force": force, "reason": reason})


@execution.command("pause")
@click.argument("id_", metavar="ID")
@click.option("--reason", default="", help="Why; kept in the audit trail.")
@calls_api
def pause(call: Call, id_: str, reason: str) -> None:
    """Let nothing new start; what runs goes on and is settled."""
    _ask(call, id_, "pause", {"reason": reason})


@execution.command("resume")
@click.argument("id_", metavar="ID")
@click.option("--reason", default="", help="Why; kept in the audit trail.")
@calls_api
def resume(call: Call, id_: str, reason: str) -> None:
    """Let a paused execution go on."""
    _ask(call, id_, "resume", {"reason": reason})


@execution.command("retry")
@click.argument("id_", metavar="ID")
@click.option("--from", "from_", metavar="TASK", multiple=True, help="Also from this task on.")
@click.option("--mark-ok", metavar="TASK", multiple=True, help="Take this failed task as succeeded.")
@click.option("--reset", is_flag=True, help="Loops, fan-outs and blocks as a whole, not only what failed.")
@click.option("--version", type=click.Choice(["latest"]), help="By the newest version of its workflow.")
@click.option("--reason", default="", help="Why; kept in the audit trail.")
@calls_api
def retry(call: Call, id_: str, **asked: Any) -> None:
    """Try an execution that is over again from what failed; what succeeded keeps its result."""
    body = {
        "from": list(asked["from_"]),
        "mark_ok": {name: {} for name in asked["mark_ok"]},
        **{name: asked[name] for name in ("reset", "reason", "version")},
    }
    _ask(call, id_, "retry", body)


def _ask(call: Call, id_: str, verb: str, body: Mapping[str, Any]) -> None:
    found = call.client.post(api("workflow-executions", id_, verb), dict(body))
    call.show(found, lambda one: f"execution={safe(id_)} status={safe(str(one.get('status')))}")


@execution.command("resolve")
@click.argument("id_", metavar="ID")
@click.argument("task")
@click.option(
    "--outcome", type=click.Choice(["succeeded", "failed", "again"]), required=True, help="What is true."
)
@click.option("--reason", required=True, help="How you know; kept in the audit trail.")
@click.option("--unit", type=click.IntRange(0), default=0, show_default=True, help="Which unit of a fan-out.")
@calls_api
def resolve(call: Call, id_: str, task: str, outcome: str, reason: str, unit: int) -> None:
    """Decide a job that nobody knows the end of: its node vanished while it ran.

    `again` starts it once more: only say that if a second run does no harm.
    """
    body = {"unit": unit, "outcome": outcome, "reason": reason}
    found = call.client.post(api("workflow-executions", id_, "tasks", task, "resolve"), body)
    call.show(found or {"task": task, "outcome": outcome}, lambda one: f"resolved: {safe(task)} {outcome}")


@execution.command("explain")
@click.argument("id_", metavar="ID")
@click.argument("task", required=False)
@calls_api
def explain(call: Call, id_: str, task: str | None) -> None:
    """Explain why a task ran, waits, or will never run: which edges fired, and what it waits for until when.

    Without TASK every task is explained that did not simply succeed.
    """
    if task is not None:
        one = call.client.get(api("workflow-executions", id_, "tasks", task, "explain"))
        call.show(one, _explained)
        return
    found = call.client.get(api("workflow-executions", id_, "explain"))
    told = [item for item in found.get("items") or () if item.get("status") != "succeeded"]
    lines = _parent(found.get("parent")) + [_explained(item) for item in told]
    call.show(found, lambda _: "\n".join(lines if told else [*lines, "every task succeeded"]))


def _parent(found: Mapping[str, Any] | None) -> list[str]:
    if not found:
        return []
    said = {name: safe(str(found.get(name))) for name in ("execution", "workflow", "task", "status", "says")}
    return ["started by {execution} ({workflow}) for {task}, which is {status}: {says}".format_map(said)]


def _explained(item: Mapping[str, Any]) -> str:
    status = safe(str(item.get("status")))
    lines = [f"{safe(str(item.get('task')))}  {status}  {safe(str(item.get('verdict')))}"]
    return "\n".join((*lines, *(f"  {safe(str(one))}" for one in item.get("sentences") or ())))


@execution.command("events")
@click.argument("id_", metavar="ID")
@click.option("--after", type=click.IntRange(0), default=0, help="Only those after this number.")
@click.option("--limit", type=click.IntRange(1, 1000), default=200, show_default=True, help="How many.")
@calls_api
def events(call: Call, id_: str, after: int, limit: int) -> None:
    """List what happened to an execution, in order."""
    items = call.client.items(api("workflow-executions", id_, "events"), after=after, limit=limit)
    if call.json:
        call.show({"items": items}, str)
        return
    rows = [[item.get("seq"), item.get("at"), item.get("kind"), _log(item.get("log"))] for item in items]
    Screen().table(("seq", "at", "kind", "what came of it"), rows)


@execution.command("replay")
@click.argument("id_", metavar="ID")
@calls_api
def replay(call: Call, id_: str) -> int:
    """Tell all that happened, and put it through the engine once more: does it give what is stored?

    Exit code 1 where it does not.
    """
    return replaying.replay(call, id_, _log)


def _log(entries: Any) -> str:
    told = (live.told(entry) for entry in entries or () if isinstance(entry, dict))
    return "; ".join(text for text in told if text)
