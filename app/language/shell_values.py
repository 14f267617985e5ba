"""What the values may be that a script is given, where its shell makes more of them than data.

The shells of Unix take any text from the environment. A script of `cmd` reads a value as `!name!` (delayed expansion),
which is not read again; but where it writes `%name%` the value is pasted into its text, quotes and all. So nothing
that means something to cmd is let through. PowerShell does not tell `${Name}` from `${name}`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from app.errors import InvalidInput

_HARMLESS_TO_CMD: Final = re.compile(r"[A-Za-z0-9 _.,:/\\@+=-]*")


def is_harmless_to_cmd(value: str) -> bool:
    """Whether a value consists of letters and digits of ASCII, blanks and `_ . , : / \\ @ + = -`."""
    return bool(_HARMLESS_TO_CMD.fullmatch(value))


def check(shell: str, values: Mapping[str, str]) -> None:
    """Raises InvalidInput where a script of `shell` must not be given these values, by the names of their variables.

    Its code is "cmd-value" or "powershell-names". No value is in the message.
    """
    if shell == "cmd":
        for name, value in values.items():
            if not is_harmless_to_cmd(value):
                raise InvalidInput(
                    f"the value of `{name}` holds a character that cmd could read as more than data",
                    hint="cmd is given letters, digits, blanks and `_ . , : / \\ @ + = -` only",
                    code="cmd-value",
                )
    elif shell == "powershell":
        seen: dict[str, str] = {}
        for name in values:
            other = seen.setdefault(name.lower(), name)
            if other != name:
                raise InvalidInput(
                    f"`{other}` and `{name}` are one variable to PowerShell",
                    hint="rename one of them: it does not tell large letters from small ones",
                    code="powershell-names",
                )
