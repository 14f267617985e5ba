"""`muster exec`: one command on one node or on many, live."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from app.cli import sse
from app.cli.client import api
from app.cli.connection import Call, calls_api
from app.cli.files import MOST_BYTES, read_text
from app.cli.loading import load
from app.cli.plain import as_json, safe
from app.cli.watch import INTERRUPTED, exit_code_of, watch
from app.errors import InvalidInput

_STREAMS = ("stdout", "stderr")
_INTERPRETERS = {name: name for name in ("sh", "bash", "dash", "ksh", "zsh", "python")} | {
    "python3": "python",
    "pwsh": "powershell",
    "mksh": "ksh",
    "ksh93": "ksh",
}
_SHEBANG = r"#!\s*(?:\S*/env\s+(?:-S\s+)?)?(?:\S*/)?([A-Za-z0-9_.-]+)"
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
        "batch": batch_of(options["batch"]),
        "max_failures": options["max_failures"],
    }
    fleet = {name: value for name, value in fleet.items() if value is not None}
    if len(nodes) == 1 and labels is None and not fleet:
        return _on_one(call, nodes[0], body)
    if bool(nodes) == (labels is not None):
        raise InvalidInput("name nodes, or choose them by --labels; one of both", hint=_USAGE)
    where = {"nodes": list(nodes), "allow_unknown": True} if nodes else {"labels": _labels(labels or "")}
    on_many: Callable[..., int] = load("app.cli.spread:on_many")
    return on_many(
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
    found = re.match(_SHEBANG, first)
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


def batch_of(text: str | None) -> list[int | str] | None:
    """The sizes of batches, as `1,10%`."""
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
    ends = dict.fromkeys(_STREAMS, 0)
    gaps: list[int] = []

    def take(message: sse.Message) -> None:
        data = json.loads(message.data)
        if message.event == "result":
            result.update(data)
        elif message.event in _STREAMS and not call.json:
            text, offset = str(data.get("text")), int(data.get("offset") or 0)
            if offset > ends[message.event]:
                # What is live is bounded: who reads slowly may find the next piece gone.
                gaps.append(offset)
            ends[message.event] = offset + len(text.encode())
            click.echo(_plain(text), nl=False, err=message.event == "stderr")

    path = api("nodes", node, "execute", execution)
    was_cancelled = watch(call.client, execution, (path, {}), take, opened)
    if gaps:
        result["truncated"] = True
    if call.json:
        result.pop("seq", None)
        click.echo(as_json(result))
    elif result.get("status") != "succeeded" or result.get("truncated") or sys.stderr.isatty():
        click.echo(_ending(node, result), err=True)
    return (
        INTERRUPTED if was_cancelled else exit_code_of([result], failed=result.get("status") != "succeeded")
    )


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
