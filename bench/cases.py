"""What is measured: the same work for both sides, and the ratio that is the goal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.ours import Ours
from bench.raw import Raw

NODES = 4


def line(node: str, steps: int) -> str:
    """A workflow of `steps` times `true` on one node, one after the other."""
    tasks = []
    for number in range(1, steps + 1):
        follows = f", on_success: t{number + 1}" if number < steps else ""
        tasks.append(f"  - {{name: t{number}, action: core.shell, input: {{command: ['true']}}{follows}}}\n")
    return f"delegate_to: {node}\ntasks:\n{''.join(tasks)}"


def block(nodes: list[str], members: int) -> str:
    """A workflow of one parallel block of `members` times `true`, dealt out over `nodes`."""
    tasks = (
        f"      - {{name: t{number}, action: core.shell, input: {{command: ['true']}},"
        f" delegate_to: {nodes[number % len(nodes)]}}}\n"
        for number in range(members)
    )
    return f"tasks:\n  - name: all\n    type: parallel\n    tasks:\n{''.join(tasks)}"


@dataclass(frozen=True, slots=True)
class Case:
    """`ours` and `peer` run once and answer in `unit`; `scripts` is how many each is to run.

    The goal holds for ours/peer: at most where less is better, at least where more is.
    """

    name: str
    title: str
    unit: str
    goal: float
    more_is_better: bool
    scripts: int
    ours: Callable[[Ours], float]
    peer: Callable[[Raw], float]

    def meets(self, ratio: float) -> bool:
        return ratio >= self.goal if self.more_is_better else ratio <= self.goal

    def best(self, values: Sequence[float]) -> float:
        """Of the run that noise touched least."""
        return max(values) if self.more_is_better else min(values)

    @property
    def sign(self) -> str:
        return "≥" if self.more_is_better else "≤"


CASES = (
    Case(
        name="hops20",
        title="line of 20 on one node, per step, against a two-hop chain",
        unit="ms/step",
        goal=1.5,
        more_is_better=False,
        scripts=20,
        ours=lambda fleet: fleet.run([line(fleet.nodes[0], 20)], 20) / 20 * 1e3,
        peer=lambda raw: raw.two_hops(20) / 20 * 1e3,
    ),
    Case(
        name="fanout50",
        title="50 jobs over 4 nodes and join, against a chord",
        unit="ms",
        goal=1.5,
        more_is_better=False,
        scripts=50,
        ours=lambda fleet: fleet.run([block(fleet.nodes, 50)], 50) * 1e3,
        peer=lambda raw: raw.fan_out(50) * 1e3,
    ),
    Case(
        name="throughput20x10",
        title="20 lines of 10 at once, against one-hop chains",
        unit="steps/s",
        goal=0.5,
        more_is_better=True,
        scripts=200,
        ours=lambda fleet: (
            200 / fleet.run([line(fleet.nodes[number % NODES], 10) for number in range(20)], 10)
        ),
        peer=lambda raw: 200 / raw.one_hop(20, 10),
    ),
)
