"""What a job does on its node, as data: files to write into the job's own directory, and commands to run there.

A script is one file, the command that runs it by its shell, and the command that removes it. A program with its
arguments is no file and one command. There is no other plan: `read` is the door, and a node refuses what is anything
else. Paths are names in the job's own directory, which only the node knows. The first word of the command that runs a
file is the name of a shell, looked up on the node; the file is never executed by its path.

The exit code of a job is the one of the first command. The last one, `rm -f FILE`, is done by the node itself and
starts no process.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from app.transport.filenames import is_file_name

SCRIPT_MODE: Final = 0o700
CLEANUP_TIMEOUT: Final = 10.0
"""Seconds, for those who read a plan: to remove a file takes no time that could be limited."""

_SHELL_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_SUFFIXES: Final = {"powershell": ".ps1", "cmd": ".cmd"}
_LONGEST_DESCRIPTION = 200
_FILE_KEYS = frozenset({"path", "content", "mode"})
_COMMAND_KEYS = frozenset({"argv", "timeout", "ignore_errors", "description"})


class BadPlan(ValueError):
    """A deploy plan that no node carries out; the message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class File:
    """A file to write: `path` is its name in the job's directory, `mode` its permissions, of its owner only."""

    path: str
    content: str
    mode: int = SCRIPT_MODE

    def to_json(self) -> dict[str, Any]:
        return {"path": self.path, "content": self.content, "mode": self.mode}


@dataclass(frozen=True, slots=True)
class Command:
    """A command to run. `timeout` is in seconds, None for no limit; `description` is for people."""

    argv: tuple[str, ...]
    timeout: float | None = None
    ignore_errors: bool = False
    description: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            "argv": list(self.argv),
            "timeout": self.timeout,
            "ignore_errors": self.ignore_errors,
            "description": self.description,
        }


class Deployment(NamedTuple):
    """The files and the commands of one job."""

    files: tuple[File, ...]
    commands: tuple[Command, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "files": [file.to_json() for file in self.files],
            "commands": [command.to_json() for command in self.commands],
        }


def of_command(argv: Sequence[str], timeout: float | None = None) -> Deployment:
    """The plan that runs a program with its arguments, `timeout` in seconds."""
    return Deployment((), (Command(tuple(argv), timeout, description="run the command"),))


def of_script(shell: str, content: str, timeout: float | None = None) -> Deployment:
    """The plan that runs a script by a shell, `timeout` in seconds, and removes it afterwards."""
    path = f"script{_SUFFIXES.get(shell, '')}"
    run = Command((shell, path), timeout, description=f"run the script by {shell}")
    remove = Command(("rm", "-f", path), CLEANUP_TIMEOUT, True, "remove the script")
    return Deployment((File(path, content),), (run, remove))


def read(files: Any, commands: Any) -> Deployment:
    """The plan in plain JSON values. Raises BadPlan for anything that is not one of the two kinds."""
    if not isinstance(files, list | tuple) or not isinstance(commands, list | tuple):
        raise BadPlan("files and commands must be lists")
    if len(files) > 1 or not 1 <= len(commands) <= 1 + len(files):
        raise BadPlan(
            "a plan is one command, or one file with the command that runs it and one that removes it"
        )
    plan = Deployment(tuple(map(_file, files)), tuple(map(_command, commands)))
    _check_first(plan)
    for command in plan.commands[1:]:
        if command.argv != ("rm", "-f", plan.files[0].path) or not command.ignore_errors:
            raise BadPlan("what follows the first command may only remove the plan's file, errors ignored")
    return plan


def _check_first(plan: Deployment) -> None:
    first = plan.commands[0]
    if first.ignore_errors:
        raise BadPlan("errors of the first command are what the job's end is about: they are not ignored")
    if not plan.files:
        return
    if (
        len(first.argv) != 2
        or not _SHELL_NAME.fullmatch(first.argv[0])
        or first.argv[1] != plan.files[0].path
    ):
        raise BadPlan(
            "the first command must run the plan's file by the name of a shell, and say nothing else"
        )


def _file(data: Any) -> File:
    values = _table(data, _FILE_KEYS, "a file")
    path, content, mode = values["path"], values["content"], values["mode"]
    if not is_file_name(path):
        raise BadPlan(f"{str(path)[:80]!r} cannot be a file's path: it must be a plain name of its own")
    if not isinstance(content, str):
        raise BadPlan(f"the content of {path} must be text")
    if type(mode) is not int or mode & ~0o700 or not mode & 0o400:
        raise BadPlan(f"the mode of {path} must let its owner read it, and nobody else do anything")
    return File(path, content, mode)


def _command(data: Any) -> Command:
    values = _table(data, _COMMAND_KEYS, "a command")
    argv, timeout, described = values["argv"], values["timeout"], values["description"]
    if not isinstance(argv, list | tuple) or not argv or not argv[0]:
        raise BadPlan("argv must be a list that begins with a program")
    if not all(isinstance(word, str) and "\0" not in word for word in argv):
        raise BadPlan("argv must be texts without NUL")
    if timeout is not None and (type(timeout) not in (int, float) or not 0 < timeout < math.inf):
        raise BadPlan("a timeout must be a number of seconds over 0, or null")
    if type(values["ignore_errors"]) is not bool:
        raise BadPlan("ignore_errors must be true or false")
    if not isinstance(described, str) or len(described) > _LONGEST_DESCRIPTION:
        raise BadPlan(f"a description is text of {_LONGEST_DESCRIPTION} characters at the most")
    return Command(tuple(argv), timeout, values["ignore_errors"], described)


def _table(data: Any, keys: frozenset[str], what: str) -> Mapping[str, Any]:
    if not isinstance(data, dict) or data.keys() != keys:
        raise BadPlan(f"{what} of a plan must have {', '.join(sorted(keys))}, and nothing else")
    return data
