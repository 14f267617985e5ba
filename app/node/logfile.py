"""What the runner says about itself: standard error, which is DIR/runner.log where the worker started it."""

from __future__ import annotations

import os
import sys
import time


def log(text: str) -> None:
    """Writes one line, with the time."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    try:
        sys.stderr.write(f"{now} runner {os.getpid()}: {text}\n")
        sys.stderr.flush()
    except OSError:
        # A full disk must not end the runner over a line of its log.
        pass


def log_fault() -> None:
    """Writes the exception that is being handled, with its stack, the interpreter's own way."""
    log("a fault of the runner's own:")
    sys.__excepthook__(*sys.exc_info())
