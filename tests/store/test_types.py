"""Columns mean the same on both databases."""

from __future__ import annotations

from sqlalchemy import literal, select

from app.store.db import Store
from app.store.types import Json


def test_a_mapping_keeps_the_order_of_its_keys(store: Store) -> None:
    """An expression may go through them, and the next process has to come to the same."""
    value = {"sum": 1, "each": [{"z": 1, "a": 2}], "never": None, "b": "Grüße"}
    with store.read() as connection:
        found = connection.execute(select(literal(value, Json))).scalar_one()
    assert found == value
    assert list(found) == list(value)
    assert list(found["each"][0]) == ["z", "a"]
