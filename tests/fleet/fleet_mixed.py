"""A workflow with a line, a fan-out, a parallel block and a retry, and how its effects are counted."""

from __future__ import annotations

from collections.abc import Iterable

from fleet import Fleet
from waiting import wait_until

MIXED = """\
parameters: {effects: {type: string, required: true}}
tasks:
  - {name: a, action: core.shell, delegate_to: web-1, on_success: b,
     input: {command: 'echo $MUSTER_JOB >> {{ parameters.effects }}; sleep 0.1'}}
  - {name: b, action: core.shell, delegate_to: web-2, on_success: f,
     input: {command: 'echo $MUSTER_JOB >> {{ parameters.effects }}'}}
  - {name: f, type: distributed_shell, on_success: p,
     input: {nodes: [web-1, web-2, web-3], command: 'echo $MUSTER_JOB >> {{ parameters.effects }}; sleep 0.1'}}
  - name: p
    type: parallel
    on_success: z
    tasks:
      - {name: x, action: core.shell, delegate_to: web-2,
         input: {command: 'echo $MUSTER_JOB >> {{ parameters.effects }}'}}
      - {name: y, action: core.shell, delegate_to: web-3, retry: {count: 1, delay: 0.1},
         input: {command: 'echo $MUSTER_JOB >> {{ parameters.effects }}; test "${MUSTER_JOB##*.}" = 2'}}
  - {name: z, action: core.shell, input: {command: 'echo $MUSTER_JOB >> {{ parameters.effects }}'}}
"""
JOBS = 9
"""What one execution of `MIXED` runs: a, b, f on three nodes, x, y twice, z."""


def all_ran_once(fleet: Fleet, ids: Iterable[str], each: int = JOBS) -> None:
    ran = fleet.ran()
    doubled = {job: count for job, count in ran.items() if count > 1}
    assert doubled == {}
    for execution in ids:
        mine = [job for job in ran if job.startswith(execution)]
        assert len(mine) == each, f"{mine}\n{fleet.story(execution)}"


def until_ran(fleet: Fleet, ids: list[str], count: int) -> None:
    """Waits until so many scripts of these executions had their effect."""

    def ran() -> bool:
        return sum(job.partition(".")[0] in ids for job in fleet.ran()) >= count

    wait_until(ran, lambda: fleet.story(ids[0]))
