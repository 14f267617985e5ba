"""The command of `muster.pyz`: what of `muster` needs neither a server nor a package, by the standard library alone."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Sequence

from app.cli.failures import exit_code, render
from app.cli.loading import load
from app.errors import MusterError


def main(version: str, arguments: Sequence[str] | None = None) -> int:
    """Run one verb; its exit code, as that of `muster`."""
    asked = _parser(version).parse_args(arguments)
    try:
        return int(asked.verb(asked))
    except MusterError as error:
        sys.stderr.write(render(error, as_json=asked.json) + "\n")
        return exit_code(error)
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        if error.errno != errno.EPIPE:
            raise
        # Whoever read our output has left (`| head`): nothing may be written at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _parser(version: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="muster.pyz", description="Muster workflows on this machine, without a server."
    )
    parser.add_argument("--version", action="version", version=f"muster {version}")
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    run = verbs.add_parser("run", help="run a workflow file, or a part of it, in this process")
    run.add_argument("file", metavar="FILE", help="the workflow; `-` is stdin")
    run.add_argument("--entry-point", default="", metavar="TASK", help="begin with this task")
    run.add_argument("--exit-point", default="", metavar="TASK", help="stop before this task")
    run.add_argument("--input", default="", metavar="IN.json", help="the state that it begins with")
    run.add_argument(
        "--output", default="", metavar="OUT.json", help="where to write the state that it leaves"
    )
    run.add_argument(
        "-p", action="append", default=[], metavar="NAME=VALUE", help="a parameter; may be repeated"
    )
    run.add_argument("--parameters", metavar="FILE.json", help="parameters as a JSON object; `-` is stdin")
    run.add_argument(
        "--timeout", type=float, metavar="SECONDS", help="end it after so many seconds (exit code 124)"
    )
    run.add_argument(
        "--actions", default="", metavar="FILE.json", help="the actions of packs that there are, as JSON"
    )
    run.add_argument("--no-follow", action="store_true", help="show nothing until it is over")
    run.set_defaults(verb=_run)
    validate = verbs.add_parser("validate", help="check workflow files")
    validate.add_argument("files", nargs="+", metavar="FILE", help="a workflow; `-` is stdin")
    validate.add_argument(
        "--format", choices=("text", "json", "github"), default="text", help="how problems are told"
    )
    validate.set_defaults(verb=_validate)
    for verb in (run, validate):
        verb.add_argument(
            "--packs", action="append", default=[], metavar="DIR", help="a folder of packs; may be repeated"
        )
        verb.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _run(asked: argparse.Namespace) -> int:
    part = load("app.cli.part_run:Asked")(
        asked.file,
        entry=asked.entry_point,
        exit=asked.exit_point,
        given=asked.input,
        left=asked.output,
        parameters=load("app.cli.given:read_parameters")(asked.p, asked.parameters),
        folders=asked.packs,
        actions=asked.actions,
        timeout=asked.timeout,
        following=not asked.no_follow,
        json=asked.json,
    )
    return int(load("app.cli.part_run:run_part")(part))


def _validate(asked: argparse.Namespace) -> int:
    return int(
        load("app.cli.validating:check")(asked.files, "json" if asked.json else asked.format, asked.packs)
    )
