"""Shells that are checked before anything is sent: the node has them, and the values are what they may be given."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from desk import Office, jobs, tasks

ALL = ["bash", "sh", "ksh", "zsh", "powershell", "cmd"]
ONE = """
tasks:
  - {{name: a, action: core.script, delegate_to: web-1, input: {{script: echo hi, shell: {shell}}}}}
"""
MANY = """
tasks:
  - {{name: a, action: core.distributed_shell, input: {{script: echo hi, shell: {shell}, nodes: [web-1, web-2]}}}}
"""
GIVEN = """
parameters: {{value: {{type: string}}}}
tasks:
  - name: a
    action: core.script
    delegate_to: web-1
    input: {{script: echo hi, shell: {shell}, env: {{VALUE: "{{{{ parameters.value }}}}", {more}: x}}}}
"""


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    made = Office(tmp_path, ["web-1", "web-2"])
    for name in ("web-1", "web-2"):
        made.hear(name, shells=ALL)
    yield made
    made.store.close()


def job_of(office: Office, execution: str) -> Any:
    return office.job(f"{execution}.a.0.1")


@pytest.mark.parametrize("shell", ALL)
def test_a_node_without_the_shell_is_skipped_and_the_other_is_not(office: Office, shell: str) -> None:
    office.hear("web-1", shells=[name for name in ALL if name != shell])
    execution = office.submit(MANY.format(shell=shell))
    assert office.statuses(jobs, execution) == {"a.0": "skipped", "a.1": "dispatched"}
    assert job_of(office, execution).error["type"] == "no_shell"
    (sent,) = office.sent
    assert sent[0].job == f"{execution}.a.1.1"


@pytest.mark.parametrize("shell", ALL)
def test_a_task_of_one_node_without_the_shell_fails(office: Office, shell: str) -> None:
    office.hear("web-1", shells=[name for name in ALL if name != shell])
    execution = office.submit(ONE.format(shell=shell))
    assert office.statuses(tasks, execution) == {"a": "failed"}
    assert office.sent == []
    with_it = ONE.format(shell=shell).replace("web-1", "web-2")
    office.submit(with_it)
    assert len(office.sent) == 1


@pytest.mark.parametrize(
    ("shell", "more", "value", "why"),
    [
        ("cmd", "B", "a & del *", "VALUE"),
        ("cmd", "B", "web-1", ""),
        ("powershell", "Value", "x", "Value"),
        ("powershell", "B", "a & del *", ""),
        ("bash", "Value", "a & del *", ""),
    ],
)
def test_a_value_that_its_shell_may_not_be_given_is_sent_nowhere(
    office: Office, shell: str, more: str, value: str, why: str
) -> None:
    execution = office.submit(GIVEN.format(shell=shell, more=more), value=value)
    assert len(office.sent) == (0 if why else 1)
    assert job_of(office, execution).status == ("failed" if why else "dispatched")
    if why:
        assert job_of(office, execution).error["type"] == "input"
        assert f"`{why}`" in job_of(office, execution).error["message"]


def test_a_command_without_a_program_is_sent_nowhere(office: Office) -> None:
    source = """
parameters: {program: {type: string}}
tasks:
  - {name: a, action: core.shell, delegate_to: web-1, input: {command: ["{{ parameters.program }}", x]}}
"""
    execution = office.submit(source, program="")
    assert office.sent == []
    assert "names no program" in job_of(office, execution).error["message"]
