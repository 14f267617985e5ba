"""Outlives a supervisor that was killed: ends the node runners, removes what that supervisor would have.

    python -m app.cli.watchdog NODES [DIRECTORY…]

Reads its standard input, a pipe that the supervisor alone holds. `done` means that all is in order; the
end of the pipe without it means that the supervisor is gone, whose own children the kernel then ends.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from app.cli import runners

_LATE = 1.0
"""Seconds in which a worker that was just dying may still have started a runner."""


def main(arguments: Sequence[str]) -> int:
    """Waits for the end of the pipe; always 0."""
    # A terminal that closes hangs up on everybody; who cleans up after that must not go first.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    nodes, *directories = (Path(argument) for argument in arguments)
    said = b""
    while chunk := os.read(0, 64):
        said += chunk
    if said == b"done":
        return 0
    runners.end_all(nodes)
    time.sleep(_LATE)
    runners.end_all(nodes)
    for directory in directories:
        shutil.rmtree(directory, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
