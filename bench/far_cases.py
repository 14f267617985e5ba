"""What is measured of machines that have only an SSH server, and of files: ratios to ssh, asyncssh, ansible, rsync."""

from __future__ import annotations

from operator import methodcaller
from typing import Any

from bench.cases import Case


def _command(name: str, machines: int, goal: float, kind: str) -> Case:
    return Case(
        name=name,
        title=f"`muster exec` on {machines} machines {kind}, start to exit, against warm `ansible all -m shell`",
        unit="ms",
        goal=goal,
        more_is_better=False,
        scripts=machines,
        ours=lambda far: far.command() * 1e3,
        peer=lambda raw: raw.command() * 1e3,
    )


FAR_10 = (
    Case(
        name="ssh10_warm",
        title="a script on 10 machines over SSH, API to all results, against `ssh` over 10 ControlMaster sockets",
        unit="ms",
        goal=2.0,
        more_is_better=False,
        scripts=10,
        ours=lambda far: far.warm() * 1e3,
        peer=lambda raw: raw.warm() * 1e3,
    ),
    Case(
        name="ssh10_cold",
        title="the same with every connection to be made, against plain asyncssh with the start of its process",
        unit="ms",
        goal=1.2,
        more_is_better=False,
        scripts=10,
        ours=lambda far: far.cold() * 1e3,
        peer=lambda raw: raw.cold() * 1e3,
    ),
)

ANSIBLE_10 = (_command("fanout10_vs_ansible", 10, 1 / 8, "over SSH"),)
ANSIBLE_50 = (_command("fanout50_vs_ansible", 50, 1 / 20, "over SSH"),)
ANSIBLE_10_WORKERS = (_command("workers10_vs_ansible", 10, 1 / 8, "with a worker"),)
ANSIBLE_50_WORKERS = (_command("workers50_vs_ansible", 50, 1 / 20, "with a worker"),)


def _milliseconds(trip: Any) -> float:
    return float(trip.whole * 1e3)


def _without_script(trip: Any) -> float:
    return float((trip.whole - trip.script) * 1e3)


def _filed(node: str, kind: str) -> tuple[Case, ...]:
    """The cases of one kind of node, whose names end in `kind`."""
    sync, unchanged, first = (methodcaller(verb, node) for verb in ("sync", "unchanged", "first"))
    to = "a node over SSH" if kind else "a node with a worker"
    return (
        Case(
            name=f"workspace_sync{kind}",
            title=f"1,000 files of 20 MB to {to}, all changed, and back: a task, against rsync, ssh, rsync",
            unit="ms",
            goal=1.5,
            more_is_better=False,
            scripts=1,
            ours=sync,
            peer=sync,
            read=_milliseconds,
            also=None if kind else methodcaller("command"),
        ),
        Case(
            name=f"workspace_files{kind}",
            title="the same less the time of the script itself, on both sides",
            unit="ms",
            goal=1.5,
            more_is_better=False,
            scripts=1,
            ours=sync,
            peer=sync,
            read=_without_script,
        ),
        Case(
            name=f"workspace_unchanged{kind}",
            title="a task with these files that the node has had and leaves alone, against one with new ones",
            unit="ms",
            goal=0.2,
            more_is_better=False,
            scripts=0,
            ours=unchanged,
            peer=first,
            read=_milliseconds,
        ),
    )


FILES = (*_filed("node-1", ""), *_filed("far-1", "_ssh"))
