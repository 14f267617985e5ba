"""What the language has and the engine cannot run yet: the one list, by place and name.

The loader refuses these by name for workflows that are to be run; checking the grammar alone accepts them. A
line leaves this table in the change that makes the thing run.
"""

from __future__ import annotations

from typing import Final

NOT_YET: Final[dict[str, str]] = {
    "task.workspace": "`workspace`",
    "task.artifacts": "`artifacts`",
    "task.merge": "`merge`",
    "workflow.workspace": "`workspace`",
    "workflow.settings": "`settings`",
}
