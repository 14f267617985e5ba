"""`python -m bench.raw_shells N`: N solo workers, each a process with a queue of its own, forked from one import.

RAW_BROKER is the broker's URL, where the results are kept too.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import Any

from bench.raw_wire import SHELL, make_result_app, shell_queue

app = make_result_app(os.environ["RAW_BROKER"])


def shell(argv: list[str]) -> dict[str, Any]:
    """Runs a command; how it ended and what it wrote."""
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    return {"rc": done.returncode, "stdout": done.stdout, "stderr": done.stderr}


app.task(shell, name=SHELL)


def main() -> None:
    workers = [pid for number in range(int(sys.argv[1])) if (pid := _fork(number))]

    def stop(*_: Any) -> None:
        for pid in workers:
            os.kill(pid, signal.SIGTERM)

    signal.signal(signal.SIGTERM, stop)
    for pid in workers:
        os.waitpid(pid, 0)


def _fork(number: int) -> int:
    pid = os.fork()
    if pid == 0:
        name = f"shell-{number}@bench"
        words = [
            "--pool",
            "solo",
            "--queues",
            shell_queue(number),
            "--hostname",
            name,
            "--loglevel",
            "WARNING",
        ]
        quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        app.worker_main(["worker", *words, *quiet])
        os._exit(0)
    return pid


if __name__ == "__main__":
    main()
