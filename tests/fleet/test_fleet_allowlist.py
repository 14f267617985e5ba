"""Both gates in a running fleet: what control refuses reaches no node, and what control lets pass a node may refuse."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fleet import Fleet
from fleet_items import shell
from waiting import wait_until

from app.compiler.build import build
from app.errors import NotAllowed
from app.language.parse import load_or_raise
from app.services import audit
from app.services.submit import Submission, submit

pytestmark = [
    pytest.mark.fleet,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a policy that a node follows"),
]

POLICY = """
version = 1
mode = "enforce"

[[entries]]
command = "true"

[[entries]]
command = "echo"
more = "{text}"
"""


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A fleet with the shipped allowlist, and a node whose owner lets two programs run."""
    directory: Path = tmp_path_factory.mktemp("policy").resolve()
    file = directory / "policy.toml"
    file.write_text(POLICY)
    file.chmod(0o644)
    with Fleet(("web-1",), MUSTER_NODE_POLICY=str(file)) as running:
        yield running


def ask(fleet: Fleet, command: Any, **parameters: Any) -> str:
    """The execution of a workflow that is not stored."""
    declared = {name: {"type": "string"} for name in parameters}
    task = {"name": "a", "action": "core.shell", "delegate_to": "web-1", "input": {"command": command}}
    text = str({"parameters": declared, "tasks": [task]})
    plan = build(load_or_raise(text))
    return submit(fleet.control, Submission(plan, text, "ada", parameters, origin="inline")).execution


def ended(fleet: Fleet, execution: str) -> Any:
    """The only job of an execution that is over."""
    fleet.wait_for(execution)
    return fleet.job(execution, "a")


def node_says(fleet: Fleet, name: str) -> str:
    return str(fleet.nodes()[0].versions.get(name, ""))


def test_what_both_allow_runs_and_the_trail_tells_it_twice(strict: Fleet) -> None:
    execution = ask(strict, ["echo", "hello"])
    job = ended(strict, execution)
    assert (job.status, job.exit_code, job.result["stdout"]) == ("succeeded", 0, "hello")
    with strict.store.read() as connection:
        end, submitted = audit.list_entries(connection, limit=5, subject=execution)
    assert (submitted["action"], submitted["outcome"]) == ("execution.submit", "accepted")
    assert submitted["detail"]["commands"] == [{"task": "a", "nodes": "web-1", "argv": ["echo", "hello"]}]
    assert (end["action"], end["outcome"], end["person"]) == ("execution.end", "completed", "ada")
    assert [(one["node"], one["exit_code"]) for one in end["detail"]["jobs"]] == [("web-1", 0)]


def test_what_control_refuses_reaches_no_node(strict: Fleet) -> None:
    with pytest.raises(NotAllowed):
        ask(strict, ["rm", "-rf", "/srv"])
    execution = ask(strict, ["cat", "{{ parameters.x }}"], x="/etc/shadow")
    job = ended(strict, execution)
    assert (job.status, job.error["type"]) == ("failed", "not_allowed")
    assert (job.dispatched_at, job.accepted_at, job.digest) == (None, None, "")


def test_a_node_refuses_what_control_allowed_and_says_so(strict: Fleet) -> None:
    refused = int(node_says(strict, "policy_refused") or 0)
    job = ended(strict, ask(strict, ["uname", "-a"]))
    assert (job.status, job.error["type"], job.exit_code) == ("failed", "refused_by_node", None)
    assert "no entry is for the program `uname`" in job.error["message"]
    assert job.started_at is None
    wait_until(lambda: node_says(strict, "policy_refused") == str(refused + 1), "a heartbeat that counts it")
    assert node_says(strict, "policy") == "enforce"


def test_stored_workflows_pass_the_same_gate(strict: Fleet) -> None:
    execution = strict.submit(shell("echo $MUSTER_JOB >> {{ parameters.effects }}"))
    job = ended(strict, execution)
    assert (job.status, job.error["type"]) == ("failed", "refused_by_node")
    assert strict.ran_tasks(execution) == []
