"""How much one tree of files may be: what comes from outside is held to it while it is read, not afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

FEWER_FILES: Final = "leave some out with `exclude`, or raise MUSTER_WORKSPACE_FILES"
FEWER_BYTES: Final = "leave some out with `exclude`, or raise MUSTER_WORKSPACE_BYTES"
"""What to do about a tree that is too much."""


@dataclass(frozen=True, slots=True)
class Limits:
    """`files` counts files and empty directories together; `bytes` is the sum of the sizes of all files.

    `depth` is the number of names in a path, `path_bytes` and `name_bytes` are bytes of UTF-8. `ratio` is how many
    times larger than its compressed form a bundle may become (see `app.files.bundles`).
    """

    files: int = 20_000
    bytes: int = 536_870_912
    depth: int = 32
    path_bytes: int = 1024
    name_bytes: int = 255
    ratio: int = 200

    @property
    def document_bytes(self) -> int:
        """The largest document that can tell of so many files: their paths, and what stands beside each."""
        return 1024 + self.files * (2 * self.path_bytes + 128)


DEFAULT = Limits()
