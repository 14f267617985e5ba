"""`muster exec`: one command on one node or on many, live."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from app.cli import fold, sse
from app.cli.client import Client, Stream, api
from app.cli.connection import Call, calls_api
from app.cli.failures import TIMED_OUT, ApiProblem
from app.cli.files import MOST_BYTES, read_text
from app.cli.follow import Printer
from app.cli.plain import as_json, safe, seconds
from app.cli.terminal import Screen
from app.errors import InvalidInput

_COLUMNS = ("node", "status", "exit code", "duration")
_INTERPRETERS = {name: name for name in ("sh", "bash", "dash", "ksh", "zsh", "python")} | {
    "python3": "python"
}
_SHEBANG = re.compile(r"#!\s*(?:\S*/env\s+(?:-S\s+)?)?(?:\S*/)?([A-Za-z0-9_.-]+)")
_PAGE = 200
_INTERRUPTED = 130
_USAGE = "muster exec web-1 web-2 -- uptime"


class _WithCommand(click.Command):
    """What stands behind `--` is the command, whatever it looks like."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        at = args.index("--") if "--" in args else len(args)
        ctx.meta["muster.command"] = args[at + 1 :]
        return super().parse_args(ctx, args[:at])


@click.command("exec", cls=_WithCommand, short_help="Run one command on nodes, live.")
@click.argument("nodes", nargs=-1, metavar="[NODE]... [-- COMMAND...]")
@click.option("--labels", metavar="K=V,…", help="The nodes that carry all these labels, instead of names.")
@click.option(
    "--script", "file", metavar="FILE", help="Run this file's text instead of a command; `-` is stdin."
)
@click.option("--shell", help="What runs the script, or the command as one line of text.")
@click.option("--stdin", "given", metavar="FILE", help="What the process reads; `-` is our own stdin.")
@click.option("--cwd", metavar="DIR", help="The directory on the node to run in.")
@click.option("--timeout", type=float, metavar="SECONDS", help="How long it may take on each node; 300.")
@click.option("--batch", metavar="N,N%,…", help="How many nodes at once; the last entry repeats.")
@click.option("--max-failures", type=click.IntRange(0), help="Failed nodes that are put up with; 0.")
@click.option(
    "--fold/--no-fold", "folding", default=True, help="Say at the end which nodes answered the same."
)
@click.option("--diff", "diffing", is_flag=True, help="Show how the others differ from most.")
@calls_api
def exec_(call: Call, nodes: Sequence[str], labels: str | None, **options: Any) -> int:
    """Run a command on one node or on many, and show its output live. Everything behind `--` is the command.

    On one node its output is passed on as it is, stdout and stderr apart; on many each line stands behind its
    node's name. Ctrl-C asks the server to cancel; a second one leaves. Exits with 0 if it succeeded (on many:
    with at most --max-failures failures), with 124 if nothing but time was the matter, otherwise with 1; the
    command's own exit codes are in the table.
    """
    body = _body(click.get_current_context().meta["muster.command"], options)
    fleet = {
        "batch": _batch(options["batch"]),
        "max_failures": options["max_failures"],
    }
    fleet = {name: value for name, value in fleet.items() if value is not None}
    if len(nodes) == 1 and labels is None and not fleet:
        return _on_one(call, nodes[0], body)
    if bool(nodes) == (labels is not None):
        raise InvalidInput("name nodes, or choose them by --labels; one of both", hint=_USAGE)
    where = {"nodes": list(nodes), "allow_unknown": True} if nodes else {"labels": _labels(labels or "")}
    return _on_many(
        call, {**body, **fleet, **where}, options["folding"] or options["diffing"], options["diffing"]
    )


# what is asked for


def _body(words: Sequence[str], options: Mapping[str, Any]) -> dict[str, Any]:
    file, shell = options["file"], options["shell"]
    if bool(words) == (file is not None):
        both = "a command and --script are two things to run" if words else "there is nothing to run"
        raise InvalidInput(both, hint=f"put the command behind `--`, or give --script FILE: {_USAGE}")
    if file == "-" and options["given"] == "-":
        raise InvalidInput(
            "standard input cannot be both the script and what it reads", hint="save one in a file"
        )
    if file is not None:
        script = _text(file)
        body: dict[str, Any] = {"script": script, "language": shell or _language(script, file)}
    elif shell is not None:
        body = {"command": " ".join(words), "language": shell}
    else:
        body = {"command": list(words)}
    more = {
        "timeout": options["timeout"],
        "cwd": options["cwd"],
        "stdin": None if options["given"] is None else _text(options["given"]),
    }
    body.update({name: value for name, value in more.items() if value is not None})
    return body


def _text(file: str) -> str:
    raw = read_text(file)
    if len(raw) >= MOST_BYTES:
        raise InvalidInput(f"{file} is too large", hint=f"keep it below {MOST_BYTES >> 10} kB")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{file} is not UTF-8 at byte {error.start}", hint="save it as UTF-8") from None


def _language(script: str, file: str) -> str:
    """The shell that the script's first line names; sh where it names none."""
    first = script.partition("\n")[0]
    found = _SHEBANG.match(first)
    if found is None:
        return "sh"
    if found[1] not in _INTERPRETERS:
        raise InvalidInput(
            f"{file} wants to be run by {safe(found[1])}", hint="say by which shell: --shell bash"
        )
    return _INTERPRETERS[found[1]]


def _labels(text: str) -> dict[str, str]:
    found = {}
    for pair in text.split(","):
        name, equals, value = pair.partition("=")
        if not equals or not name or name in found:
            raise InvalidInput(
                f"--labels {text!r} is not K=V,K=V", hint="for example --labels role=web,site=north"
            )
        found[name] = value
    return found


def _batch(text: str | None) -> list[int | str] | None:
    if text is None:
        return None
    return [
        int(step) if step.isdecimal() and step.isascii() and len(step) < 10 else step
        for step in text.split(",")
    ]


# one node


def _on_one(call: Call, node: str, body: Mapping[str, Any]) -> int:
    result: dict[str, Any] = {}
    headers = {"Accept": "text/event-stream, application/problem+json"}
    opened = call.client.open_once(api("nodes", node, "execute"), {**body, "stream_output": True}, headers)
    execution = opened.location.rpartition("/")[2]

    def take(message: sse.Message) -> None:
        data = json.loads(message.data)
        if message.event == "result":
            result.update(data)
        elif message.event in fold.STREAMS and not call.json:
            click.echo(_plain(str(data.get("text"))), nl=False, err=message.event == "stderr")

    path = api("nodes", node, "execute", execution)
    was_cancelled = _watch(call.client, execution, (path, {}), take, opened)
    if call.json:
        result.pop("seq", None)
        click.echo(as_json(result))
    elif result.get("status") != "succeeded" or sys.stderr.isatty():
        click.echo(_ending(node, result), err=True)
    return _INTERRUPTED if was_cancelled else _code([result], failed=result.get("status") != "succeeded")


def _plain(text: str) -> str:
    return safe(text.replace("\r\n", "\n"), keep="\n")


def _ending(node: str, result: Mapping[str, Any]) -> str:
    error = result.get("error")
    code = result.get("exit_code")
    told = [f"{safe(node)}: {safe(str(result.get('status')))}"]
    if code is not None:
        told.append(f"exit code {code}")
    elif isinstance(error, dict):
        told.append(safe(str(error.get("message"))))
    if isinstance(error, dict) and error.get("type") == "not_found":
        told.append("for a line of a shell say --shell sh")
    if result.get("truncated"):
        told.append(f"output cut: muster execution output {safe(str(result.get('execution')))}")
    return ", ".join(told)


# many nodes


def _on_many(call: Call, body: Mapping[str, Any], folding: bool, diffing: bool) -> int:
    execution = str(call.client.post_once(api("nodes", "execute"), body)["id"])
    screen = Screen()
    printer = Printer(screen, is_told=False)
    state: dict[str, Any] = {}

    def take(message: sse.Message) -> None:
        if message.event == "end":
            state.update(json.loads(message.data))
        if not call.json:
            printer.take(message)

    place = (api("workflow-executions", execution, "events"), {} if call.json else {"output": 1})
    was_cancelled = _watch(call.client, execution, place, take, None)
    units = call.client.items(api("workflow-executions", execution, "tasks"))
    found = fold.groups(units, _digests(call.client, execution)) if folding else []
    if call.json:
        click.echo(
            as_json(
                {"execution": execution, **state, "nodes": units, "groups": [one.to_json() for one in found]}
            )
        )
    else:
        _table(screen, units)
        _folded(screen, found, diffing)
    return _INTERRUPTED if was_cancelled else _code(units, failed=state.get("status") != "completed")


def _digests(client: Client, execution: str) -> list[dict[str, Any]]:
    """What every job's output sums up to, without the texts."""
    found: list[dict[str, Any]] = []
    cursor = None
    while True:
        path = api("workflow-executions", execution, "output")
        page = client.get(path, text=0, limit=_PAGE, cursor=cursor)
        found += page.get("items") or ()
        cursor = page.get("next_cursor")
        if not cursor:
            return found


def _table(screen: Screen, units: Sequence[Mapping[str, Any]]) -> None:
    rows = [
        [unit.get("node"), unit.get("status"), unit.get("exit_code"), seconds(unit.get("duration"))]
        for unit in units
    ]
    screen.line("")
    screen.table(_COLUMNS, rows)
    for unit in units:
        error = unit.get("error")
        if isinstance(error, dict) and error.get("type") not in (None, "exit"):
            screen.line(f"{safe(str(unit.get('node')))}: {safe(str(error.get('message')))}")


def _folded(screen: Screen, found: list[fold.Group], diffing: bool) -> None:
    screen.line("")
    for line in fold.summary(found):
        screen.line(line)
    for line in fold.differences(found) if diffing else ():
        colour = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1])
        screen.line(screen.paint(line, fg=colour) if colour else line)


# both


def _watch(
    client: Client,
    execution: str,
    place: tuple[str, Mapping[str, Any]],
    take: Callable[[sse.Message], None],
    opened: Stream | None,
) -> bool:
    """Hands every message of the stream at `place` (path and query) on until its end.

    Ctrl-C asks the server to cancel, and the stream goes on to its end; True says that. A second one is raised.
    """
    last = ""
    was_cancelled = False
    while True:
        try:
            for message in sse.follow(client, *place, last, sse.Limits(), opened):
                last = message.id
                take(message)
            return was_cancelled
        except KeyboardInterrupt:
            if was_cancelled:
                raise
            was_cancelled, opened = True, None
            click.echo(f"asking the server to cancel {safe(execution)}; Ctrl-C again leaves it", err=True)
            _cancel(client, execution)


def _cancel(client: Client, execution: str) -> None:
    try:
        client.post(api("workflow-executions", execution, "cancel"), {"reason": "Ctrl-C"})
    except ApiProblem as error:
        if error.status != 409:  # it came to its end in the meantime
            raise


def _code(units: Sequence[Mapping[str, Any]], *, failed: bool) -> int:
    """0 where it succeeded somewhere and is no failure, 124 where nothing but time was the matter, else 1."""
    statuses = [unit.get("status") for unit in units]
    if not failed and "succeeded" in statuses:
        return 0
    wrong = [status for status in statuses if status not in ("succeeded", "skipped")]
    return TIMED_OUT if wrong and set(wrong) == {"timed_out"} else 1
