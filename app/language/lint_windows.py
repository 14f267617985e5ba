"""Lint of scripts of PowerShell and cmd, which know no capitals: where a parameter is no data to them."""

from __future__ import annotations

import re

from app.language.findings import Finding, Findings

_POWERSHELL = re.compile(
    r"""(?P<comment><\#.*?\#>|(?<![^\s;(){}|])\#[^\n]*)
    |(?P<single>@'[ \t]*\r?\n.*?\n'@|'(?:[^']|'')*')
    |(?P<escape>`.)
    |(?P<end>[\n;])
    |(?P<code>(?<![\w-])(?:invoke-expression|iex|invoke-command|icm|powershell(?:\.exe)?|pwsh(?:\.exe)?|cmd(?:\.exe)?)(?![\w-])
        |scriptblock\]\s*::\s*create\b)
    |(?P<call>(?<![^\s;({|])[&.][ \t]*(?=["$]))
    |\$(?:\{(?P<braced>[A-Za-z_][A-Za-z0-9_]*)\}|(?P<plain>[A-Za-z_][A-Za-z0-9_]*)(?![:\w]))""",
    re.DOTALL | re.IGNORECASE | re.VERBOSE | re.ASCII,
)
_IN_SINGLE = re.compile(r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*))", re.ASCII)
_CMD = re.compile(r"%%|%([A-Za-z_][A-Za-z0-9_]*)(?::[^%\n]*)?%|\$\{([A-Za-z_][A-Za-z0-9_]*)\}", re.ASCII)
_REMARK = re.compile(r"[ \t@]*(?:rem\b|::)", re.IGNORECASE)


def lint_powershell(text: str, shell: str, types: dict[str, str]) -> list[Finding]:
    """Findings of a PowerShell script: single quotes, text that is run, a value that is the command."""
    known = {name.lower() for name in types}
    found = Findings(text)
    runs_code = False
    called = -1
    for token in _POWERSHELL.finditer(text):
        kind = token.lastgroup
        if kind == "end":
            runs_code = False
        elif kind == "code":
            runs_code = True
        elif kind == "call":
            called = token.end()
        elif kind == "single":
            for inner in _IN_SINGLE.finditer(text, token.start(), token.end()):
                if (inner[1] or inner[2]).lower() in known:
                    found.add("lint-single-quotes", inner.start(), inner[0])
        elif kind in ("braced", "plain") and token[kind].lower() in known:
            if runs_code:
                found.add("lint-code", token.start(), token[0])
            elif called in (token.start(), token.start() - 1):
                found.add("lint-command", token.start(), token[0])
    return found.sorted()


def lint_cmd(text: str, shell: str, types: dict[str, str]) -> list[Finding]:
    """Findings of a cmd script: `%name%` is put in as text before a line is read, `${name}` is nothing to cmd."""
    known = {name.lower() for name in types}
    found = Findings(text)
    start = 0
    for line in text.splitlines(keepends=True):
        if not _REMARK.match(line):
            for token in _CMD.finditer(line):
                name = token[1] or token[2] or ""
                if name.lower() in known:
                    code = "lint-percent" if token[1] else "lint-not-read"
                    found.add(code, start + token.start(), token[0])
        start += len(line)
    return found.sorted()
