"""What no case of `muster test` reaches: texts of all kinds, called workflows, and the bound on events."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from app.errors import InvalidInput
from app.rehearse import play as playing
from app.rehearse.coverage import edges, fired
from app.rehearse.judge import MISSING, Difference, compare, differences, same
from app.rehearse.load import Loaded, load

CORPUS = sorted((Path(__file__).parents[1] / "cases" / "language").glob("*.yaml"))


def opened(path: str) -> bytes:
    raise InvalidInput(f"{path}: there are no files here")


def load_text(text: str) -> Loaded:
    return load(text, "t.test.yaml", opened, runnable=False)


@pytest.mark.parametrize("file", CORPUS, ids=lambda file: file.name)
def test_no_text_is_too_bad_to_be_read(file: Path) -> None:
    """Whatever is wrong with a workflow, alone or inside a test file, is told as problems."""
    for case in yaml.safe_load(file.read_text()):
        text = case.get("text") or case.get("workflow") or case.get("yaml") or ""
        assert load_text(text).suite is None
        inside = "workflow:\n" + "".join(f"  {line}\n" for line in str(text).splitlines())
        loaded = load_text(inside + "tests: [{name: one, expect: {status: completed}}]\n")
        assert (loaded.suite is None) == any(one.severity == "error" for one in loaded.problems)


CALLS = """
workflow:
  tasks:
    - name: call
      type: workflow
      action: other.workflow
      retry: {count: 1, delay: 5}
      input: {n: 1}
      publish: [{n: "{{ task.call.result.n }}"}]
      on_failure: h
    - {name: h, action: core.noop}
tests:
  - name: the second call is good
    children: {call: [failed, {output: {n: 2}, after: 10}]}
    expect: {status: completed, vars: {n: 2}, waits: [5], took: 15}
  - name: both fail
    children: {call: {status: failed, message: no}}
    expect: {degraded: true, errors: {call: child}, order: [call, h]}
"""


def test_called_workflows_end_as_given() -> None:
    loaded = load_text(CALLS)
    assert loaded.suite is not None, loaded.problems
    reached = set()
    for case in loaded.suite.cases:
        played = playing.play(loaded.suite.plan, case)
        assert (differences(case.expect, played), played.complaints) == ([], [])
        reached |= fired(played.world)
    assert [str(edge) for edge in edges(loaded.suite.plan)] == [str(edge) for edge in reached]


def test_a_test_ends_after_so_many_events(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(playing, "MOST_EVENTS", 10)
    loaded = load_text(
        "workflow: {tasks: [{name: a, action: core.sleep, with_items: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], "
        "input: {seconds: 1}}]}\ntests: [{name: long, expect: {status: completed}}]\n"
    )
    assert loaded.suite is not None, loaded.problems
    played = playing.play(loaded.suite.plan, loaded.suite.cases[0])
    assert played.complaints == ["stopped after 10 events"]


@pytest.mark.parametrize(
    ("left", "right", "alike"),
    [
        (1, 1.0, True),
        (True, 1, False),
        ([1], (1,), True),
        ({"a": [True]}, {"a": [1]}, False),
        ("1", 1, False),
    ],
)
def test_values_are_alike_as_json(left: object, right: object, alike: bool) -> None:
    assert same(left, right) is alike


def test_a_key_too_many_is_a_difference() -> None:
    found = list(compare("vars.x", {"a": "nothing"}, {"a": "nothing", "b": None}))
    assert found == [Difference("vars.x.b", MISSING, None)]
