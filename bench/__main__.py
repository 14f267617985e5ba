"""`python -m bench [ONLY …]`: our fleet and raw Celery on one Redis, side by side, alternating.

Prints a table and writes bench/results/latest.json. Ends with 1 where a script that was asked for did not run, or
something else went wrong; a missed goal is told and is no error, for a busy machine misses goals.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from bench.cases import CASES, NODES, Case
from bench.figures import HEADING, Figures, measure, row, write
from bench.ours import Ours, stop_runners
from bench.processes import Broken, Processes, start_redis
from bench.raw import Raw


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("only", nargs="*", help=", ".join(case.name for case in CASES))
    parser.add_argument("--runs", type=int, default=7, help="runs of each side (7)")
    parser.add_argument(
        "--warm", type=int, default=2, help="runs of each side that are thrown away first (2)"
    )
    given = parser.parse_args()
    unknown = set(given.only) - {case.name for case in CASES}
    if unknown:
        parser.error(f"there is no case {', '.join(sorted(unknown))}")
    chosen = [case for case in CASES if not given.only or case.name in given.only]
    # So that a `timeout` around the bench stops the workers as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        write(run(chosen, given.runs, given.warm))
    except Broken as broken:
        print(f"bench: {broken}", file=sys.stderr)
        return 1
    return 0


def run(cases: list[Case], runs: int, warm: int) -> dict[str, Figures]:
    """Measures the cases in order. Raises Broken."""
    found: dict[str, Figures] = {}
    with ExitStack() as stack:
        directory = Path(tempfile.mkdtemp(prefix="muster-bench-"))
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        stack.callback(stop_runners, directory)
        processes = stack.enter_context(Processes(directory))
        socket_path = start_redis(processes)
        ours = Ours(processes, socket_path, NODES)
        raw = Raw(processes, socket_path, NODES)
        stack.callback(raw.close)
        print(
            f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.2f}; {warm} + {runs} runs of each side, alternating"
        )
        print(HEADING, flush=True)
        for case in cases:
            raw.ran()
            figures = measure(case, partial(case.ours, ours), partial(case.peer, raw), runs=runs, warm=warm)
            wanted, ran = case.scripts * (runs + warm), raw.ran()
            if ran != wanted:
                raise Broken(f"{case.name}: raw Celery ran {ran} scripts of {wanted}")
            found[case.name] = figures
            print(row(figures), flush=True)
    return found


if __name__ == "__main__":
    sys.exit(main())
