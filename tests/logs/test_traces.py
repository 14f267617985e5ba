"""Trace ids: taken from a valid `traceparent`, else made from an id."""

from __future__ import annotations

import pytest

from app.ids import trace_in, trace_of, ulid

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize(
    ("header", "trace"),
    [
        (f"00-{TRACE}-{SPAN}-01", TRACE),
        (f"00-{TRACE}-{SPAN}-00", TRACE),
        (f"01-{TRACE}-{SPAN}-01-what-comes-later", TRACE),
        ("", ""),
        ("hello", ""),
        (f"00-{TRACE}-{SPAN}-01-more", ""),
        (f"00-{TRACE}-{SPAN}", ""),
        (f"ff-{TRACE}-{SPAN}-01", ""),
        (f"00-{TRACE.upper()}-{SPAN}-01", ""),
        (f"00-{'0' * 32}-{SPAN}-01", ""),
        (f"00-{TRACE}-{'0' * 16}-01", ""),
        (f"00-{TRACE[:-1]}-{SPAN}-01", ""),
        (f"00-{TRACE}-{SPAN}-01\n", ""),
        (f" 00-{TRACE}-{SPAN}-01", ""),
        (f"00-{TRACE}-{SPAN}-01, 00-{TRACE}-{SPAN}-01", ""),
        (f"01-{TRACE}-{SPAN}-01-" + "x" * 100_000, ""),
    ],
)
def test_traceparent(header: str, trace: str) -> None:
    assert trace_in(header) == (trace, SPAN if trace else "")


def test_a_trace_made_from_an_id_is_its_bits() -> None:
    assert trace_of("00000000000000000000000001") == f"{1:032x}"
    assert trace_of("7ZZZZZZZZZZZZZZZZZZZZZZZZZ") == "f" * 32
    made = {trace_of(ulid()) for _ in range(100)}
    assert len(made) == 100
    assert {len(one) for one in made} == {32}
