"""Which values a script may be given by shells that make more of them than data."""

from __future__ import annotations

import pytest

from app.errors import InvalidInput
from app.language import shell_values

FINE = ["", "web-1", "C:\\Temp\\a b.txt", "a@b.example", "1+1=2", "/var/www", "x_y, z"]
REFUSED = [
    '"',
    "'",
    "%PATH%",
    "!x!",
    "^",
    "a & b",
    "a | b",
    "a > b",
    "a < b",
    "(x)",
    "a\nb",
    "a\r\nb",
    "a\tb",
    "`a`",
    "$x",
    "a;b",
    "*",
    "?",
    "~",
    "#",
    "{a}",
    "[a]",
    "ä",
    "１",
    "\u00a0",
    "\0",
    "\ufdd0secret:a\ufdd1",
]


@pytest.mark.parametrize("value", FINE)
def test_what_cmd_may_be_given(value: str) -> None:
    shell_values.check("cmd", {"A": "x", "V": value})


@pytest.mark.parametrize("value", REFUSED)
def test_what_cmd_may_not_be_given(value: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        shell_values.check("cmd", {"A": "x", "V": value})
    assert refused.value.code == "cmd-value"
    assert "`V`" in refused.value.message
    for shell in ("bash", "sh", "ksh", "zsh", "dash", "python", "powershell", ""):
        shell_values.check(shell, {"V": value})


def test_names_that_are_one_to_powershell() -> None:
    with pytest.raises(InvalidInput) as refused:
        shell_values.check("powershell", {"Path": "a", "b": "c", "PATH": "d"})
    assert refused.value.code == "powershell-names"
    shell_values.check("powershell", {"Path": "a", "b": "c"})
    shell_values.check("bash", {"a": "1", "A": "2"})
