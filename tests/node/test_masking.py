"""Masking: whatever values, whatever they stand in, whatever pieces it comes in: no value, and not a byte less else."""

from __future__ import annotations

import base64
import json
import random
import re
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.masking import LEAST, MASK, PIECE, Masker

VALUES = st.lists(st.text('ab/+=\n é"', min_size=LEAST, max_size=60), min_size=1, max_size=3)
OTHER = st.binary(max_size=40)


def masked(masker: Masker, data: bytes, cuts: random.Random) -> bytes:
    """The stream of `data` in random pieces."""
    stream, out, at = masker.stream(), b"", 0
    while at < len(data):
        end = at + cuts.choice((1, 2, 5, 40))
        out += stream.feed(data[at:end])
        at = end
    return out + stream.end()


@given(VALUES, st.lists(OTHER, min_size=1, max_size=4), st.data())
def test_no_value_gets_through_and_nothing_else_is_lost(
    values: list[str], others: list[bytes], data: st.DataObject
) -> None:
    masker = Masker(values)
    parts: list[bytes] = []
    for other in others:
        value = data.draw(st.sampled_from(values))
        form = data.draw(st.sampled_from(("plain", "base64", "hex", "HEX", "percent", "json")))
        raw = value.encode()
        before = data.draw(st.binary(max_size=2))
        parts += [other, {
            "plain": raw,
            "base64": base64.b64encode(before + raw),
            "hex": (before + raw).hex().encode(),
            "HEX": (before + raw).hex().upper().encode(),
            "percent": quote(value).encode(),
            "json": json.dumps(value).encode(),
        }[form]]  # fmt: skip
    text = b"".join(parts)
    found = masked(masker, text, random.Random(data.draw(st.integers(0, 1000))))

    # What is masked are the spans of the whole text, each one mask; everything else is there, in order.
    expected, at = b"", 0
    for start, end in masker.spans(text):
        expected += text[at:start] + MASK
        at = end
    assert found == expected + text[at:]
    rest = found.split(MASK)
    for value in values:
        if len(value.strip("\r\n").encode()) >= LEAST:
            raw = value.encode()
            assert not any(one in part for part in rest for one in (raw, raw.hex().encode()))
            assert not any(raw.hex().upper().encode() in part for part in rest)


def xxd(value: str) -> str:
    """As `xxd -p` writes it."""
    return re.sub("(.{60})", "\\1\n", value.encode().hex())


@pytest.mark.parametrize(
    "shape",
    [
        lambda value: value,
        lambda value: f"password: {value}!",
        lambda value: json.dumps({"a": value}),
        lambda value: json.dumps({"a": value}, ensure_ascii=False),
        lambda value: quote(value),
        lambda value: quote(value, safe=""),
        lambda value: quote_plus(value),
        lambda value: re.sub("%..", lambda found: found[0].lower(), quote(value, safe="")),
        lambda value: re.sub("%..", lambda found: found[0].lower(), quote_plus(value)),
        lambda value: quote(value, safe="!'()*"),
        lambda value: value.encode().hex(),
        lambda value: value.encode().hex().upper(),
        lambda value: f"0x{value.encode().hex()}0a",
        lambda value: xxd(value * 20),
        lambda value: base64.b64encode(value.encode()).decode(),
        lambda value: base64.urlsafe_b64encode(f"{value}\n".encode()).decode(),
        lambda value: base64.b64encode(f"a{value}".encode()).decode(),
        lambda value: base64.b64encode(f"ab{value}cd".encode()).decode(),
        lambda value: base64.encodebytes((value * 20).encode()).decode(),
    ],
)
@pytest.mark.parametrize("value", ['p4ss/w+rd=é"x', "CANARY-0123456789abcdef", "a b&c?d%e", "(pw)!'*ü x"])
def test_every_form_of_a_value(shape: object, value: str) -> None:
    text = shape(value)  # type: ignore[operator]
    # What surrounds an encoded value shares a character with its first and last byte, no more.
    wrapped = "\n" in text
    masker = Masker([value * 20] if wrapped else [value])
    out = masker.text(text)
    assert "***" in out
    for form in (
        value,
        quote(value),
        value.encode().hex(),
        value.encode().hex().upper(),
        base64.b64encode(value.encode()).decode()[:-4],
    ):
        assert form not in out


def test_each_line_of_a_value() -> None:
    key = "-----BEGIN-----\nMIIEvQIBADANBgkq\nhkiG9w0BAQEF\n\nab\n-----END-----\n"
    assert Masker([key]).text("x MIIEvQIBADANBgkq y hkiG9w0BAQEF ab") == "x *** y *** ab"
    assert Masker([key]).text(f"<{key}>") == "<***>"


def test_a_long_value_is_held_back_by_its_piece_only() -> None:
    value = "".join(random.Random(7).choice("abcdefgh0123") for _ in range(20 * PIECE + 17))
    masker = Masker([value])
    assert masker.longest <= PIECE
    assert set(masked(masker, b"<" + value.encode() + b">", random.Random(1))) == set(b"<*>")
    assert value[:PIECE] not in masker.text(value)


def test_what_cannot_be_the_beginning_of_a_value_comes_at_once() -> None:
    stream = Masker(["secret-value"]).stream()
    assert stream.feed(b"first line\n") == b"first line\n"
    assert stream.feed(b"the s") == b"the "
    assert stream.feed(b"ky\n") == b"sky\n"
    assert stream.feed(b"secret-val") == b""
    assert stream.feed(b"ue!") == b"***!"
    assert stream.feed(b"secret-va") == b""
    assert stream.end() == b"secret-va"


def test_values_that_overlap_leave_no_end() -> None:
    assert Masker(["abcd", "cdef"]).text("xabcdefx") == "x***x"
    stream = Masker(["abcd", "cdefgh"]).stream()
    assert stream.feed(b"abcd") + stream.feed(b"ef") + stream.feed(b"ghi") + stream.end() == b"***i"
    assert Masker(["abcd", "abcdefgh"]).text("abcdefx abcdefgh") == "***efx ***"


def test_json_values() -> None:
    masker = Masker(["12345", "s3cret"])
    value = {"s3cret": ["a s3cret", 12345, 123, True, None, 1.5], "n": {"x": -12345.0}}
    assert masker.value(value) == {"***": ["a ***", "***", 123, True, None, 1.5], "n": {"x": "***"}}


def test_a_text_that_was_cut_does_not_end_in_a_part_of_a_value() -> None:
    assert Masker(["s3cret-value"]).text("x s3cret-va", cut=True) == "x "
    assert Masker(["s3cret-value"]).text("x s3cret-value", cut=True) == "x ***"
    assert Masker(["s3cret-value"]).text("x s3cret-va") == "x s3cret-va"


def test_short_values_are_not_masked() -> None:
    assert Masker(["abc", ""]).patterns == ()
    assert Masker(["abc"]).text("abc") == "abc"
