"""`python -m bench.breakdown [hops20 | fanout50 | throughput20x10]`: where a step spends its time.

Our fleet alone, with probes in its workers (some µs a call). Prints the CPU that each process used for a step, the
calls of the workers, and for a line (hops20) the way of a step through the processes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from bench.cases import CANVASES, NODES, Case
from bench.figures import fixed_loop
from bench.ours import Ours, stop_runners
from bench.processes import Processes, start_redis

_TICK = os.sysconf("SC_CLK_TCK")
_TAKEN = "2 node: message taken from the socket"
_PUBLISHED = "G control: next order published"


class Span(NamedTuple):
    label: str
    about: str
    thread: int
    began: float
    ended: float
    cpu: float


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.breakdown", description=__doc__)
    parser.add_argument("case", nargs="?", choices=[case.name for case in CANVASES], default="hops20")
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--warm", type=int, default=3)
    parser.add_argument("--keep", type=Path, help="directory for spans and profiles")
    parser.add_argument(
        "--cprofile", action="store_true", help="also write cProfile files (slows everything down)"
    )
    given = parser.parse_args()
    with ExitStack() as stack:
        directory = given.keep or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="muster-bench-"))
        )
        directory.mkdir(exist_ok=True)
        case = next(case for case in CANVASES if case.name == given.case)
        observe(case, directory, given.warm, given.runs, cprofile=given.cprofile)
    return 0


def observe(case: Case, directory: Path, warm: int, runs: int, *, cprofile: bool) -> None:
    """Runs our side of a case and prints where its time went. Raises Broken."""
    extra = {"BENCH_SPANS": str(directory), **({"BENCH_CPROFILE": "1"} if cprofile else {})}
    with ExitStack() as stack:
        stack.callback(stop_runners, directory)
        processes = stack.enter_context(Processes(directory))
        socket_path = start_redis(processes)
        workers = {"control": "bench.profiled_control", "node": "bench.profiled_node"}
        fleet = Ours(processes, socket_path, NODES, **workers, extra=extra)
        for _ in range(warm):
            case.ours(fleet)
        pids = {**processes.pids(), **{f"runner of {name}": fleet.runner(name) for name in fleet.nodes}}
        before = {name: _cpu(pid) for name, pid in pids.items()}
        took = [case.ours(fleet) for _ in range(runs)]
        scripts = runs * case.scripts
        used = {name: (_cpu(pid) - before[name]) / scripts * 1e3 for name, pid in pids.items()}
    print(
        f"{case.name}: median {statistics.median(took):.2f}, best {case.best(took):.2f} {case.unit};"
        f" load {os.getloadavg()[0]:.2f}, fixed loop {fixed_loop()} ms"
    )
    print(f"CPU a step, ms: {sum(used.values()):.2f} in all")
    print("  " + ", ".join(f"{name} {value:.2f}" for name, value in used.items() if value >= 0.01))
    control = _read(directory / "control.spans.json")
    node = [span for name in fleet.nodes for span in _read(directory / f"{name}.spans.json")]
    if case.name == "hops20":
        _way(control, node, case.scripts * warm)
    for title, spans in (("control worker", control), ("node workers", node)):
        _calls(title, spans, case.scripts * (warm + runs))


def _cpu(pid: int) -> float:
    """Seconds of CPU that a process and its ended children have used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(fields[number]) for number in (11, 12, 13, 14)) / _TICK


def _read(path: Path) -> list[Span]:
    return [Span(*one) for one in json.loads(path.read_text())]


def _way(control: list[Span], node: list[Span], skip: int) -> None:
    """The milestones of each job in order; the time from one to the next."""
    at: dict[str, dict[str, float]] = defaultdict(dict)
    for span in node:
        job = span.about.removesuffix(".collect")
        if span.label == "main: envelope":
            at[job][_TAKEN] = span.began
        elif span.label == "pool: all":
            at[job]["3 node: job function begins"] = span.began
            for inner in _within(node, span):
                if inner.label == "crypto: open order":
                    at[job]["4 node: order opened"] = inner.ended
                elif inner.label == "journal.accept":
                    at[job]["5 node: journalled"] = inner.ended
                elif inner.label == "runner: run":
                    at[job]["7 node: runner says it is over"] = inner.ended
                elif inner.label == "crypto: seal outcome":
                    at[job]["8 node: outcome sealed"] = inner.ended
                elif inner.label == "journal.ended":
                    at[job]["9 node: outcome journalled"] = inner.ended
        elif span.label == "sender: publish collect":
            at[job]["A node: sender begins to publish"] = span.began
            at[job]["B node: published"] = span.ended
    for span in control:
        if not span.about.endswith(".collect"):
            continue
        job = span.about.removesuffix(".collect")
        if span.label == "main: envelope":
            at[job]["C control: message taken from the socket"] = span.began
        elif span.label == "pool: all":
            at[job]["D control: job function begins"] = span.began
            for inner in _within(control, span):
                if inner.label == "collect":
                    at[job]["E control: collect begins"] = inner.began
                    at[job]["F control: collect ends"] = inner.ended
                elif inner.label == "publish":
                    at[job][_PUBLISHED] = inner.ended
    gaps: dict[str, list[float]] = defaultdict(list)
    jobs = sorted(at, key=lambda job: at[job].get("3 node: job function begins", 0.0))[skip:]
    for job in jobs:
        ordered = sorted(at[job].items())
        for (_, earlier), (name, later) in pairwise(ordered):
            gaps[name].append((later - earlier) * 1e3)
    for one, other in pairwise(jobs):
        begins, ended = at[other].get(_TAKEN), at[one].get(_PUBLISHED)
        if begins and ended and one.rpartition(".t")[0] == other.rpartition(".t")[0]:
            # The node can have it before our publish has Redis' answer.
            gaps[_TAKEN].append((begins - ended) * 1e3)
    print("\nthe way of a step, ms from the milestone before     median     min")
    for name, values in sorted(gaps.items()):
        print(f"  {name[2:]:50} {statistics.median(values):7.2f} {min(values):7.2f}")


def _within(spans: Iterable[Span], outer: Span) -> list[Span]:
    return [
        span
        for span in spans
        if span.thread == outer.thread
        and span.began >= outer.began
        and span.ended <= outer.ended
        and span is not outer
    ]


def _calls(title: str, spans: list[Span], steps: int) -> None:
    by_label: dict[str, list[Span]] = defaultdict(list)
    for span in spans:
        by_label[span.label].append(span)
    print(f"\n{title:72} calls/step  wall ms/step  median  CPU ms/step")
    for label, found in sorted(by_label.items(), key=lambda one: -sum(span.cpu for span in one[1])):
        wall = sum(span.ended - span.began for span in found) / steps * 1e3
        median = statistics.median(span.ended - span.began for span in found) * 1e3
        cpu = sum(span.cpu for span in found) / steps * 1e3
        if len(found) >= steps / 50:
            print(f"  {label:70} {len(found) / steps:9.2f} {wall:13.3f} {median:8.3f} {cpu:11.3f}")


if __name__ == "__main__":
    sys.exit(main())
