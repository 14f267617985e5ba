"""YAML without libyaml: the parser in Python gives the same tree, and refuses the same texts at the same places."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.language import source, yaml_parser
from app.language.source import Node

ROOT = Path(__file__).parents[2]
FILES = sorted([*(ROOT / "tests" / "cases").rglob("*.yaml"), *(ROOT / "config").rglob("*.yaml")])
MOST = 20_000
PIECES = [*":-[]{}\"'|>#&*!%@` \n\t,?", "\n  ", "é", "\U0001f600", "\n---\n", " : ", "\r\n", "{{ x }}", "? "]

Seen = tuple[Any, list[tuple[str, int, int]]]


def texts() -> list[str]:
    """Whole files, and every text of several lines or with a colon inside them: workflows, mostly."""
    found = []
    for file in FILES:
        text = file.read_text()
        found += [text, *inside(yaml.load(text, Loader=yaml.CSafeLoader))]
    guides = (page.read_text() for page in sorted((ROOT / "docs").rglob("*.md")))
    found += [block for page in guides for block in re.findall(r"```yaml[^\n]*\n(.*?)```", page, re.S)]
    return [text for text in dict.fromkeys(found) if len(text) < MOST]


def inside(value: Any) -> Iterator[str]:
    if isinstance(value, str) and ("\n" in value or ":" in value):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from inside(one)
    elif isinstance(value, list):
        for one in value:
            yield from inside(one)


def tree(node: Node | None) -> Any:
    if node is None:
        return None
    value = node.value
    if isinstance(value, dict):
        value = {key: tree(one) for key, one in value.items()}
    elif isinstance(value, list):
        value = [tree(one) for one in value]
    place = (node.line, node.column, node.key_node and (node.key_node.line, node.key_node.column))
    return (node.kind, place, value, node.text, node.style, node.trap, node.flow)


def seen(text: str) -> Seen:
    root, collector = source.read(text, "w.yaml")
    return tree(root), [(one.code, one.line, one.column) for one in collector.sorted()]


def both(text: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Seen, Seen]:
    fast = seen(text)
    with monkeypatch.context() as patch:
        patch.setattr(yaml_parser, "fast", yaml_parser.pure)
        return fast, seen(text)


def disagree(text: str, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Where a text is no YAML, the place of that one error may be another, and half a character is told otherwise."""
    (tree_of_c, problems_of_c), (tree_of_ours, problems_of_ours) = both(text, monkeypatch)
    if "yaml-syntax" not in {code for code, _, _ in problems_of_c}:
        return (tree_of_c, problems_of_c) != (tree_of_ours, problems_of_ours)
    return not problems_of_ours


def test_libyaml_is_there() -> None:
    """Else these tests would compare the parser with itself."""
    assert yaml_parser.CParser is not None


def test_every_text_is_read_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    found = texts()
    assert len(found) > 1000
    assert [text for text in found if disagree(text, monkeypatch)] == []


@pytest.mark.parametrize("seed", range(3))
def test_broken_texts_are_read_alike(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(seed)
    whole = [text for text in texts() if 0 < len(text) < 1000]
    wrong = []
    for _ in range(400):
        text = chance.choice(whole)
        for _ in range(chance.randint(1, 3)):
            at = chance.randrange(len(text) + 1)
            rest = (
                text[at + chance.randint(1, 3) :]
                if chance.random() < 0.5
                else chance.choice(PIECES) + text[at:]
            )
            text = text[:at] + rest
        if disagree(text, monkeypatch):
            wrong.append(text)
    assert wrong == []


def test_what_has_an_anchor_and_no_value_is_where_the_anchor_is(monkeypatch: pytest.MonkeyPatch) -> None:
    found = both("place: {default: &here}\n", monkeypatch)
    assert found[0] == found[1]
    assert found[0][1] == [("anchor", 1, 18)]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{a: Deploy?, b: c?d}", {"a": "Deploy?", "b": "c?d"}),
        ("a: one\ttwo\t", {"a": "one\ttwo"}),
        ("a:\tone", {"a": "one"}),
        ("a: one\n  two\n\n  three", {"a": "one two\nthree"}),
        ("[a,\tb]", ["a", "b"]),
        ("a: x # not this", {"a": "x"}),
    ],
)
def test_where_the_parser_of_the_package_differs(text: str, value: Any) -> None:
    builder = source._Builder(source.Collector("w.yaml", text))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(yaml_parser, "fast", yaml_parser.pure)
        assert builder.build(text).data() == value


@pytest.mark.parametrize(
    "text", ["{path:}", "[a:{}]", "{a:?b}", "a: b\n\tc: d", "a: 'b", "a: [1", "- a\nb: c"]
)
def test_what_is_no_yaml_to_libyaml_is_none_to_the_other(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (_, of_c), (_, of_ours) = both(text, monkeypatch)
    assert {code for code, _, _ in of_c} == {code for code, _, _ in of_ours} == {"yaml-syntax"}
