"""Seed 002 on the node: shells (S2.21, S2.22) and the deploy plan (S2.23), by a worker that was enrolled by hand."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bare_path import KSH, path_without
from guide import Example, examples, gist, sessions
from running import GUIDE, WEB, Running
from waiting import wait_until

from app.node.identity import load_identity
from app.transport.sealing import open_order

pytestmark = [pytest.mark.fleet, pytest.mark.timeout(180)]

NODE = "shell-1"
SHELLS_GUIDE = GUIDE.with_name("shells.md")
SHELLS = {"bash": "bash", "sh": "sh", "zsh": "zsh", "ksh": "ksh", "powershell": "pwsh", "cmd": "cmd.exe"}
"""The seed's shells, and the program that is each of them on a node."""
TELLS = """#!/bin/sh
for word in "${0##*/}" "$@"; do printf '%s\\n' "${word##*/}"; done
"""
"""A program in the place of an interpreter: it tells how it was called, paths cut to their last names."""
CALLED = {
    "bash": "bash script",
    "sh": "sh script",
    "zsh": "zsh -f script",
    "ksh": "ksh script",
    "powershell": "pwsh -NoProfile -NonInteractive -File prelude.ps1",
    "cmd": "cmd.exe V:ON D S C script.cmd",
}


@pytest.fixture(scope="module")
def own(running: Running) -> Iterator[Path]:
    """The directory that comes first on the node's PATH. Behind it is everything but the shells that are looked for."""
    own = running.directory / "own-shells"
    own.mkdir()
    bare = path_without(KSH | {"zsh", "pwsh", "cmd.exe"}, running.directory / "no-shells")
    running.enrol(NODE, label="role=shells", PATH=f"{own}{os.pathsep}{bare}")
    yield own
    running.kill(NODE)


@pytest.fixture(autouse=True)
def empty(own: Path) -> Iterator[None]:
    yield
    for file in own.iterdir():
        file.unlink()


def install(own: Path, program: str) -> None:
    """Puts a program in the place of an interpreter on the node."""
    fresh = own / f".{program}"
    fresh.write_text(TELLS)
    fresh.chmod(0o755)
    fresh.rename(own / program)


def advertised(running: Running) -> list[str]:
    found: list[str] = running.get(f"/nodes/{NODE}").data["shells"]
    return found


def wait_for_shell(running: Running, shell: str, *, there: bool) -> None:
    wait_until(lambda: (shell in advertised(running)) is there, lambda: advertised(running))


def plan_of(running: Running, execution: str) -> dict[str, Any]:
    """What the API shows of the one job that the node has of an execution."""
    (job,) = [row["job"] for row in running.units(execution) if row["node"] == NODE]
    found: dict[str, Any] = running.get(f"/workflow-executions/{execution}/jobs/{job}/plan").data
    return found


def ordered(running: Running, job: str) -> dict[str, Any]:
    """The job in the order that the node has in its journal, opened with the node's own keys."""
    home = running.home(NODE)
    identity = load_identity(home)
    with sqlite3.connect(home / "journal.db") as journal:
        query = "SELECT canvas, accepted_at FROM jobs WHERE job = ?"
        canvas, at = journal.execute(query, (job,)).fetchone()
        (epoch,) = journal.execute("SELECT epoch FROM meta").fetchone()
    told = {"installation": identity.installation, "node": NODE, "epoch": epoch, "now": at}
    order = open_order(json.loads(canvas)["token"], identity.keys, identity.control, **told)
    found: dict[str, Any] = json.loads(json.dumps(order.jobs[0].to_json()))
    return found


# S2.21


@pytest.mark.parametrize("shell", SHELLS)
def test_S2_21_each_shell_is_called_by_its_own_words(running: Running, own: Path, shell: str) -> None:
    install(own, SHELLS[shell])
    wait_for_shell(running, shell, there=True)
    answer = running.execute(NODE, script="echo hi", language=shell)
    assert (answer.status, answer.data["status"]) == (200, "succeeded"), answer.data
    assert answer.data["stdout"].split() == CALLED[shell].split()


@pytest.mark.parametrize(("program", "shell"), [("zsh", "zsh"), ("mksh", "ksh"), ("ksh93", "ksh")])
def test_S2_21_the_real_ones_run_scripts(running: Running, own: Path, program: str, shell: str) -> None:
    found = shutil.which(program)
    if found is None:
        assert program == "ksh93" or not os.environ.get("CI"), f"{program} must be there in CI"
        pytest.skip(f"{program} is not installed")
    (own / program).symlink_to(found)
    wait_for_shell(running, shell, there=True)
    script = 'a=(x "y z"); printf "%s|" "${a[@]}" "${ZSH_VERSION:+zsh}${KSH_VERSION:+ksh}"'
    answer = running.execute(NODE, script=script, language=shell)
    assert (answer.data["status"], answer.data["stdout"]) == ("succeeded", f"x|y z|{shell}|"), answer.data


# S2.22


def test_S2_22_a_shell_that_comes_while_the_node_runs_is_used(running: Running, own: Path) -> None:
    assert "zsh" not in advertised(running)
    refused = running.execute(NODE, script="echo hi", language="zsh")
    assert (refused.status, refused.data["code"]) == (422, "no-shell")
    install(own, "zsh")
    wait_for_shell(running, "zsh", there=True)
    assert running.execute(NODE, script="echo hi", language="zsh").data["status"] == "succeeded"
    (own / "zsh").unlink()
    wait_for_shell(running, "zsh", there=False)
    assert running.execute(NODE, script="echo hi", language="zsh").data["code"] == "no-shell"


@pytest.mark.parametrize("shell", ["powershell", "cmd"])
def test_S2_22_nodes_without_the_shell_are_skipped_before_anything_is_sent(
    running: Running, own: Path, shell: str
) -> None:
    install(own, SHELLS[shell])
    wait_for_shell(running, shell, there=True)
    nodes = [NODE, *WEB]
    given = {"nodes": nodes, "shell": shell, "script": "echo hi"}
    found = running.run({"name": "a", "type": "distributed_shell", "input": given})
    assert found["status"] == "completed"
    result = found["output"]["a"]
    assert result["skipped_nodes"] == list(WEB)
    rows = {row["node_id"]: (row["status"], (row["error"] or {}).get("type")) for row in result["results"]}
    assert rows == {NODE: ("succeeded", None), **dict.fromkeys(WEB, ("skipped", "no_shell"))}
    # No order was made for them: what was skipped never began, on any node.
    assert {row["node"] for row in running.units(found["id"]) if row["started_at"]} == {NODE}


# S2.23

WAYS = ("ad hoc", "in a workflow", "on many nodes")


def begin(running: Running, way: str, script: str) -> str:
    """The same script in one of the ways in which a script comes to a node; the execution."""
    if way == "ad hoc":
        answer = running.execute(NODE, script=script, language="bash", timeout=30)
        assert answer.data["status"] == "succeeded", answer.data
        return str(answer.data["execution"])
    given = {"script": script, "shell": "bash"}
    if way == "on many nodes":
        task = {"type": "distributed_shell", "input": {**given, "nodes": [NODE], "timeout": 30}}
    else:
        task = {"action": "core.script", "delegate_to": NODE, "timeout": 30, "input": given}
    return str(running.run({"name": "a", **task})["id"])


@pytest.mark.parametrize("way", WAYS)
def test_S2_23_one_plan_for_every_script(running: Running, way: str) -> None:
    seen = running.effects / f"plan-{way.replace(' ', '-')}"
    script = f'stat -c "%a %n" "$0" "${{0%/*}}" > {seen}\n'
    execution = begin(running, way, script)
    plan = plan_of(running, execution)
    assert plan["files"] == [{"path": "script", "content": script, "mode": 0o700}]
    run, remove = plan["commands"]
    assert (run["argv"], run["timeout"], run["ignore_errors"]) == (["bash", "script"], 30, False)
    assert (remove["argv"], remove["ignore_errors"]) == (["rm", "-f", "script"], True)
    # The very same is in the order that the node has opened, and the file was where nobody else looks.
    told = ordered(running, plan["job"])
    assert [told[name] for name in ("files", "commands")] == [plan[name] for name in ("files", "commands")]
    private = running.home(NODE) / "jobs" / plan["job"]
    assert seen.read_text() == f"700 {private}/script\n700 {private}\n"
    assert not (private / "script").exists()


def test_S2_23_a_program_is_a_plan_without_files(running: Running) -> None:
    answer = running.execute(NODE, command=["printf", "%s", "; reboot"])
    assert answer.data["stdout"] == "; reboot"
    plan = plan_of(running, answer.data["execution"])
    assert (plan["files"], [one["argv"] for one in plan["commands"]]) == ([], [["printf", "%s", "; reboot"]])
    assert os.listdir(running.home(NODE) / "jobs" / plan["job"] / "work") == []


# The guide


@pytest.mark.parametrize("session", sessions(SHELLS_GUIDE), ids=lambda session: " ".join(session[0])[:40])
def test_S2_21_the_guide_to_shells_shows_what_comes(
    running: Running, session: tuple[list[str], list[str]]
) -> None:
    words, lines = session
    shell = words[words.index("--shell") + 1]
    if shutil.which(shell) is None:
        assert not os.environ.get("CI"), f"{shell} must be there in CI"
        pytest.skip(f"{shell} is not installed")
    done = running.muster(*words, role="operator")
    assert (done.stdout + done.stderr).splitlines() == lines


@pytest.mark.parametrize("example", examples(SHELLS_GUIDE), ids=lambda example: example.ref)
def test_S2_22_the_workflows_of_the_guide_to_shells(running: Running, example: Example) -> None:
    file = running.directory / f"{example.ref}.yaml"
    file.write_text(example.source)
    done = running.muster("run", str(file))
    assert (done.returncode, "status=completed" in done.stdout) == (0, True), done.stdout + done.stderr
    if example.shown:
        assert gist(done.stdout) == gist(example.shown)
