"""Seed 001, files: S1.1 and S1.7 to S1.9, from a person's directory to nodes, from one to the other, and back."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from guide import Example, examples, gist
from running import GUIDE, MUSTER, Running
from waiting import wait_until

from app.cli.client import Client
from app.cli.failures import ApiProblem

pytestmark = [pytest.mark.fleet, pytest.mark.timeout(180)]

TOGETHER = """\
ref: files.together
workspace: {mode: sync, exclude: ["*.tmp"]}
tasks:
  - name: compile
    action: core.shell
    delegate_to: web-1
    input:
      command: |
        mkdir -p out && tr a-z A-Z < src/in.txt > out/result.txt
        touch scratch.tmp
        rm old.txt && pwd
    artifacts: "out/**"
    on_success: change
  - name: change
    action: core.shell
    delegate_to: web-2
    input: {command: "echo $MUSTER_NODE >> out/result.txt && chmod 755 out/result.txt && test ! -e old.txt"}
    on_success: look
  - name: look
    action: core.shell
    workspace: push
    input: {command: "cat out/result.txt; ls; echo lost > src/in.txt"}
"""

CLASH = """\
ref: files.clash
workspace: sync
tasks:
  - name: both
    type: distributed_shell
    input: {nodes: [web-1, web-2], script: "echo $MUSTER_NODE > same.txt"}
"""

FAILS = """\
ref: files.fails
workspace: sync
tasks:
  - name: half
    action: core.shell
    delegate_to: web-3
    input: {command: "echo half > half.txt; exit 3"}
"""


LARGE = """\
ref: files.large
workspace: sync
tasks:
  - name: make
    action: core.shell
    delegate_to: web-1
    input: {command: "head -c 20000000 /dev/urandom > large.bin && sha256sum < large.bin"}
    on_success: check
  - name: check
    action: core.shell
    delegate_to: web-2
    input: {command: "sha256sum < large.bin"}
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory as a person has it."""
    directory = tmp_path / "work"
    (directory / "src").mkdir(parents=True)
    (directory / "src" / "in.txt").write_text("hello\n")
    (directory / "old.txt").write_text("old\n")
    return directory


def run(running: Running, tmp_path: Path, text: str, place: Path, *more: str) -> Any:
    file = tmp_path / "workflow.yaml"
    file.write_text(text)
    return running.muster("run", str(file), "--workspace", str(place), *more)


def execution_of(done: Any) -> str:
    found = re.search(r"execution=(\w{26})", done.stdout)
    assert found, done.stdout + done.stderr
    return found[1]


def shown(running: Running, *words: str) -> Any:
    done = running.muster("execution", *words, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def contents(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): path.read_text() for path in directory.rglob("*") if path.is_file()
    }


def test_S1_09_files_go_from_node_to_node_and_come_back(
    running: Running, tmp_path: Path, place: Path
) -> None:
    (place / "src" / "link").symlink_to("in.txt")
    done = run(running, tmp_path, TOGETHER, place, "--bring-back")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "left out, for they are no files: src/link\n" in done.stderr
    assert (place / "src" / "link").is_symlink()
    (place / "src" / "link").unlink()
    execution = execution_of(done)
    result = "HELLO\nweb-2\n"
    assert contents(place) == {"src/in.txt": "hello\n", "out/result.txt": result}
    assert (place / "out" / "result.txt").stat().st_mode & 0o777 == 0o755
    assert done.stdout.endswith(f"workspace={place} put=1 removed=1 conflicts=0\n")
    said = "".join(item["text"] for item in shown(running, "output", execution, "--task", "look")["items"])
    assert said.startswith(f"{result}out\nsrc\n")
    state = shown(running, "workspace", execution, "--paths")
    assert [(step["task"], step["node"], step["paths"]) for step in state["steps"]] == [
        ("compile", "web-1", {"added": ["out/result.txt"], "changed": [], "deleted": ["old.txt"]}),
        ("change", "web-2", {"added": [], "changed": ["out/result.txt"], "deleted": []}),
    ]
    (artifact,) = shown(running, "artifacts", execution)["items"]
    assert (artifact["path"], artifact["task"], artifact["kind"]) == ("out/result.txt", "compile", "artifact")
    kept = running.muster("execution", "artifact", execution, "out/result.txt")
    assert kept.stdout == "HELLO\n"


def test_S1_08_the_task_runs_in_a_directory_of_its_own_that_goes(
    running: Running, tmp_path: Path, place: Path
) -> None:
    execution = execution_of(run(running, tmp_path, TOGETHER, place))
    (said,) = [
        item["text"].strip()
        for item in shown(running, "output", execution, "--task", "compile", "--stream", "stdout")["items"]
    ]
    assert {"workspaces", f"{execution}.compile.0.1"} <= set(Path(said).parts)
    assert not Path(said).exists()
    assert contents(place) == {"src/in.txt": "hello\n", "old.txt": "old\n"}


def test_S1_09_two_that_change_one_file_differently_are_named(
    running: Running, tmp_path: Path, place: Path
) -> None:
    done = run(running, tmp_path, CLASH, place, "--bring-back")
    assert done.returncode == 1
    errors = [item["error"] for item in shown(running, "tasks", execution_of(done))["items"] if item["error"]]
    assert "workspace_conflict" in {error["type"] for error in errors}
    assert any("web-1" in error["message"] and "web-2" in error["message"] for error in errors)
    assert any("same.txt" in error["message"] for error in errors)


def test_S1_09_what_a_failed_task_had_changed_is_kept_and_not_merged(
    running: Running, tmp_path: Path, place: Path
) -> None:
    before = contents(place)
    done = run(running, tmp_path, FAILS, place, "--bring-back")
    assert done.returncode == 1
    execution = execution_of(done)
    assert contents(place) == before
    (kept,) = shown(running, "artifacts", execution)["items"]
    assert (kept["path"], kept["kind"], kept["node"]) == ("half.txt", "kept", "web-3")
    assert running.muster("execution", "artifact", execution, kept["id"]).stdout == "half\n"


def test_S1_09_a_file_that_its_person_changed_meanwhile_is_left_alone(
    running: Running, tmp_path: Path, place: Path
) -> None:
    late = TOGETHER.replace("rm old.txt && pwd", f"rm old.txt && echo mine > {place}/old.txt")
    done = run(running, tmp_path, late, place, "--bring-back")
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stderr.startswith("conflict: old.txt was changed here meanwhile, and is left alone\nhint: ")
    assert contents(place)["old.txt"] == "mine\n"
    assert contents(place)["out/result.txt"] == "HELLO\nweb-2\n"
    target = tmp_path / "as it is"
    assert running.muster("execution", "workspace", execution_of(done), "--to", str(target)).returncode == 0
    assert contents(target) == {"src/in.txt": "hello\n", "out/result.txt": "HELLO\nweb-2\n"}


def test_S1_09_a_large_file_goes_alone(running: Running, tmp_path: Path, place: Path) -> None:
    done = run(running, tmp_path, LARGE, place, "--bring-back")
    assert done.returncode == 0, done.stdout + done.stderr
    said = {
        item["text"] for item in shown(running, "output", execution_of(done), "--stream", "stdout")["items"]
    }
    digest = hashlib.sha256((place / "large.bin").read_bytes()).hexdigest()
    assert said == {f"{digest}  -\n"}


@pytest.mark.parametrize(
    ("role", "headers", "status", "code"),
    [
        ("author", {"Content-Range": "bytes 5-8388612/16000000"}, 409, "wrong-offset"),
        ("viewer", {}, 403, "role-required"),
    ],
    ids=["at the wrong place", "without the role"],
)
def test_S1_09_a_refusal_arrives_though_the_body_is_long(
    running: Running, role: str, headers: dict[str, str], status: int, code: str
) -> None:
    body = bytes(8 << 20)
    path = f"/api/v1/blobs/sha256:{'ab' * 32}"
    client = Client(running.url, running.tokens[role])
    with pytest.raises(ApiProblem) as refused:
        client.call("PUT", path, body=body, headers=headers)
    assert (refused.value.status, refused.value.code) == (status, code)


STORY = """\
ref: files.story
workspace: sync
tasks:
  - {name: make, action: core.shell, delegate_to: web-1, on_success: change,
     input: {command: "echo made on $MUSTER_NODE > story.txt; echo done there"}}
  - {name: change, action: core.shell, delegate_to: web-2, on_success: read,
     input: {command: "echo changed on $MUSTER_NODE >> story.txt; rm old.txt"}}
  - {name: read, action: core.shell, input: {command: "cat story.txt; echo read on $MUSTER_NODE"}}
output_map: {said: "{{ task.make.result.stdout }}", read: "{{ task.read.result.stdout }}"}
"""


def test_S1_01_a_node_executes_and_gives_back_the_result_and_the_files(
    running: Running, tmp_path: Path, place: Path
) -> None:
    done = run(running, tmp_path, STORY, place, "--bring-back")
    assert done.returncode == 0, done.stdout + done.stderr
    execution = execution_of(done)
    story = "made on web-1\nchanged on web-2\n"
    found = running.execution(execution)
    assert found["output"] == {"said": "done there", "read": f"{story}read on local"}
    units = {unit["task"]: (unit["node"], unit["status"]) for unit in running.units(execution)}
    nodes = {"make": "web-1", "change": "web-2", "read": "local"}
    assert units == {task: (node, "succeeded") for task, node in nodes.items()}
    assert contents(place) == {"src/in.txt": "hello\n", "story.txt": story}


LISTED = """\
ref: files.listed
workspace: push
tasks:
  - {name: list, action: core.shell, delegate_to: web-1,
     input: {command: "find . -printf '%y %m %P\\n'; find . -type f -exec sha256sum {} +"}}
output_map: {listed: "{{ task.list.result.stdout }}"}
"""


def test_S1_07_what_is_sent_is_the_working_directory(running: Running, tmp_path: Path, place: Path) -> None:
    """Every file in it by its bytes and its mode, the hidden ones too, and directories without files."""
    (place / ".hidden").write_bytes(bytes(range(256)) * 100)
    (place / "src" / "run me.sh").write_text("#!/bin/sh\n")
    (place / "src" / "run me.sh").chmod(0o750)
    (place / "empty" / "inner").mkdir(parents=True)
    file = tmp_path / "workflow.yaml"
    file.write_text(LISTED)
    done = subprocess.run(
        [*MUSTER, "run", str(file), "--workspace", "."],
        env=running.client_environment("author"),
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = running.execution(execution_of(done))["output"]["listed"].splitlines()
    listed = {line.split(" ", 2)[2]: line.split(" ", 2)[:2] for line in lines if line[1] == " "}
    for path in [one for one in place.rglob("*") if one.is_file()]:
        mode = f"{path.stat().st_mode & 0o777:o}"
        assert listed.pop(str(path.relative_to(place))) == ["f", mode]
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert f"{digest}  ./{path.relative_to(place)}" in lines
    assert {name: kind for name, (kind, _) in listed.items()} == dict.fromkeys(
        ("", "src", "empty", "empty/inner"), "d"
    )


OWN = """\
ref: files.own
workspace: sync
tasks:
  - name: two
    type: distributed_shell
    merge: per_node
    input: {nodes: [web-1, web-2], script: 'pwd; stat -c %a .; ls -A; echo "$MUSTER_NODE" > own'}
output_map: {said: "{{ task.two.result.results | map(attribute='stdout') | list }}"}
"""


def test_S1_08_the_directory_is_fresh_and_private(running: Running, tmp_path: Path, place: Path) -> None:
    seen = []
    for _ in range(2):
        done = run(running, tmp_path, OWN, place)
        assert done.returncode == 0, done.stdout + done.stderr
        seen += running.execution(execution_of(done))["output"]["said"]
    directories = [said.splitlines()[0] for said in seen]
    assert len(set(directories)) == 4
    assert [said.splitlines()[1:] for said in seen] == [["700", "old.txt", "src"]] * 4
    wait_until(lambda: not any(Path(one).exists() for one in directories))


GUIDE_OF_FILES = GUIDE.with_name("files.md")
SITE = {"src/about.md": "About\n=====\n", "src/index.md": "Home\n====\n", "src/notes.tmp": "draft\n"}


@pytest.mark.parametrize("example", examples(GUIDE_OF_FILES), ids=lambda example: example.ref)
def test_S1_09_the_guide_s_examples_do_what_it_shows(
    running: Running, tmp_path: Path, example: Example
) -> None:
    for path, text in SITE.items():
        (tmp_path / "site" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "site" / path).write_text(text)
    first, *_ = example.shown.splitlines()
    words = shlex.split(first.removeprefix("$ muster run "))
    (tmp_path / words[0]).write_text(example.source)
    places = {words[0]: str(tmp_path / words[0]), "site": str(tmp_path / "site")}
    done = running.muster("run", *(places.get(word, word) for word in words[0:]))
    # Which one of two is the second is not the same each time.
    ours, shown_ = (sorted(row[1:] for row in gist(text)[0]) for text in (done.stdout, example.shown))
    assert ours == shown_, done.stdout + done.stderr
    wanted = set(example.shown.splitlines()[1:])
    same = [line for line in done.stdout.splitlines() if "│" in line or line.startswith("workspace=")]
    assert {line.replace(str(tmp_path / "site"), "site") for line in same} <= wanted, done.stdout
