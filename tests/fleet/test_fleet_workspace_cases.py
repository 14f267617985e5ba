"""Every case of `workspaces/fleet.yaml` with real directories, nodes and downloads; and more than one execution."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from fleet_files import Files, texts_in, write_tree
from fleet_processes import ROOT
from sqlalchemy import select

from app.store.tables import Execution, table

pytestmark = [pytest.mark.fleet, pytest.mark.timeout(180)]

executions = table(Execution)
CASES = yaml.safe_load((ROOT / "tests" / "cases" / "workspaces" / "fleet.yaml").read_text())


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_files_on_a_real_fleet(files: Files, tmp_path: Path, case: dict[str, Any]) -> None:
    digest = ""
    if "start" in case or "empty" in case:
        digest = files.upload(write_tree(tmp_path / "in", case.get("start", {}), case.get("empty", ())))
    execution = files.begin(case["workflow"], digest)
    row = files.fleet.wait_for(execution)
    story = files.fleet.story(execution)
    assert row.status == case.get("status", "completed"), story
    assert (row.output or {}) == case.get("output", {}), story
    texts = files.texts(execution, tmp_path / "out")
    first = texts == case["files"]
    assert texts == (case["files"] if first else case.get("either", case["files"])), story
    modes = {path: (tmp_path / "out" / path).stat().st_mode & 0o7777 for path in case.get("modes", {})}
    assert modes == {path: int(mode, 8) for path, mode in case.get("modes", {}).items()}
    assert list(files.now(execution).directories) == case.get("directories", [])
    errors = files.errors(execution)
    for job, (kind, *says) in case.get("errors", {}).items():
        assert errors[job]["type"] == kind, story
        assert all(words in errors[job]["message"] for words in says), errors[job]
    if "conflict" in case:
        (error,) = errors.values()
        assert error["type"] == "workspace_conflict", story
        assert all(words in error["message"] for words in case["conflict"]), error
        lost = "two" if first else "one"
        kept = files.artifacts(execution, "kept")
        assert {path: text for (_, path), text in kept.items()} == dict.fromkeys(
            ("same", lost), "21"[not first]
        )
    for kind, wanted in (("artifact", case.get("artifacts", {})), ("kept", case.get("kept"))):
        if wanted is not None:
            found = files.artifacts(execution, kind)
            assert {f"{node} {path}": text for (node, path), text in found.items()} == wanted
    files.wait_nothing_left()


CHILD = """
ref: files.child
workspace: sync
tasks:
  - {name: in, action: core.shell, delegate_to: web-2, input: {command: "ls -A | wc -l; printf c > of-child"}}
output_map: {found: "{{ task.in.result.stdout }}"}
"""
PARENT = """
workspace: sync
tasks:
  - {name: before, action: core.shell, delegate_to: web-1, on_success: call, input: {command: "printf p > of-parent"}}
  - {name: call, type: workflow, action: files.child, on_success: after}
  - {name: after, action: core.shell, delegate_to: web-2, input: {command: ls}}
output_map: {found: "{{ task.call.result.found }}", after: "{{ task.after.result.stdout }}"}
"""


def test_a_called_workflow_has_files_of_its_own(files: Files, tmp_path: Path) -> None:
    """And a stored one that nobody brings files begins empty, as from a schedule."""
    stored = files.api.post("/packs/files/workflows", {"definition": CHILD}, "author")
    assert stored.status == 201, stored.data
    parent = files.begin(PARENT, files.upload(write_tree(tmp_path / "in", {"given": "g"})))
    row = files.fleet.wait_for(parent)
    assert row.output == {"found": "0", "after": "given\nof-parent"}, files.fleet.story(parent)
    assert files.texts(parent, tmp_path / "parent") == {"given": "g", "of-parent": "p"}
    with files.fleet.store.read() as connection:
        child = connection.execute(select(executions.c.id).where(executions.c.parent == parent)).scalar_one()
    assert files.texts(child, tmp_path / "child") == {"of-child": "c"}
    begun = files.api.post("/workflows/files.child/execute", {"parameters": {}}, "author")
    assert files.fleet.wait_for(begun.data["id"]).output == {"found": "0"}


AGAIN = """
parameters: {gate: {type: string}}
workspace: sync
tasks:
  - {name: a, action: core.shell, delegate_to: web-1, on_success: b, input: {command: "printf a > a"}}
  - {name: b, action: core.shell, delegate_to: web-2,
     input: {command: "cat a; printf b >> a; test -e {{ parameters.gate }}"}}
"""


def test_a_retry_goes_on_with_the_files_as_they_are(files: Files, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    execution = files.begin(AGAIN, gate=str(gate))
    assert files.fleet.wait_for(execution).status == "failed"
    assert files.texts(execution, tmp_path / "failed") == {"a": "a"}
    gate.touch()
    assert files.api.post(f"/workflow-executions/{execution}/retry", {}).status == 202
    assert files.fleet.wait_for(execution).status == "completed", files.fleet.story(execution)
    assert files.texts(execution, tmp_path / "again") == {"a": "ab"}
    assert files.artifacts(execution, "kept") == {("web-2", "a"): "ab"}
    assert [job.attempt for job in files.fleet.jobs(execution, "a")] == [1]


CHANGES_ONE = """
workspace: sync
tasks:
  - {name: a, action: core.shell, delegate_to: web-1, input: {command: "printf changed > d3/33"}}
"""


def test_one_file_of_a_thousand_is_all_that_travels(files: Files, tmp_path: Path) -> None:
    """To the node and back; and from a person's directory, where another one of them was changed."""
    texts = {f"d{number % 10}/{number}": f"{number}\n" * 200 for number in range(1000)}
    place = write_tree(tmp_path / "in", texts)
    files.fleet.wait_for(files.begin(CHANGES_ONE, files.upload(place)))
    (place / "d4" / "44").write_text("another")
    wire, asked = files.wire, len(files.wire.asked)
    up, down = wire.up, wire.down
    execution = files.begin(CHANGES_ONE, files.upload(place))
    assert files.fleet.wait_for(execution).status == "completed"
    texts |= {"d3/33": "changed", "d4/44": "another"}
    assert files.texts(execution, tmp_path / "out") == texts
    assert texts_in(place) == {**texts, "d3/33": "33\n" * 200}
    about = [one.partition("/snapshots/")[0] for one in wire.asked[asked:]]
    assert about == [
        "GET /api/v1",
        "POST /api/v1/blobs/fetch",
        "POST /api/v1/blobs/missing",
        "POST /api/v1/blobs/bundle",
    ]
    manifest = len(files.now(execution).to_bytes())
    assert wire.down - down < manifest + 4000, "the manifest and one small file"
    assert wire.up - up < 8000, "a pass with each request, and one small file"
