"""A PATH without certain programs, whatever this machine has: for nodes that are to lack a shell."""

from __future__ import annotations

import os
from pathlib import Path

KSH = frozenset({"ksh", "ksh93", "mksh"})


def path_without(programs: frozenset[str], directory: Path) -> str:
    """A PATH with a link, in the new `directory`, to everything on the PATH of this process but `programs`."""
    directory.mkdir()
    known = set(programs)
    for place in os.environ["PATH"].split(os.pathsep):
        for name in os.listdir(place) if os.path.isdir(place) else ():
            if name not in known:
                known.add(name)
                (directory / name).symlink_to(Path(place) / name)
    return str(directory)
