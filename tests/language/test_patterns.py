"""Patterns of values: they mean what Python's mean, and nothing makes them slow."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.language.patterns import LONGEST, LONGEST_VALUE, BadPattern, parse
from app.language.script_declarations import MOST_PARAMETERS

ATOMS = st.sampled_from(
    [
        "a",
        "b",
        ".",
        "[ab]",
        "[^a]",
        "[a-c0-]",
        r"[\d_]",
        r"\d",
        r"\D",
        r"\w",
        r"\W",
        r"\s",
        r"\S",
        r"\.",
        "-",
        "1",
        r"\n",
        "",
    ]
)
PATTERNS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda two: f"({two[0]}|{two[1]})"),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{1,3}", "{,}", "{0,2}", "{2,}", "{0}"])).map(
            lambda two: f"(?:{two[0]}){two[1]}"
        ),
    ),
    max_leaves=8,
)


@settings(max_examples=500, deadline=None)
@given(PATTERNS, st.lists(st.text("ab01.-\n c_é", max_size=8), min_size=5, max_size=10))
def test_a_pattern_means_what_it_means_to_python(text: str, values: list[str]) -> None:
    try:
        pattern = parse(text)
    except BadPattern:
        assert "{,}" in text or len(text) > 100
        return
    pythons = re.compile(text, re.ASCII)
    for value in values:
        assert pattern.matches(value) is bool(pythons.fullmatch(value)), (text, value)


@pytest.mark.parametrize(
    ("text", "matching", "other"),
    [
        ("^[a-z]+$", "abc", "abc\n"),
        ("a|b", "b", "ab"),
        ("", "", "a"),
        (r"[^/]+(/[^/]+)*", "a/b", "/a"),
        (r"v\d+\.\d+(\.\d+)?", "v1.20", "v1"),
        (r"[\]\\-]+", "]\\-", "a"),
        ("[é-ü]", "ö", "o"),
        (".*", "😀" * 10, "\n"),
    ],
)
def test_what_matches(text: str, matching: str, other: str) -> None:
    assert parse(text).matches(matching)
    assert not parse(text).matches(other)


@pytest.mark.parametrize(
    ("text", "column"),
    [
        ("(", 1),
        ("a(b", 2),
        (")", 1),
        ("a**", 3),
        ("a*?", 3),
        ("a++", 3),
        ("*a", 1),
        ("a|+", 3),
        ("{3}", 1),
        ("a{x}", 2),
        ("a{3,1}", 2),
        ("[a", 1),
        ("[]", 2),
        ("[z-a]", 5),
        (r"[\d-z]", 6),
        ("[[:alpha:]]", 2),
        (r"\b", 1),
        (r"(a)\1", 4),
        (r"\p{L}", 1),
        ("a\\", 2),
        ("(?=a)", 2),
        ("(?P<n>a)", 2),
        ("(?i)a", 2),
        ("a^b", 2),
        ("a$b", 2),
        ("(^a)", 2),
        ("x" * (LONGEST + 1), LONGEST + 1),
        ("(" * 30 + ")" * 30, 22),
        ("a{501}", 1),
        ("((a{20}){20}){20}", 1),
        ("((()){1000}){1000}", 1),
    ],
)
def test_what_is_none_says_where(text: str, column: int) -> None:
    with pytest.raises(BadPattern) as caught:
        parse(text)
    assert caught.value.column == column
    assert f"character {column} " in caught.value.message


@pytest.mark.parametrize(
    "text",
    [
        "(a*)*b",
        "(a|a)*b",
        "(a|aa)+b",
        "(a?){400}b",
        "(.*a){150}b",
        "[ab]*a[ab]{400}b",
        "(.?){499}b",
        "((a+)+)+b",
    ],
)
def test_no_pattern_takes_long(text: str) -> None:
    """Python's own engine would not come back from most of these."""
    started = time.process_time()
    pattern = parse(text)
    for value in ("a" * LONGEST_VALUE, "ab" * (LONGEST_VALUE // 2), "aab" * 1365):
        pattern.matches(value)
    assert time.process_time() - started < 2


def test_as_many_values_as_a_script_takes_are_matched_at_once() -> None:
    """With many sets of characters, and no character that comes twice."""
    pattern = parse("(" + "|".join(f".{chr(97 + number % 26)}?" for number in range(120)) + ")*")
    value = "".join(chr(0x3000 + number) for number in range(LONGEST_VALUE))
    started = time.process_time()
    assert all(pattern.matches(value) for _ in range(MOST_PARAMETERS))
    assert time.process_time() - started < 4


def test_a_value_that_is_too_long_does_not_match() -> None:
    assert parse("a*").matches("a" * LONGEST_VALUE)
    assert not parse("a*").matches("a" * (LONGEST_VALUE + 1))


def test_characters_that_a_match_may_hold() -> None:
    assert parse("[a-z]+").characters_of("$;a'") == "a"
    assert parse(r"[^;']*").characters_of("$;a'\n") == "$a\n"
