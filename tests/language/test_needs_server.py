"""The files of an execution are not there for a part that runs without the server."""

from __future__ import annotations

import pytest

from app.language import parse, source
from app.language.part import Ends, take

PLAIN = "{name: a, action: core.shell, input: {command: ls}"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (f"workspace: sync\ntasks: [{PLAIN}}}]\n", ["part-workspace 1:12"]),
        (f"workspace: sync\ntasks: [{PLAIN}, workspace: none}}]\n", []),
        (f"workspace: {{mode: none}}\ntasks: [{PLAIN}}}]\n", []),
        (f"tasks:\n  - {PLAIN}, workspace: {{mode: pull}}}}\n", ["part-workspace 2:68"]),
        (f"tasks:\n  - {PLAIN}, artifacts: [x]}}\n", ["part-workspace 2:68"]),
        (
            f"tasks:\n  - name: b\n    type: parallel\n    workspace: sync\n    tasks: [{PLAIN}}}]\n",
            ["part-workspace 4:16"],
        ),
    ],
)
def test_files_of_an_execution(text: str, wanted: list[str]) -> None:
    loaded = parse.load(text, "w.yaml", runnable=False)
    root, collector = source.read(text, "w.yaml")
    assert loaded.workflow is not None, loaded.problems
    assert root is not None
    part = take(collector, root, loaded.workflow, Ends("a"))
    assert [f"{one.code} {one.line}:{one.column}" for one in collector.sorted()] == wanted
    assert (part is None) == bool(wanted)
