"""The reader of packs against its case file, and what it gives for a good one."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from app.compiler.build import build
from app.compiler.plan import Plan
from app.language import packs
from app.language.known import NOTHING, action_from_json, action_to_json, digest_of
from app.language.pack_tables import RUNNERS, is_reserved

CASES = yaml.safe_load(
    (Path(__file__).parents[1] / "cases" / "packs" / "bad.yaml").read_text(encoding="utf-8")
)

GOOD = {
    "pack.yaml": "ref: good\nlabel: Good\nversion: '1.10'\nauthor: ada\ntags: [a]\n",
    "config.yaml": "place: {type: string, default: here}\ntoken: {secret: true, required: true}\n",
    "actions/run.sh": 'echo "$word"\n',
    "actions/run.yaml": (
        "name: run\nrunner: sh\nentry: run.sh\ntimeout: 5\nidempotent: true\nok_codes: [0, 3]\n"
        "output: {type: object, required: [id], properties: {id: {type: string}}}\n"
        "parameters:\n  word: {required: true}\n  count: {type: integer, default: 1}\n"
        "  level: {enum: [low, high]}\n  flag: {type: boolean}\n"
    ),
    "workflows/flow.yaml": (
        "ref: good.flow\ntasks:\n  - name: a\n    action: good.run\n"
        "    input: {word: '{{ pack.config.place }}', count: '7'}\n"
    ),
    "rules/on_push.yaml": "trigger: git.push\n",
    "sensors/poll.py": "while True: pass\n",
    "tests/flow.yaml": "workflow: ../workflows/flow.yaml\ntests: []\n",
    "README.md": "# Good\n",
}


def read(case: dict[str, Any]) -> packs.Loaded:
    files = dict(GOOD)
    for path, text in case.get("files", {}).items():
        if text is None:
            del files[path]
        else:
            files[path] = text
    files.update({path: "x" * size for path, size in case.get("large", {}).items()})
    files.update({f"rules/{number}.txt": "x" for number in range(case.get("many", 0))})
    return packs.load(files)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_a_bad_pack_is_refused_with_every_error_in_its_place(case: dict[str, Any]) -> None:
    loaded = read(case)
    assert loaded.pack is None
    errors = [one for one in loaded.problems if one.severity == "error"]
    found = [f"{one.file}:{one.line}:{one.column} {one.code}" for one in errors]
    assert sorted(found) == sorted(case["problems"])
    told = "\n".join(f"{one.message} {one.hint}" for one in errors)
    assert case.get("contains", "") in told


def test_there_are_enough_of_them() -> None:
    assert len(CASES) >= 70
    assert len({case["name"] for case in CASES}) == len(CASES)


def test_a_good_pack() -> None:
    loaded = packs.load(GOOD)
    assert loaded.problems == ()
    pack = loaded.pack
    assert pack is not None
    assert (pack.ref, pack.label, pack.version, pack.author, pack.tags) == (
        "good",
        "Good",
        "1.10",
        "ada",
        ("a",),
    )
    assert [(key.name, key.secret, key.required) for key in pack.config] == [
        ("place", False, False),
        ("token", True, True),
    ]
    action = pack.actions["good.run"]
    assert (action.runner, action.script, action.timeout, action.ok_codes) == (
        "sh",
        'echo "$word"\n',
        5,
        (0, 3),
    )
    assert pack.files.keys() == GOOD.keys()


def test_what_an_action_says_is_in_the_plan_unless_the_task_says_otherwise() -> None:
    def plan(extra: str = "") -> Plan:
        text = GOOD["workflows/flow.yaml"] + extra
        pack = packs.load({**GOOD, "workflows/flow.yaml": text}).pack
        assert pack is not None
        return Plan.from_json(build(pack.workflows["good.flow"].workflow).to_json())

    first = plan()
    task = first.tasks["a"]
    assert (task.kind, task.timeout, task.idempotent, task.runs_on_nodes) == ("job", 5, True, True)
    assert task.input["count"] == 7
    assert first.actions["good.run"]["script"] == 'echo "$word"\n'
    assert first.config_refs == ("place",)
    task = plan("    timeout: 9\n    idempotent: false\n").tasks["a"]
    assert (task.timeout, task.idempotent) == (9, False)
    looped = plan("    with_items: [1]\n").tasks["a"]
    assert (looped.kind, looped.runs_in_engine, looped.has_child) == ("loop", False, False)


def test_the_digest_is_over_what_an_action_does() -> None:
    pack = packs.load(GOOD).pack
    assert pack is not None
    action = pack.actions["good.run"]
    assert action_from_json(action_to_json(action), 0) == replace(
        action, parameters=tuple(replace(one, mark=type(one.mark)(0, 0)) for one in action.parameters)
    )
    assert digest_of(replace(action, description="told better", revision=7)) == digest_of(action)
    for other in (
        replace(action, script="echo\n"),
        replace(action, timeout=6),
        replace(action, parameters=()),
        replace(action, ok_codes=(0,)),
        replace(action, runner="bash"),
        replace(action, output=None),
    ):
        assert digest_of(other) != digest_of(action)


def test_an_action_that_is_another_name_for_a_workflow() -> None:
    files = {
        **GOOD,
        "actions/first.yaml": "runner: workflow\nentry: good.second\nparameters: {x: {default: 1, type: integer}}\n",
        "actions/second.yaml": "runner: workflow\nentry: good.flow\n",
        "workflows/other.yaml": "ref: good.other\ntasks: [{name: a, action: good.first}]\n",
    }
    pack = packs.load(files).pack
    assert pack is not None
    task = build(pack.workflows["good.other"].workflow).tasks["a"]
    assert (task.kind, task.action, task.input, task.has_child) == ("own", "good.flow", {"x": 1}, True)


def test_the_pack_core_gives_the_loader_nothing() -> None:
    """Its metadata is for reading: taken for an action of a pack, core.shell would run no script."""
    files = {"pack.yaml": "ref: core\n", "actions/shell.yaml": "runner: core\nparameters: {command: {}}\n"}
    assert packs.load(files).problems == ()
    assert packs.outline(files) == NOTHING


def test_a_script_that_no_action_names_is_only_doubtful() -> None:
    loaded = packs.load({**GOOD, "actions/spare.sh": "echo\n"})
    assert loaded.pack is not None
    assert [(one.code, one.file, one.severity) for one in loaded.problems] == [
        ("unused-file", "actions/spare.sh", "warning")
    ]


@pytest.mark.parametrize("runner", RUNNERS)
def test_ordinary_names_are_free(runner: str) -> None:
    free = (
        "app_name",
        "timeout",
        "url",
        "directory",
        "count",
        "version",
        "name",
        "id",
        "user",
        "host",
        "Path",
    )
    # PowerShell's own variable of that name cannot be set.
    taken = ["host"] if runner == "powershell" else []
    assert [name for name in free if is_reserved(name, runner)] == taken


def test_a_thousand_problems_end_somewhere() -> None:
    parameters = "".join(f"  LD_{number}: {{}}\n" for number in range(1000))
    files = {**GOOD, "actions/run.yaml": f"runner: sh\nentry: run.sh\nparameters:\n{parameters}"}
    problems = packs.load(files).problems
    assert 200 <= len(problems) <= 202
    assert "too-many-problems" in {one.code for one in problems}


SNIPPETS = ("", "x", "1", "null", "[]", "{}", "[x]", "{a: b}", "true", "'{{ x }}'", "&a x", "*a", "- x", "{")
ODD = ("\0", "\u2028", "\ud800")


@settings(max_examples=300, deadline=None, derandomize=True)
@given(data=st.data())
def test_no_text_makes_the_reader_raise(data: st.DataObject) -> None:
    """Pieces of good files exchanged for something else; whatever comes of it, it is a pack or has a problem."""
    files = dict(GOOD)
    for _ in range(data.draw(st.integers(1, 4))):
        path = data.draw(st.sampled_from(sorted(files)))
        pieces = re.split(r"([ :,\n]+)", files[path])
        at = data.draw(st.integers(0, len(pieces) - 1))
        pieces[at] = data.draw(st.one_of(st.sampled_from([*SNIPPETS, *ODD]), st.text(max_size=5)))
        files[path] = "".join(pieces)
    loaded = packs.load(files)
    assert (loaded.pack is None) == any(one.severity == "error" for one in loaded.problems)
    if loaded.pack is not None:
        for packed in loaded.pack.workflows.values():
            assert build(packed.workflow).tasks


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.dictionaries(st.text(max_size=30), st.text(max_size=30), max_size=5))
def test_no_path_makes_the_reader_raise(files: dict[str, str]) -> None:
    loaded = packs.load(files)
    assert loaded.pack is None
    assert loaded.problems
    assert packs.outline(files).references is not None
