"""The tables of a pack: every key of pack.yaml, config.yaml and an action's metadata."""

from __future__ import annotations

import re
from typing import Any, Final

from app import powershell
from app.language import grammar, names
from app.language.fields import Choice, Flag, Key, ListOf, Number, Schema, Table, Text
from app.language.grammar import Later
from app.language.json_schema import ObjectSchema

PACK_NAME: Final = r"^[a-z][a-z0-9_-]{0,63}$(?!\n)"
_PACK_RULE: Final = "lower-case letters, digits, `_` and `-`, starting with a letter"
CORE: Final = "core"
"""The pack of what Muster itself runs: it can be read, and not registered."""

WORKFLOW: Final = "workflow"
"""The runner of an action that is another name for a workflow."""

RUNNERS: Final = (*names.SHELLS, "python", WORKFLOW, CORE)

_LABEL: Final = Key("label", Text(prose=True, most=200), "A short name for people.")
_DESCRIPTION: Final = Key("description", Text(prose=True, most=20_000, null=True), "For people.")
_SECONDS: Final = Number(0, names.DAYS_30, above=True, templates=False, seconds=True)

PACK: Final = Table(
    "pack.yaml",
    [
        Key(
            "ref",
            Text(PACK_NAME, _PACK_RULE, code="bad-ref"),
            "The pack's name, which the names of its actions begin with.",
            required=True,
        ),
        _LABEL,
        _DESCRIPTION,
        Key("version", Text(most=50, least=1), "The version, a text."),
        Key("author", Text(prose=True, most=200), "Who to ask."),
        Key("tags", ListOf(Text(most=100, least=1), most=100), "Words to find it by."),
    ],
    {"name": "write `ref`, and `label` for people", "keywords": "did you mean `tags`?"},
)

SETTING: Final = Table(
    "a key of the configuration",
    [*grammar.PARAMETER.keys, Key("secret", Flag(), "It is never shown.")],
    grammar.PARAMETER.elsewhere,
)

ACTION: Final = Table(
    "an action",
    [
        Key("name", Text(PACK_NAME, _PACK_RULE, code="bad-name"), "Its name; that of the file if not given."),
        _LABEL,
        _DESCRIPTION,
        Key("runner", Choice(RUNNERS), "What runs it: a shell, python, or workflow.", required=True),
        Key(
            "entry",
            Text(least=1, most=200),
            "The script, as a path from actions/; with the runner workflow the name of the workflow.",
        ),
        Key("parameters", Later("parameters"), "What a task gives as its input."),
        Key("output", ObjectSchema(), "JSON Schema of what the script writes to MUSTER_OUTPUT."),
        Key("timeout", _SECONDS, "Seconds that an attempt may take, unless the task says otherwise."),
        Key(
            "idempotent",
            Flag(),
            "It may be started again if its node was lost, unless the task says otherwise.",
        ),
        Key(
            "ok_codes",
            ListOf(Number(0, 255, whole=True, templates=False), least=1, most=256),
            "Exit codes that count as success; 0 if not given.",
        ),
    ],
    {
        "ref": "write `name`: the pack's name comes before it",
        "runner_type": "did you mean `runner`?",
        "entry_point": "did you mean `entry`?",
        "params": "did you mean `parameters`?",
        "inputs": "did you mean `parameters`?",
        "outputs": "did you mean `output`?",
        "env": "parameters reach the script as environment variables",
        "retry": "`retry` belongs to the task",
    },
)

_OURS: Final = frozenset(
    name
    for names_ in (
        "PATH HOME USER LOGNAME SHELL LANG TZ TZDIR TMPDIR TERM IFS ENV PWD OLDPWD UID EUID GID EGID PPID GROUPS",
        "BASH BASHOPTS SHELLOPTS CDPATH FPATH ZDOTDIR GLOBIGNORE EXECIGNORE POSIXLY_CORRECT PROMPT_COMMAND",
        "RANDOM SECONDS LINENO OPTIND OPTARG OPTERR REPLY PIPESTATUS FUNCNAME DIRSTACK PS1 PS2 PS3 PS4",
        "HISTFILE MAIL MAILPATH HOSTNAME OSTYPE MACHTYPE HOSTTYPE NULLCMD READNULLCMD HOSTALIASES GCONV_PATH",
        "NLSPATH LOCPATH",
    )
    for name in names_.split()
)
_BEGINNINGS: Final = re.compile(
    r"(MUSTER|LD|LC|DYLD|BASH|PYTHON|PERL|RUBY|NODE|JAVA|GIT|SSH|MALLOC|GLIBC)_|PYTHON"
)
_OF_ZSH: Final = frozenset(
    {"path", "fpath", "cdpath", "manpath", "mailpath", "argv", "status", "pipestatus", "signals"}
)


def is_reserved(name: str, runner: str) -> bool:
    """Whether a variable of this name means something to the system, the shell or the loader of a script."""
    if name in _OURS or _BEGINNINGS.match(name):
        return True
    own = {"zsh": name in _OF_ZSH, "powershell": name.lower() in powershell.AUTOMATIC}
    return own.get(runner, False)


def schemas() -> dict[str, Schema]:
    """The JSON Schemas of the three files, by what they are about."""
    made = {"pack": PACK.schema(), "config": _by_name(SETTING), "action": ACTION.schema()}
    made["action"]["properties"]["parameters"] |= _by_name(grammar.PARAMETER)
    titles = {"pack": "pack.yaml", "config": "config.yaml", "action": "Action of a pack"}
    return {
        name: {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": f"Muster {titles[name]}",
            **schema,
        }
        for name, schema in made.items()
    }


def _by_name(table: Table) -> Schema:
    one: dict[str, Any] = table.schema()
    one["properties"]["enum"] |= {"type": "array", "minItems": 1}
    return {"type": "object", "propertyNames": {"pattern": names.VARIABLE}, "additionalProperties": one}
