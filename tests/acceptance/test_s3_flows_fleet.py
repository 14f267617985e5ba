"""Seed 003, flows from end to end: the control side with its workers, a real sshd, and `muster.pyz`, built for it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from waiting import wait_until

sys.path.insert(0, str(Path(__file__).parents[1] / "flows"))

from fleet import Fleet
from fleet_processes import BIN
from site_of_flows import Site
from sshd import Sshd

pytestmark = [pytest.mark.fleet, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def site(sshd_program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("site")
    with Sshd(directory, addresses=("127.0.0.2", "127.0.0.3")) as sshd:
        yield Site(directory, sshd)


NESTED = """
ref: demo.flows
parameters: {who: {type: string, default: Grüße}}
vars: {base: 20}
settings:
  parallel:
    strategy: STRATEGY
    timeout: 60
    remote: {hosts: [HOSTS], workdir: WORKDIR, method: METHOD}
tasks:
  - name: first
    action: core.shell
    input: {command: "echo 22"}
    publish: {more: "{{ task.first.result.stdout | int }}"}
    on_success: many
  - name: many
    type: parallel
    on_success: fan_in
    on_failure: fan_in
    tasks:
      - {name: sum, action: core.shell, input: {command: "echo $(( {{ vars.base | int }} + {{ vars.more | int }} ))"}}
      - {name: each, action: core.shell, with_items: [x, y], input: {command: "echo {{ item }} {{ parameters.who }}"}}
      - {name: never, action: core.shell, when: "{{ vars.more < 0 }}", input: {command: "exit 1"}}
      - name: bad
        action: core.shell
        input: {command: "echo attempt >&2; exit 7"}
        retry: {count: 1, delay: 0}
  - {name: fan_in, action: core.shell, input: {command: "echo {{ task.sum.result.stdout }}"}}
output_map:
  sum: "{{ task.fan_in.result.stdout }}"
  each: "{{ task.each.result | map(attribute='stdout') | list }}"
  bad: "{{ task.bad.result.exit_code }}"
  statuses: "{{ [task.sum.status, task.each.status, task.never.status, task.bad.status] }}"
  many: "{{ task.many.result | list }}"
"""


@pytest.fixture(scope="module")
def flowing(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A fleet whose io worker has the tool, the key and the known hosts."""
    dist = tmp_path_factory.mktemp("dist")
    subprocess.run([BIN / "muster", "pyz", dist / "muster.pyz"], check=True, stdout=subprocess.DEVNULL)
    environment = {"MUSTER_FLOW_BASEFILES": str(dist), "MUSTER_FLOW_SSH_CONFIG": str(site.config)}
    with Fleet(("local",), **environment) as fleet:
        fleet.worker_of_calls()
        wait_until(lambda: " ready." in fleet.log("io", 100_000), lambda: fleet.log("io"))
        yield fleet


def _output(fleet: Fleet, site: Site, strategy: str, method: str = "auto") -> Any:
    text = NESTED.replace("STRATEGY", strategy).replace("METHOD", method)
    text = text.replace("HOSTS", ", ".join(site.hosts)).replace("WORKDIR", str(site.workdir / strategy))
    execution = fleet.submit(text)
    row = fleet.wait_for(execution)
    assert row.status == "completed", fleet.story(execution)
    return row.output, fleet.jobs(execution, "bad")


EXPECTED = {
    "sum": "42",
    "each": ["x Grüße", "y Grüße"],
    "bad": 7,
    "statuses": ["succeeded", "succeeded", "skipped", "failed"],
    "many": ["sum", "each", "never", "bad"],
}


def _left(site: Site) -> list[str]:
    """The clean-up follows what a flow came to."""
    return [path for path in site.left() if path.startswith("remote/")]


def test_001_3_E2E_001_and_S3_01_a_block_over_ssh_comes_to_what_a_local_one_does(
    flowing: Fleet, site: Site
) -> None:
    assert _output(flowing, site, "thread")[0] == EXPECTED
    assert _output(flowing, site, "process")[0] == EXPECTED
    output, (job,) = _output(flowing, site, "remote", "ssh")
    assert output == EXPECTED
    assert job.error["host"] == site.hosts[1]
    assert "attempt" in job.result["stderr"]
    wait_until(lambda: not _left(site), lambda: _left(site))


def test_001_3_E2E_002_and_S3_15_the_same_by_gnu_parallel(
    gnu_parallel_program: str, flowing: Fleet, site: Site
) -> None:
    assert _output(flowing, site, "remote", "parallel")[0] == EXPECTED
    assert "go by GNU Parallel" in flowing.log("io", 100_000)
    wait_until(lambda: not _left(site), lambda: _left(site))
