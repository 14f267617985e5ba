"""The loader against its case files: what loads and as what, what does not and where it says so."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.language import parse
from app.language.problems import Problem

CASES = Path(__file__).parents[1] / "cases" / "language"
MOST_SECONDS = 1.0


def cases(pattern: str) -> list[Any]:
    return [
        pytest.param(case, id=f"{path.stem}: {case['name']}")
        for path in sorted(CASES.glob(pattern))
        for case in yaml.safe_load(path.read_text(encoding="utf-8"))
    ]


def at(value: Any, path: str) -> Any:
    """The part of a model at a dotted path; pairs and tuples come out as lists."""
    for step in path.split("."):
        if step.isdigit():
            value = value[int(step)]
        else:
            value = value[step] if isinstance(value, dict) else getattr(value, step)
    return plain(value)


def plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return {key: plain(item) for key, item in value.items()} if isinstance(value, dict) else value


def place(problem: Problem) -> tuple[str, str]:
    return problem.code, f"{problem.line}:{problem.column}"


def check_problems(found: list[Problem], expected: list[dict[str, str]]) -> None:
    assert sorted(map(place, found)) == sorted((one["code"], one["at"]) for one in expected)
    for one in expected:
        messages = [problem.message for problem in found if place(problem) == (one["code"], one["at"])]
        assert any(one.get("contains", "") in message for message in messages)


@pytest.mark.parametrize("case", cases("bad_*.yaml"))
def test_a_bad_workflow_is_refused_with_every_error_in_its_place(case: dict[str, Any]) -> None:
    started = time.perf_counter()
    loaded = parse.load(case["text"], "bad.yaml", runnable=case.get("runnable", True))

    assert time.perf_counter() - started < MOST_SECONDS
    assert loaded.workflow is None
    check_problems([one for one in loaded.problems if one.severity == "error"], case["problems"])


@pytest.mark.parametrize("case", cases("warnings.yaml"))
def test_a_doubtful_workflow_loads_with_a_warning(case: dict[str, Any]) -> None:
    loaded = parse.load(case["text"])

    assert loaded.workflow is not None
    check_problems(list(loaded.problems), case["problems"])


@pytest.mark.parametrize("case", cases("good.yaml"))
def test_a_good_workflow_loads_as_written(case: dict[str, Any]) -> None:
    loaded = parse.load(case["text"], runnable=case.get("runnable", True))

    assert [one.code for one in loaded.problems] == case.get("warnings", [])
    for path, value in case.get("expect", {}).items():
        assert at(loaded.workflow, path) == value


@pytest.mark.parametrize("case", cases("good.yaml"))
def test_bytes_and_line_ends_make_no_difference(case: dict[str, Any]) -> None:
    runnable = case.get("runnable", True)
    loaded = parse.load(case["text"], runnable=runnable)

    assert parse.load(case["text"].encode(), runnable=runnable) == loaded
    windows = parse.load(case["text"].replace("\n", "\r\n"), runnable=runnable)
    assert windows.workflow == loaded.workflow
    assert [place(one) for one in windows.problems] == [place(one) for one in loaded.problems]


def test_there_are_cases_enough() -> None:
    assert len({str(case.values[0]["text"]) for case in cases("bad_*.yaml")}) >= 335
    assert len(cases("good.yaml")) >= 32
