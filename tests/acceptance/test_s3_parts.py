"""Seed 003: the command of the far side, `run --entry-point --exit-point --input --output`, as people type it here.

S3.8 and scenario 001.3-INT-005 are about that command; that flows call it so is in test_s3_flows.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from app.pyz import archive, contents

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "user" / "guides" / "parts.md"
MUSTER = (sys.executable, "-m", "app.cli.main")

NESTED = """
ref: acceptance.nested
parameters: {region: {type: string, required: true}}
vars: {seen: []}
tasks:
  - {name: prepare, action: core.approval, input: {prompt: Begin?}, on_success: fan_out}
  - name: fan_out
    type: parallel
    publish: [{seen: "{{ vars.seen | append(task.fan_out.result.check.warnings) }}"}]
    on_success: fan_in
    on_failure: repair
    tasks:
      - name: build
        action: core.shell
        with_items: [api, web, worker]
        batch_size: 2
        concurrency: 1
        retry: {count: 1, delay: 0}
        input: {command: "echo {{ parameters.region }} {{ item | join('+') }} of {{ task.prepare.result.ticket }}"}
      - name: check
        action: core.shell
        when: "{{ vars.strict }}"
        input: {command: 'echo "{\\"warnings\\": 2}" > "$MUSTER_OUTPUT"'}
      - {name: lint, action: core.fail, when: "{{ not vars.strict }}"}
  - name: repair
    action: core.fail
  - name: fan_in
    action: core.noop
    decision: [{when: "{{ vars.seen | length > 0 }}", next: report}, {default: repair}]
  - name: report
    action: core.echo
    input: {message: "{{ task.build.result | length }} builds, {{ vars.seen }} warnings, {{ task.lint.status }}"}
    on_success: deploy
  - {name: deploy, action: core.http, input: {url: "http://127.0.0.1:1/"}}
"""
GIVEN = {
    "parameters": {"region": "eu ü"},
    "vars": {"strict": True},
    "task": {"prepare": {"status": "succeeded", "result": {"ticket": 'T-1 "; id'}}},
}


@pytest.fixture(scope="module")
def pyz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("pyz") / "muster.pyz"
    archive.write(target, archive.build(contents.modules(), contents.rest()))
    return target


def run(how: tuple[str, ...], directory: Path, *ends: str) -> tuple[int, dict[str, Any]]:
    directory.mkdir()
    (directory / "workflow.yaml").write_text(
        NESTED.replace("vars: {seen: []}", "vars: {seen: [], strict: false}")
    )
    (directory / "in.json").write_text(json.dumps(GIVEN))
    words = [*how, "run", "workflow.yaml", *ends, "--input", "in.json", "--output", "out.json"]
    done = subprocess.run(words, cwd=directory, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    left: dict[str, Any] = json.loads((directory / "out.json").read_text())
    return done.returncode, left


def test_S3_08_a_part_of_a_nested_workflow_from_one_task_up_to_another(pyz: Path, tmp_path: Path) -> None:
    ends = ("--entry-point", "fan_out", "--exit-point", "deploy")
    code, left = run(MUSTER, tmp_path / "here", *ends)
    assert (code, left["status"], left["error"]) == (0, "completed", None)
    assert left["parameters"] == {"region": "eu ü"}
    assert left["vars"] == {"seen": [2], "strict": True}
    statuses = {name: one["status"] for name, one in left["task"].items()}
    assert statuses == {
        "prepare": "succeeded",
        "fan_out": "succeeded",
        "build": "succeeded",
        "check": "succeeded",
        "lint": "skipped",
        "repair": "not_reached",
        "fan_in": "succeeded",
        "report": "succeeded",
    }
    said = [one["stdout"] for one in left["task"]["build"]["result"]]
    assert said == ['eu ü api+web of T-1 "; id', 'eu ü worker of T-1 "; id']
    assert left["task"]["report"]["result"]["message"] == "2 builds, [2] warnings, skipped"
    bare = (sys.executable, "-I", "-S", str(pyz))
    assert run(bare, tmp_path / "there", *ends) == (code, left)


def test_S3_08_a_branch_of_a_block_alone(tmp_path: Path) -> None:
    """As each flow is run: from the branch up to what follows the block."""
    code, left = run(MUSTER, tmp_path / "here", "--entry-point", "check", "--exit-point", "fan_in")
    assert (code, left["status"], left["task"]["check"]["result"]["warnings"]) == (0, "completed", 2)
    assert {*left["task"]} == {"prepare", "check"}


def sessions() -> list[tuple[list[str], list[str]]]:
    """Every `$ muster …` of the guide: the words of the command, and the lines that it said."""
    shown = re.findall(r"^```console\n\$ muster (.*?)```$", GUIDE.read_text(), re.M | re.S)
    return [(shlex.split(first), lines) for first, *lines in (text.splitlines() for text in shown)]


def test_S3_08_the_guide_shows_what_comes(tmp_path: Path) -> None:
    """Lines of units that run at the same time may change places."""
    workflow = re.search(r"^```yaml\n(.*?)```$", GUIDE.read_text(), re.M | re.S)
    assert workflow is not None
    (tmp_path / "release.yaml").write_text(workflow[1])
    assert [words[0] for words, _ in sessions()] == ["run", "run", "run", "pyz"]
    for words, lines in sessions():
        done = subprocess.run(
            [*MUSTER, *words], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )
        if lines:
            assert sorted((done.stdout + done.stderr).splitlines()) == sorted(lines)
    state = re.search(r"^```json\n(.*?)```$", GUIDE.read_text(), re.M | re.S)
    assert state is not None
    (tmp_path / "in.json").write_text(state[1])
    words = [
        "run",
        "release.yaml",
        "--entry-point",
        "collect",
        "--exit-point",
        "ask",
        "--input",
        "in.json",
        "--json",
    ]
    done = subprocess.run(
        [*MUSTER, *words], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    assert json.loads(done.stdout)["vars"] == {"image": "app:1.5", "warnings": 2}
