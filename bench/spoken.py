"""What both sides run for the latency of lines, and how late they come: the same script, clock and client."""

from __future__ import annotations

import json
import statistics
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing

from app.cli.client import Stream
from app.cli.sse import LONGEST_LINE, Parser
from bench.processes import Broken

LINES, GAP = 100, 0.02
"""Lines of one run, and seconds between them."""
PRINTER = [
    sys.executable,
    "-IS",
    "-c",
    f"import time\nfor _ in range({LINES}):\n    print(time.time(), flush=True)\n    time.sleep({GAP})",
]
"""Each line is the time at which it is printed, in Unix seconds."""

BURST_BYTES = 20_000_000
BURST = ["sh", "-c", f"yes a line of a burst | head -c {BURST_BYTES}"]

ANSWER_WITHIN = 60.0
"""Seconds without a byte after which a stream counts as dead."""

Late = tuple[float, float]
"""Median and 95th percentile of milliseconds from a line's print to its reading."""


def follow(stream: Stream, burst: Callable[[], object]) -> Late:
    """Reads a stream's `stdout` events up to its `end`; `burst` is called in a thread once the first has come.

    Raises Broken unless every line came once, and what `burst` raises.
    """
    late: list[float] = []
    failed: list[BaseException] = []

    def burst_beside() -> None:
        try:
            burst()
        except BaseException as error:  # told to whoever measures, behind the join
            failed.append(error)

    beside = threading.Thread(target=burst_beside, name="burst")
    parser, ended = Parser(), False
    with closing(stream):
        while not ended and (line := stream.readline(LONGEST_LINE, ANSWER_WITHIN)):
            message = parser.feed(line)
            if message is None:
                continue
            now = time.time()
            if message.event == "stdout":
                late += [(now - float(said)) * 1e3 for said in json.loads(message.data)["text"].split()]
                if beside.ident is None:
                    beside.start()
            ended = message.event == "end"
    if beside.ident is not None:
        beside.join()
    if failed:
        raise failed[0]
    if len(late) != LINES or not ended:
        raise Broken(f"{len(late)} of {LINES} lines came, {'with' if ended else 'without'} an end")
    return statistics.median(late), statistics.quantiles(late, n=20, method="inclusive")[-1]
