"""What a script wrote against what its action promises."""

from __future__ import annotations

from typing import Any

import pytest

from app.engine.result import misfit
from app.language.fitting import MOST_CHECKS

SCHEMA = {
    "type": "object",
    "required": ["id"],
    "properties": {"id": {"type": "string"}, "list": {"type": "array"}},
}


def action(schema: Any) -> dict[str, Any]:
    return {"ref": "a.b", "output": schema}


@pytest.mark.parametrize(
    ("schema", "written", "pointer"),
    [
        (None, {"x": 1}, None),
        (SCHEMA, {"id": "x", "more": 1}, None),
        ({"properties": {"id": {}}}, None, None),
        (SCHEMA, None, "/id"),
        (SCHEMA, {}, "/id"),
        (SCHEMA, {"id": 7}, "/id"),
        ({"additionalProperties": False}, {"a": 1}, "/a"),
        ({"properties": {"a": {"items": {"enum": [1]}}}}, {"a": [1, 2]}, "/a/1"),
    ],
)
def test_what_does_not_fit_is_named(schema: Any, written: Any, pointer: str | None) -> None:
    found = misfit(action(schema), written)
    if pointer is None:
        assert found is None
    else:
        assert found is not None
        assert (found["type"], found["pointer"]) == ("output", pointer)
        assert "a.b" in found["message"]


def test_a_result_that_is_nested_deep_is_told_without_its_value() -> None:
    deep: Any = 1
    for _ in range(5000):
        deep = [deep]
    found = misfit(action({"properties": {"a": {"type": "string"}}}), {"a": deep})
    assert found is not None
    assert len(found["message"]) < 200


def test_a_result_that_takes_too_long_is_refused() -> None:
    """As many alternatives as a schema may have, for more values than it may then be held to."""
    dear = {"properties": {"a": {"items": {"anyOf": [{"type": "null"}] * 100 + [{"type": "integer"}]}}}}
    assert misfit(action(dear), {"a": list(range(200))}) is None
    found = misfit(action(dear), {"a": list(range(MOST_CHECKS // 100))})
    assert found is not None
    assert "too large to be checked" in found["message"]
