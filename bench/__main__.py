"""`python -m bench [ONLY …]`: our fleet and raw Celery (or Flask) on one Redis, side by side, alternating; before
that our compiler and engine alone, at more against less of the same work; behind it machines that have only an SSH
server, and files, against ssh, asyncssh, ansible and rsync.

Prints a table and writes bench/results/latest.json. Ends with 1 where a script that was asked for did not run, or
something else went wrong; a missed goal is told and is no error, for a busy machine misses goals. A case for which a
program is missing is told too, and skipped.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from bench.alone_cases import COMPILING
from bench.cases import CANVASES, HUNDRED, NODES, SERVED, Case
from bench.compiling import Alone
from bench.far import Far
from bench.far_cases import ANSIBLE_10, ANSIBLE_10_WORKERS, ANSIBLE_50, ANSIBLE_50_WORKERS, FAR_10, FILES
from bench.figures import HEADING, Figures, measure, row, write
from bench.filed import Filed, RawFiled
from bench.hundred import Hundred, RawHundred
from bench.ours import Ours, stop_runners
from bench.processes import Broken, Processes, Skipped, start_redis
from bench.raw import Raw
from bench.raw_far import RawFar, ansible
from bench.raw_served import RawServed
from bench.served import Served
from tests import sshd as openssh

Grounds = Callable[[Processes, Path, ExitStack], tuple[Any, Any]]
"""Starts what cases run on, in a directory: our side and the peer's."""

ANSIBLE = (*ANSIBLE_10, *ANSIBLE_50, *ANSIBLE_10_WORKERS, *ANSIBLE_50_WORKERS)
CASES = (*COMPILING, *CANVASES, *SERVED, *HUNDRED, *FAR_10, *ANSIBLE, *FILES)


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("only", nargs="*", help=", ".join(case.name for case in CASES))
    parser.add_argument("--runs", type=int, default=7, help="runs of each side (7)")
    parser.add_argument(
        "--warm", type=int, default=2, help="runs of each side that are thrown away first (2)"
    )
    parser.add_argument(
        "--rabbit",
        default="",
        help="URL of a RabbitMQ that is the broker of both sides; for cases without the API",
    )
    given = parser.parse_args()
    if given.rabbit and not (given.only and set(given.only) <= {case.name for case in CANVASES}):
        parser.error(f"--rabbit is for {', '.join(case.name for case in CANVASES)}")
    unknown = set(given.only) - {case.name for case in CASES}
    if unknown:
        parser.error(f"there is no case {', '.join(sorted(unknown))}")
    # So that a `timeout` around the bench stops the workers as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    print(f"{os.cpu_count()} CPUs; {given.warm} + {given.runs} runs of each side, alternating")
    print(HEADING, flush=True)
    found: dict[str, Figures] = {}
    try:
        for cases, grounds in _grounds(given.rabbit):
            chosen = [case for case in cases if not given.only or case.name in given.only]
            try:
                if chosen:
                    found |= run(chosen, grounds, given.runs, given.warm)
            except Skipped as skipped:
                for case in chosen:
                    print(f"{case.name:20} skipped: {skipped}", flush=True)
        write(found)
    except Broken as broken:
        print(f"bench: {broken}", file=sys.stderr)
        return 1
    return 0


def _grounds(rabbit: str) -> tuple[tuple[Sequence[Case], Grounds], ...]:
    return (
        (COMPILING, alone),
        (CANVASES, partial(canvases, rabbit=rabbit)),
        (SERVED, served),
        (HUNDRED, hundred),
        (FAR_10, partial(far, machines=10)),
        (ANSIBLE_10, partial(far, machines=10, beside_ansible=True)),
        (ANSIBLE_50, partial(far, machines=50, beside_ansible=True)),
        (ANSIBLE_10_WORKERS, partial(far, machines=10, beside_ansible=True, has_workers=True)),
        (ANSIBLE_50_WORKERS, partial(far, machines=50, beside_ansible=True, has_workers=True)),
        (FILES, files),
    )


def alone(processes: Processes, directory: Path, stack: ExitStack) -> tuple[Alone, Alone]:
    """Nothing but this process and a database."""
    del processes
    side = Alone(directory)
    stack.callback(side.stage.control.store.close)
    return side, side


def canvases(
    processes: Processes, directory: Path, stack: ExitStack, *, rabbit: str = ""
) -> tuple[Ours, Raw]:
    """Workers alone, on one Redis: executions are submitted in this process."""
    del directory
    socket_path = start_redis(processes)
    ours = Ours(processes, socket_path, NODES, rabbit=rabbit)
    raw = Raw(processes, socket_path, NODES, rabbit)
    stack.callback(raw.close)
    return ours, raw


def served(processes: Processes, directory: Path, stack: ExitStack) -> tuple[Served, RawServed]:
    """Workers behind an API, on one Redis: all is asked for over HTTP."""
    del directory
    socket_path = start_redis(processes)
    ours = Served(processes, socket_path)
    raw = RawServed(processes, socket_path)
    stack.callback(raw.close)
    return ours, raw


def hundred(processes: Processes, directory: Path, stack: ExitStack) -> tuple[Hundred, RawHundred]:
    """An API and a control worker, and a hundred nodes that are rows."""
    del directory
    socket_path = start_redis(processes)
    ours = Hundred(processes, socket_path)
    raw = RawHundred(ours, socket_path)
    stack.callback(raw.close)
    return ours, raw


def far(
    processes: Processes,
    directory: Path,
    stack: ExitStack,
    *,
    machines: int,
    beside_ansible: bool = False,
    has_workers: bool = False,
) -> tuple[Far, RawFar]:
    """Machines on one sshd; ours `has_workers` in their place. Raises Skipped where a program is missing."""
    if beside_ansible:
        ansible()
    sshd = _sshd(directory, stack, machines)
    raw = RawFar(directory, sshd)
    stack.callback(raw.close)
    return Far(processes, start_redis(processes), sshd, has_workers=has_workers), raw


def files(processes: Processes, directory: Path, stack: ExitStack) -> tuple[Filed, RawFiled]:
    """A node worker, an API, the gateway, and an sshd for that and rsync. Raises Skipped where a program is missing."""
    if not shutil.which("rsync"):
        raise Skipped("no rsync")
    sshd = _sshd(directory, stack, 1)
    ours = Filed(processes, start_redis(processes), sshd)
    raw = RawFiled(ours, directory, sshd)
    stack.callback(raw.close)
    return ours, raw


def _sshd(directory: Path, stack: ExitStack, machines: int) -> openssh.Sshd:
    """One at so many loopback addresses, which are machines of their own to whoever connects. Raises Skipped."""
    if not openssh.PROGRAM or not shutil.which("ssh"):
        raise Skipped("no sshd and ssh")
    addresses = [f"127.0.0.{number}" for number in range(2, machines + 2)]
    return stack.enter_context(openssh.Sshd(directory, addresses))


def run(cases: list[Case], grounds: Grounds, runs: int, warm: int) -> dict[str, Figures]:
    """Measures the cases in order, on processes of their own. Raises Broken."""
    found: dict[str, Figures] = {}
    with ExitStack() as stack:
        directory = Path(tempfile.mkdtemp(prefix="muster-bench-"))
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        stack.callback(stop_runners, directory)
        processes = stack.enter_context(Processes(directory))
        ours, raw = grounds(processes, directory, stack)
        for _, group in groupby(cases, lambda case: (case.ours, case.peer)):
            together = list(group)
            first = together[0]
            raw.ran()
            sides = partial(first.ours, ours), partial(first.peer, raw)
            measured = measure(together, *sides, runs=runs, warm=warm)
            wanted, ran = first.scripts * (runs + warm), raw.ran()
            if ran != wanted:
                raise Broken(f"{first.name}: the peer ran {ran} scripts of {wanted}")
            for figures in measured:
                if figures.case.also is not None:
                    figures.also = figures.case.also(ours)
                found[figures.case.name] = figures
                print(row(figures), flush=True)
    return found


if __name__ == "__main__":
    sys.exit(main())
