"""What PowerShell is told before a script: values of the environment under the names that the script writes.

In PowerShell `${name}` is a variable of its own and not the environment's. So a script is run by a second file, the
prelude, which sets one variable for each value and then runs the script in its own scope: the script itself stays as
it was written. A value is read from the environment at that moment and is nowhere in the prelude.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

_OWN: Final = """
_ args confirmpreference consolefilename debugpreference enabledexperimentalfeatures error
erroractionpreference errorview event eventargs eventsubscriber executioncontext false foreach
formatenumerationlimit home host informationpreference input iscoreclr islinux ismacos iswindows lastexitcode
matches maximumhistorycount myinvocation nestedpromptlevel null ofs outputencoding pid profile
progresspreference psboundparameters pscmdlet pscommandpath psculture psdefaultparametervalues psdebugcontext
psedition psemailserver pshome psitem psmoduleautoloadingpreference psnativecommandargumentpassing
psnativecommanduseerroractionpreference psscriptroot pssenderinfo pssessionapplicationname
pssessionconfigurationname pssessionoption psstyle psuiculture psversiontable pwd sender shellid stacktrace
switch this transcript true verbosepreference warningpreference whatifpreference
"""
AUTOMATIC: Final = frozenset(_OWN.split())
"""Variables that are PowerShell's own, in lower case: it does not tell large letters from small ones."""

PRELUDE: Final = "prelude.ps1"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")


def prelude(script: str, names: Iterable[str]) -> str:
    """The text that sets `${name}` for each of `names` and runs the file `script` beside it, with its exit code.

    Names that are PowerShell's own, or that no script could write as `${name}`, are left alone: their values are in
    `$env:` as all are.
    """
    settable = [name for name in names if _NAME.fullmatch(name) and name.lower() not in AUTOMATIC]
    lines = [f"${{{name}}} = [string][Environment]::GetEnvironmentVariable('{name}')" for name in settable]
    return "\n".join(
        [
            *lines,
            "$global:LASTEXITCODE = 0",
            f". (Join-Path $PSScriptRoot '{script}')",
            # `exit N` in the script ends only the script, and comes here as a failure with that code.
            "if (-not $?) { exit $global:LASTEXITCODE }",
            "",
        ]
    )
