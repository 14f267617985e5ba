"""Patterns mean what people expect of them, and none takes long."""

from __future__ import annotations

import time
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from app.files.names import BadTree, Globs

CASES: list[dict[str, Any]] = yaml.safe_load(
    (Path(__file__).parents[1] / "cases" / "files" / "globs.yaml").read_text()
)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_patterns(case: dict[str, Any]) -> None:
    if "bad" in case:
        with pytest.raises(BadTree, match="cannot be a pattern"):
            Globs([case["bad"]])
        return
    globs = Globs(case.get("include", ()), case.get("exclude", ()))
    assert [path for path in case.get("takes", ()) if not globs.takes(path)] == []
    assert [path for path in case.get("leaves", ()) if globs.takes(path)] == []
    assert [path for path in case.get("enter", ()) if not globs.may_enter(path)] == []
    assert [path for path in case.get("spare", ()) if globs.may_enter(path)] == []


NAMES = st.lists(st.sampled_from(["a", "b", "ab"]), min_size=1, max_size=5)
PARTS = st.lists(st.sampled_from(["a", "b", "*", "a*", "**"]), min_size=1, max_size=5)


def slowly(pattern: list[str], names: list[str]) -> bool:
    """The meaning, by going through every way there is."""
    if not pattern:
        return True
    if pattern[0] == "**":
        return any(slowly(pattern[1:], names[skipped:]) for skipped in range(len(names) + 1))
    return bool(names) and fnmatchcase(names[0], pattern[0]) and slowly(pattern[1:], names[1:])


@given(PARTS, NAMES)
def test_patterns_mean_what_they_mean_by_the_slow_way(pattern: list[str], names: list[str]) -> None:
    globs = Globs(["/".join(pattern)])
    assert globs.takes("/".join(names)) == slowly(pattern, names)


@given(PARTS, NAMES, NAMES)
def test_no_walk_passes_by_what_is_taken(pattern: list[str], above: list[str], below: list[str]) -> None:
    text = "/".join(pattern)
    for globs in (Globs([text]), Globs((), [text])):
        if globs.takes("/".join(above + below)):
            assert globs.may_enter("/".join(above))


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("*a" * 60 + "b", "a" * 255),
        ("/".join(["**", "a*"] * 100), "/".join(["a" * 30] * 32)),
        ("/".join(["**", "*a*a*a*b"] * 50), "/".join(["a" * 30] * 32)),
        ("[a-z]*" * 40 + "0", "a" * 255),
    ],
    ids=["stars", "stars of names", "both", "classes"],
)
def test_no_pattern_takes_long(pattern: str, path: str) -> None:
    globs = Globs([pattern])
    began = time.thread_time()
    for _ in range(10):
        globs.takes(path)
    assert time.thread_time() - began < 0.5


def test_patterns_are_counted_and_measured() -> None:
    with pytest.raises(BadTree, match="more than 1000 patterns"):
        Globs(["a"] * 501, ["b"] * 500)
    with pytest.raises(BadTree, match="at most 1024 bytes"):
        Globs(["a" * 1025])
