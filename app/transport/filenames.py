"""What the files of a deploy plan may be called: plain names in the directory of their job, and never one of its own.

Apart from `deploy` because the runner loads as little as it can.
"""

from __future__ import annotations

import re
from typing import Final

_FILE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}(?:\.[a-z0-9]{1,8})?")
OWN_NAMES: Final = frozenset(
    {"record", "cancel", "input.json", "output.json", "stdin", "stdout", "stderr", "work", "prelude.ps1"}
)
"""What a node keeps in a job's directory itself."""


def is_file_name(text: object) -> bool:
    """May the text be the name of a plan's file?"""
    return isinstance(text, str) and bool(_FILE_NAME.fullmatch(text)) and text not in OWN_NAMES
