"""The forms of names, and the limits of numbers, that the language knows."""

from __future__ import annotations

from typing import Final

REF: Final = r"^[a-z][a-z0-9_-]{0,63}\.[a-z][a-z0-9_-]{0,63}$(?!\n)"
REF_RULE: Final = "`pack.name`: lower-case letters, digits, `_` and `-`, one dot"
TASK: Final = r"^[a-z][a-z0-9_]{0,63}$(?!\n)"
TASK_RULE: Final = "lower-case letters, digits and `_`, starting with a letter, 64 at the most"
VARIABLE: Final = r"^[A-Za-z][A-Za-z0-9_]{0,63}$(?!\n)"
VARIABLE_RULE: Final = "letters, digits and `_`, starting with a letter, 64 at the most"
NODE: Final = r"^[a-z0-9][a-z0-9-]{0,62}$(?!\n)"
NODE_RULE: Final = "a node's name has lower-case letters, digits and `-`; choose many with {labels: {…}}"
ADDRESS: Final = r"^(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]{1,253}):[0-9]{1,5}$(?!\n)"
ADDRESS_RULE: Final = "`host:port`, as the node advertises it"
LABEL: Final = r"^[A-Za-z0-9][A-Za-z0-9_./-]{0,62}$(?!\n)"
LABEL_RULE: Final = "letters, digits, `_`, `.`, `/` and `-`, 63 at the most"
ENVIRONMENT: Final = r"^(?!MUSTER_)[A-Za-z_][A-Za-z0-9_]{0,127}$(?!\n)"
ENVIRONMENT_RULE: Final = "letters, digits and `_`, not starting with a digit; MUSTER_ is reserved"
KEY: Final = r"^[A-Za-z0-9_][A-Za-z0-9_.\-/]{0,254}$(?!\n)"
KEY_RULE: Final = "letters, digits, `_`, `.`, `-` and `/`, not starting with a sign, 255 at the most"
GLOB: Final = r"^(?!/)(?!(?:.*/)?\.\.(?:/|$))[^\x00-\x1f\x7f\\]+$(?!\n)"
GLOB_RULE: Final = "a pattern of paths inside the workspace, such as `src/**/*.py`: relative, without `..`"
PERCENT: Final = r"^([1-9][0-9]?|100)%$(?!\n)"

DAYS_30: Final = 30 * 24 * 3600
MOST_TARGETS: Final = 2000
MOST_RETRIES: Final = 1_000_000
MOST_CHILDREN: Final = 500
MOST_NODES: Final = 10_000
MOST_OUTPUT: Final = 64 * 1024 * 1024
MOST_GLOBS: Final = 100
MOST_GLOB_CHARACTERS: Final = 300

SHELLS: Final = ("bash", "sh", "ksh", "zsh", "powershell", "cmd")
DEFAULT_SHELL: Final = "sh"

TRANSITIONS: Final = ("on_success", "on_failure", "on_complete", "on_timeout", "on_skip")
INLINE_REF: Final = "inline.workflow"
