"""What is measured: the same work for both sides, and the ratio that is the goal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter, methodcaller
from typing import Any

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
    """`ours` and `peer` run once, and `read` finds in what they answer the figure in `unit`; `scripts` is how many
    scripts each is to run. Cases next to each other with the same sides are measured in the same runs.

    The goal holds for ours/peer: at most where less is better, at least where more is. `also` are figures of our
    side without a peer, asked for once.
    """

    name: str
    title: str
    unit: str
    goal: float
    more_is_better: bool
    scripts: int
    ours: Callable[[Any], Any]
    peer: Callable[[Any], Any]
    read: Callable[[Any], float] = float
    also: Callable[[Any], dict[str, float]] | None = None

    def meets(self, ratio: float) -> bool:
        return ratio >= self.goal if self.more_is_better else ratio <= self.goal

    def best(self, values: Sequence[float]) -> float:
        """Of the run that noise touched least."""
        return max(values) if self.more_is_better else min(values)

    @property
    def sign(self) -> str:
        return "≥" if self.more_is_better else "≤"


CANVASES = (
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

_lines = methodcaller("lines")

SERVED = (
    Case(
        # First, while each worker has one job behind it.
        name="node_rss",
        title="memory of a node's worker after one job, against a bare Celery worker with threads",
        unit="MiB",
        goal=1.3,
        more_is_better=False,
        scripts=1,
        ours=methodcaller("memory"),
        peer=methodcaller("memory"),
        also=methodcaller("runner_memory"),
    ),
    Case(
        name="shell10",
        title="`true` on 10 nodes, warm API to all results, against a group to 10 workers",
        unit="ms",
        goal=1.5,
        more_is_better=False,
        scripts=10,
        ours=lambda served: served.shell() * 1e3,
        peer=lambda raw: raw.shell() * 1e3,
    ),
    Case(
        name="line_latency_p50",
        title="line printed to line at a client while another node bursts 20 MB, against a relay of a Redis stream",
        unit="ms",
        goal=2.0,
        more_is_better=False,
        scripts=2,
        ours=_lines,
        peer=_lines,
        read=itemgetter(0),
    ),
    Case(
        name="line_latency_p95",
        title="the same, the 95th percentile of the lines",
        unit="ms",
        goal=3.0,
        more_is_better=False,
        scripts=2,
        ours=_lines,
        peer=_lines,
        read=itemgetter(1),
    ),
    Case(
        name="post_execute",
        title="POST execute of a stored workflow, against bare Flask",
        unit="req/s",
        goal=0.35,
        more_is_better=True,
        scripts=0,
        ours=methodcaller("posts"),
        peer=methodcaller("posts"),
    ),
    Case(
        name="cli_start",
        title="`muster exec NODE -- true`, start to exit, against a fresh process that sends a Celery task",
        unit="ms",
        goal=0.35,
        more_is_better=False,
        scripts=1,
        ours=lambda served: served.command() * 1e3,
        peer=lambda raw: raw.command() * 1e3,
    ),
)

HUNDRED = (
    Case(
        name="execute100_request",
        title="POST execute of a saved script on 100 nodes, to its answer, against a plain POST execute",
        unit="ms",
        goal=2.0,
        more_is_better=False,
        scripts=0,
        ours=methodcaller("request"),
        peer=methodcaller("plain"),
    ),
    Case(
        name="execute100_publish",
        title="the same until the last of its 100 orders is in its queue, against raw Celery publishing 100 messages",
        unit="ms",
        goal=1.5,
        more_is_better=False,
        scripts=0,
        ours=methodcaller("published"),
        peer=methodcaller("published"),
    ),
)
