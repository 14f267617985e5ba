"""Values that a node sent, as every database keeps them."""

from __future__ import annotations

from typing import Any

import pytest

from app.jobs.result import storable

CASES: list[tuple[Any, Any]] = [
    ("plain", "plain"),
    ("two\nlines\tand \u00e4\U0001f600", "two\nlines\tand \u00e4\U0001f600"),
    ("a\0b", "a\ufffdb"),
    ("half \ud800", "half ?"),
    ({"k\0": ["v\0", {"n": None}]}, {"k\ufffd": ["v\ufffd", {"n": None}]}),
    ([1, 2.5, True, None], [1, 2.5, True, None]),
]


@pytest.mark.parametrize(("given", "kept"), CASES)
def test_storable(given: Any, kept: Any) -> None:
    assert storable(given) == kept
