"""`muster script run` and what comes of it: a saved script on many nodes, live; what each node answered."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import click

from app.cli import sse
from app.cli.client import api
from app.cli.connection import Call, calls_api
from app.cli.follow import Printer
from app.cli.given import read_parameters
from app.cli.pages import newest
from app.cli.plain import as_json, safe, seconds
from app.cli.remote import batch_of
from app.cli.terminal import Screen
from app.cli.watch import INTERRUPTED, exit_code_of, watch
from app.errors import InvalidInput

_HOSTS = ("node", "status", "return code", "duration")
_LIST = ("id", "script", "version", "status", "succeeded", "failed", "requester", "created_at")
_NAMED = 10
_USAGE = "muster script run deploy --on web-1,web-2 -p target=/srv/www"


@click.command("run", short_help="Run a saved script on nodes, live.")
@click.argument("name", metavar="NAME")
@click.option("--on", "nodes", multiple=True, metavar="NODE,…", help="The nodes; may be repeated.")
@click.option(
    "--label",
    "labels",
    multiple=True,
    metavar="K=V",
    help="The nodes that carry this label; may be repeated.",
)
@click.option("--version", type=click.IntRange(1), help="A version of it; the newest if not given.")
@click.option("-p", "pairs", multiple=True, metavar="NAME=VALUE", help="A parameter; may be repeated.")
@click.option("--parameters", "file", metavar="FILE.json", help="Parameters as a JSON object; `-` is stdin.")
@click.option("--batch", metavar="N,N%,…", help="How many nodes at once; the last entry repeats.")
@click.option("--max-failures", type=click.IntRange(0), help="Failed nodes that are put up with; 0.")
@click.option("--reason", default="", help="Why, for the audit trail.")
@click.option("--follow/--no-follow", "following", default=True, help="Show it live until it is over.")
@click.option(
    "--fold/--no-fold",
    "folding",
    default=None,
    help="Say at the end which nodes answered the same; not with --json if not said.",
)
@calls_api
def run(call: Call, name: str, nodes: Sequence[str], labels: Sequence[str], **options: Any) -> int:
    """Run a saved script on many nodes, and show its output live, each line behind its node's name.

    A script that requires an approval waits for it first. A secret is better given by --parameters than by -p, which
    other users of this machine can see. Ctrl-C asks the server to cancel; a second one leaves. Exits with 0 if it
    succeeded with at most --max-failures failures, with 124 if nothing but time was the matter, otherwise with 1.
    """
    body = {
        **_where(nodes, labels),
        "parameter_values": _values(options["pairs"], options["file"]),
        "version": options["version"],
        "batch": batch_of(options["batch"]),
        "max_failures": options["max_failures"] or 0,
        "reason": options["reason"],
    }
    path = api("automation", "scripts", name, "execute")
    started = call.client.post_once(path, {key: value for key, value in body.items() if value is not None})
    execution = str(started.get("id"))
    if started.get("status") == "pending_approval":
        click.echo(f"{safe(execution)} waits for an approval: `muster approval list`", err=True)
    if not options["following"]:
        call.show(started, lambda one: f"execution={safe(execution)} status={safe(str(one.get('status')))}")
        return 0
    return _follow(call, execution, folding=options["folding"], is_live=not call.json)


def _where(nodes: Sequence[str], labels: Sequence[str]) -> dict[str, Any]:
    if bool(nodes) == bool(labels):
        raise InvalidInput("name nodes by --on, or choose them by --label; one of both", hint=_USAGE)
    if nodes:
        return {"host_ids": [name for some in nodes for name in some.split(",") if name]}
    found: dict[str, str] = {}
    for pair in labels:
        name, equals, value = pair.partition("=")
        if not equals or not name or name in found:
            raise InvalidInput(
                f"--label {pair!r} is not K=V, or is there twice", hint="for example --label role=web"
            )
        found[name] = value
    return {"labels": found}


def _values(pairs: Sequence[str], file: str | None) -> dict[str, Any]:
    """Those of the file, then those of -p, which stay texts: no parameter of a script is a list or an object."""
    found = read_parameters((), file)
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise InvalidInput(f"-p {pair!r} is not NAME=VALUE", hint="for example -p target=/srv/www")
        found[name] = value
    return found


def _follow(call: Call, execution: str, *, folding: bool | None, is_live: bool) -> int:
    screen = Screen()
    printer = Printer(screen, is_told=False)
    state: dict[str, Any] = {}

    def take(message: sse.Message) -> None:
        if message.event == "end":
            state.update(json.loads(message.data))
        if is_live:
            printer.take(message)

    place = (api("workflow-executions", execution, "events"), {"output": 1} if is_live else {})
    was_cancelled = watch(call.client, execution, place, take, None)
    found = _shown(call, screen, execution, folding=folding, texts=not is_live)
    hosts = found.get("hosts") or ()
    return INTERRUPTED if was_cancelled else exit_code_of(hosts, failed=state.get("status") != "completed")


def _shown(
    call: Call, screen: Screen, execution: str, *, folding: bool | None, texts: bool
) -> Mapping[str, Any]:
    """Prints what became of an execution, with what its nodes wrote if `texts`; the execution."""
    is_folded = not call.json if folding is None else folding
    fold = "output" if is_folded else None
    found = call.client.get(api("automation", "executions", execution), fold=fold)
    if call.json:
        click.echo(as_json(found))
        return found
    hosts = found.get("hosts") or ()
    if texts:
        for one in found.get("groups") or () if is_folded else hosts:
            _text(screen, one)
    screen.line("")
    screen.table(_HOSTS, [_row(host) for host in hosts])
    for host in hosts:
        error = host.get("error")
        if isinstance(error, dict) and error.get("type") not in (None, "exit"):
            screen.line(f"{safe(str(host.get('host_id')))}: {safe(str(error.get('message')))}")
    if found.get("summary"):
        screen.line("")
        screen.line(safe(str(found["summary"])))
    screen.line(f"execution={safe(execution)} status={safe(str(found.get('status')))}")
    return found


def _row(host: Mapping[str, Any]) -> list[Any]:
    began, ended = (host.get(name) for name in ("started_at", "completed_at"))
    took = None
    if isinstance(began, str) and isinstance(ended, str):
        took = (datetime.fromisoformat(ended) - datetime.fromisoformat(began)).total_seconds()
    return [host.get("host_id"), host.get("status"), host.get("return_code"), seconds(took)]


def _text(screen: Screen, one: Mapping[str, Any]) -> None:
    """The output of a node, or of all nodes of a group."""
    hosts = [str(name) for name in one.get("hosts") or [one.get("host_id")]]
    more = f" and {len(hosts) - _NAMED} more" if len(hosts) > _NAMED else ""
    notes = f", return code {one['return_code']}" if one.get("return_code") is not None else ""
    notes += ", cut" if one.get("truncated") else ""
    title = f"── {', '.join(hosts[:_NAMED])}{more} ({one.get('status')}{notes})"
    screen.line(screen.paint(safe(title), dim=True))
    for stream in ("stdout", "stderr"):
        for line in str(one.get(stream) or "").splitlines():
            screen.line(safe(line))


@click.command("executions", short_help="List what scripts were run.")
@click.option("--status", help="Only with one of these words, as running,queued.")
@click.option("--script", help="Only of this saved script, by name or id.")
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="How many, newest first."
)
@calls_api
def executions(call: Call, status: str | None, script: str | None, limit: int) -> None:
    """List executions of scripts, the newest first: saved ones, and those of `muster exec`."""
    items, cursor = newest(call.client, api("automation", "executions"), limit, status=status, script=script)
    if call.json:
        call.show({"items": items, "next_cursor": cursor}, str)
        return
    Screen().table(_LIST, [_listed(item) for item in items])


def _listed(item: Mapping[str, Any]) -> list[Any]:
    script = item.get("script") or {}
    counts = [item.get("succeeded_count"), item.get("failed_count")]
    name = script.get("name") or f"({item.get('kind')})"
    rest = [item.get("requester"), item.get("created_at")]
    return [item.get("id"), name, script.get("version"), item.get("status"), *counts, *rest]


@click.command("results", short_help="Show what each node answered.")
@click.argument("execution", metavar="EXECUTION")
@click.option(
    "--fold/--no-fold",
    "folding",
    default=None,
    help="Tell outputs that are the same once; not with --json if not said.",
)
@calls_api
def results(call: Call, execution: str, folding: bool | None) -> None:
    """Show what became of a script on each node, and what it wrote there."""
    _shown(call, Screen(), execution, folding=folding, texts=True)


@click.command("retry", short_help="Run a script again where it failed.")
@click.argument("execution", metavar="EXECUTION")
@click.option("--reason", default="", help="Why, for the audit trail.")
@click.option("--follow/--no-follow", "following", default=True, help="Wait until it is over, and show it.")
@calls_api
def retry(call: Call, execution: str, reason: str, following: bool) -> int:
    """Run a script that is over again on the nodes where it did not succeed; what succeeded keeps its result."""
    answer = call.client.post(api("automation", "executions", execution, "retry"), {"reason": reason})
    if not following:
        call.show(answer, lambda one: f"execution={safe(execution)} status={safe(str(one.get('status')))}")
        return 0
    # Its stream begins with what the nodes said the time before.
    return _follow(call, execution, folding=None, is_live=False)
