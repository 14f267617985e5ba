"""The `muster` command.

Exit codes: 0 ok, 1 failed, 2 usage or validation, 3 not allowed, 4 not found, 5 conflict, 124 timeout,
130 stopped by Ctrl-C.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence

import click

from app.cli.failures import exit_code, render
from app.cli.lazy import LazyGroup
from app.errors import MusterError

COMMANDS = {
    "up": ("app.cli.up:up", "Run a whole fleet on this machine."),
    "setup": ("app.cli.setup:setup", "Make what an installation needs before its processes start."),
    "demo": ("app.cli.up:demo", "Start a fleet of three nodes, run a workflow across it, stop it."),
    "validate": ("app.cli.offline:validate", "Check workflow files; nothing is sent anywhere."),
    "compile": ("app.cli.compiling:compile_", "Print the Celery canvas that a workflow becomes."),
    "graph": ("app.cli.graph:graph", "Draw the graph of a file, a stored workflow or an execution."),
    "schema": ("app.cli.offline:schema", "Print the JSON Schema of workflow files, for editors."),
    "test": ("app.cli.testing:test", "Run the tests of workflows; no server, no nodes."),
    "pyz": ("app.cli.pyz:pyz", "Build muster.pyz, which runs workflows where Muster is not installed."),
    "exec": ("app.cli.remote:exec_", "Run one command on nodes, live."),
    "run": ("app.cli.run:run", "Execute a workflow file or a stored workflow and follow it."),
    "script": ("app.cli.script:script", "Save scripts, and run them on many nodes."),
    "workflow": ("app.cli.workflow:workflow", "Store, show and execute workflows."),
    "pack": ("app.cli.pack:pack", "Check, register, configure and delete packs."),
    "execution": ("app.cli.execution:execution", "Look at executions, follow, cancel and resolve them."),
    "approval": ("app.cli.approval:approval", "Decide what executions wait for."),
    "notification": ("app.cli.notification:notification", "See what people outside were told."),
    "schedule": ("app.cli.schedule:schedule", "What starts by itself, and when."),
    "kv": ("app.cli.kv:kv", "Values under keys, for workflows to read."),
    "secret": ("app.cli.secret:secret", "Values that jobs get and nobody reads back."),
    "node": ("app.cli.node:node", "Enrol nodes, list, drain and remove them."),
    "allowlist": ("app.cli.allowlist:allowlist", "Check what may be run on the spot, and try commands."),
    "user": ("app.cli.user:user", "Add people, and say what each may."),
    "token": ("app.cli.token:token", "Create, list and revoke the tokens of people."),
    "audit": ("app.cli.audit:audit", "Look at the audit trail, verify and export it."),
    "prune": ("app.cli.prune:prune", "Delete what is no longer to be kept."),
    "doctor": ("app.cli.doctor:doctor", "Check this machine and the server, and say what to do next."),
}


_FULL = (errno.ENOSPC, errno.EDQUOT)


@click.group(
    cls=LazyGroup,
    lazy=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="MUSTER_URL and MUSTER_TOKEN say which server to talk to; `muster up` writes both.",
)
@click.version_option(package_name="muster", message="muster %(version)s")
def cli() -> None:
    """Muster: YAML workflows, compiled to Celery canvases, run on your machines."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; its exit code. Errors for people go to stderr as message and hint."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = cli.main(args=given, prog_name="muster", standalone_mode=False)
        if sys.stdout is not None:  # it was closed by whoever started us (`>&-`)
            sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except MusterError as error:
        ours = given[: given.index("--")] if "--" in given else given
        click.echo(render(error, as_json="--json" in ours), err=True)
        return exit_code(error)
    except (click.Abort, KeyboardInterrupt):
        return 130
    except OSError as error:
        if error.errno not in (errno.EPIPE, *_FULL):
            raise
        # Whoever read our output has left (`| head`), or a disk is full: nothing may be written at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno in _FULL:
            click.echo(f"error: the output cannot be written: {error.strerror}", err=True)
        return 1
    return code if isinstance(code, int) else 0


if __name__ == "__main__":
    sys.exit(main())
