"""Runs, their medians and ratios, the table and the file."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.cases import Case

LATEST = Path(__file__).parent / "results" / "latest.json"


@dataclass(slots=True)
class Figures:
    """The runs of one case, in its unit, in order; `loads` are the 1-minute load averages beside them."""

    case: Case
    ours: list[float] = field(default_factory=list)
    peer: list[float] = field(default_factory=list)
    loads: list[float] = field(default_factory=list)
    loops: list[float] = field(default_factory=list)
    also: dict[str, float] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        return statistics.median(self.ours) / statistics.median(self.peer)

    @property
    def ratio_of_best(self) -> float:
        """Of the runs that noise touched least."""
        return self.case.best(self.ours) / self.case.best(self.peer)

    def to_json(self) -> dict[str, Any]:
        return {
            "ours": round(statistics.median(self.ours), 3),
            "peer": round(statistics.median(self.peer), 3),
            "ratio": round(self.ratio, 3),
            "goal": self.case.goal,
            "unit": self.case.unit,
            "runs": len(self.ours),
            "ratio_of_best": round(self.ratio_of_best, 3),
            "met": self.case.meets(self.ratio),
            "samples": {
                "ours": [round(value, 3) for value in self.ours],
                "peer": [round(value, 3) for value in self.peer],
            },
            "load": [min(self.loads), max(self.loads)],
            "loop_ms": [min(self.loops), max(self.loops)],
            **self.also,
        }


def measure(
    cases: Sequence[Case], ours: Callable[[], Any], peer: Callable[[], Any], *, runs: int, warm: int
) -> list[Figures]:
    """Alternates ours and peer, and reads the figures of all these cases; the first `warm` pairs are thrown away."""
    found = [Figures(case) for case in cases]
    for number in range(warm + runs):
        # Whoever goes second finds the machine as the first left it: they take turns.
        if number % 2:
            theirs, mine = peer(), ours()
        else:
            mine, theirs = ours(), peer()
        if number < warm:
            continue
        load, loop = round(os.getloadavg()[0], 2), fixed_loop()
        for figures in found:
            figures.ours.append(figures.case.read(mine))
            figures.peer.append(figures.case.read(theirs))
            figures.loads.append(load)
            figures.loops.append(loop)
    return found


def fixed_loop() -> float:
    """Milliseconds for a fixed loop, best of 3: much the same on a quiet machine, so it tells how quiet this was."""
    best = float("inf")
    for _ in range(3):
        began = time.perf_counter()
        total = 0
        for number in range(300_000):
            total += number
        best = min(best, time.perf_counter() - began)
    return round(best * 1e3, 1)


def row(figures: Figures) -> str:
    """One line of the table: medians, with minimum and maximum."""
    case = figures.case
    verdict = "met" if case.meets(figures.ratio) else "missed"
    also = "".join(f"   {name} {value}" for name, value in figures.also.items())
    return (
        f"{case.name:20} {_span(figures.ours)} {_span(figures.peer)} {case.unit:8}"
        f" {figures.ratio:6.2f} {figures.ratio_of_best:7.2f}   {case.sign} {case.goal:<4} {verdict}{also}"
    )


HEADING = f"{'':20} {'ours, median [min … max]':>27} {'peer':>27} {'':8} {'ratio':>6} {'of best':>7}   goal"


def _span(values: list[float]) -> str:
    return f"{statistics.median(values):8.2f} [{min(values):.2f} … {max(values):.2f}]".rjust(27)


def write(found: Mapping[str, Figures], path: Path = LATEST) -> None:
    """Every case that was measured now; what the file said of others goes."""
    path.parent.mkdir(exist_ok=True)
    text = json.dumps({name: figures.to_json() for name, figures in found.items()}, indent=2)
    path.write_text(text + "\n", "utf-8")
