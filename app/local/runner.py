"""A runner of this process' own, in a private directory. It ends with this process, whatever that dies of, and no
script outlives it.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

from app.compiler.plan import LOCAL
from app.errors import Unavailable
from app.node import orphans, runner_start
from app.node.runner_client import RunnerClient

log = logging.getLogger(__name__)

STOP_WITHIN = 20.0
"""Seconds that it has to end: longer than the grace of a script."""


class OwnRunner:
    """Starts at once. `client` asks it; `on_gone` is called, on another thread, where it dies too early.

    Raises Unavailable where it does not come up.
    """

    def __init__(
        self,
        on_output: Callable[[str], None],
        on_exited: Callable[[str], None],
        on_gone: Callable[[], None],
    ) -> None:
        self._directory = tempfile.mkdtemp(prefix="muster-run-")
        self._closing = self._died = False
        self._on_gone = on_gone
        try:
            self._process = self._spawn()
        except BaseException:
            shutil.rmtree(self._directory, ignore_errors=True)
            raise
        self.client = RunnerClient(
            self._directory, LOCAL, may_start=False, on_output=on_output, on_exited=on_exited
        )
        threading.Thread(target=self._watch, name="runner-end", daemon=True).start()
        self.client.ensure()

    def _spawn(self) -> subprocess.Popen[bytes]:
        with Path(self._directory, "runner.log").open("ab") as log:
            process = subprocess.Popen(
                [*runner_start.command(self._directory), "--private"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        assert process.stdout is not None
        with process.stdout as told:
            if told.readline():
                return process
        code = process.wait()
        said = Path(self._directory, "runner.log").read_text("utf-8", "replace")[-1000:].strip()
        raise Unavailable(f"the runner did not start (exit code {code}): {said}", code="runner")

    def _watch(self) -> None:
        self._process.wait()
        if not self._closing:
            self._died = True
            self._on_gone()

    def close(self) -> None:
        """End it, with what still runs, and remove its directory."""
        self._closing = True
        self.client.close()
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        try:
            self._process.wait(STOP_WITHIN)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            self._died = True
        if self._died:
            # Nobody else ends what it left.
            orphans.settle(self._directory, log.warning)
        shutil.rmtree(self._directory, ignore_errors=True)
