"""Templates: what they give, what is refused, and that nothing hostile costs time or memory."""

from __future__ import annotations

import resource
import time
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from app.language import expressions
from app.language.expressions import TemplateError
from app.language.opaque import Handle

CASES = Path(__file__).parent.parent / "cases" / "templates"


def cases(name: str) -> list[Any]:
    rows = yaml.safe_load((CASES / f"{name}.yaml").read_text())
    return [pytest.param(row, id=f"{number}-{row['text'][:40]!r}") for number, row in enumerate(rows, 1)]


SCOPE: dict[str, Any] = {
    "task": {
        "build": {"status": "succeeded", "result": {"id": 7, "items": [1, 2], "keys": "key", "values": 7}},
    },
    "vars": {
        "hosts": ["a", "b", "c"],
        "map": {"web": 80, "_id": "u1"},
        "looks": "{{ 7 * 7 }}",
        "dictlike": "{'a': 1}",
        "version": "1.10",
        "base": " /srv ",
        "rows": [
            {"name": "p", "n": 2, "on": True},
            {"name": "q", "n": 1, "on": False},
            {"name": "r", "n": 2, "on": True},
        ],
        "big": "a" * 600_000,
        "deep": "[" * 200_000,
    },
    "parameters": {"app": "web", "count": 3, "ratio": 1.5, "flag": True, "region": None},
    "pack": {"config": {"base": "http://r"}},
    "system": {"execution_id": "01J"},
    "kv": {"get": {"a.b": 5}, "get_secret": {"token": Handle("secret:token")}},
    "item": {"name": "x", "n": 1},
    "index": 4,
}


@pytest.mark.parametrize("case", cases("good"))
def test_good_template_gives_its_value(case: dict[str, Any]) -> None:
    assert expressions.check(case["text"]) == []
    value = expressions.render(case["text"], SCOPE)
    assert (value, type(value)) == (case["value"], type(case["value"]))
    if "references" in case:
        assert expressions.references(case["text"]) == {tuple(chain) for chain in case["references"]}


@pytest.mark.parametrize("case", cases("refused"))
def test_hostile_or_wrong_template_is_refused_before_it_is_compiled(case: dict[str, Any]) -> None:
    problems = expressions.check(case["text"])
    assert problems, "was accepted"
    first = problems[0]
    assert case["code"] in {problem.code for problem in problems}
    assert (first.line, first.column) == (case.get("line", 1), case["column"])
    assert case.get("hint", first.hint) == first.hint
    assert expressions.references(case["text"]) == frozenset()
    with pytest.raises(TemplateError):
        expressions.render(case["text"], SCOPE)


@pytest.mark.parametrize("case", cases("fails"))
def test_failing_template_says_what_is_wrong_quickly_and_without_memory(case: dict[str, Any]) -> None:
    assert expressions.check(case["text"]) == []
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    with pytest.raises(TemplateError) as raised:
        expressions.render(case["text"], SCOPE)
    assert time.process_time() - started < 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000, "kB"
    error = raised.value
    assert case["says"] in f"{error.message} {error.hint}"
    assert error.code == "template"
    assert error.expression == case["text"]
    assert (error.line, error.column) == (case.get("line", 1), case["column"])


def test_there_are_cases_enough() -> None:
    assert len({str(case.values[0]["text"]) for name in ("refused", "fails") for case in cases(name)}) >= 230


def nested(opening: str, inner: str, closing: str, times: int) -> str:
    return "{{ " + opening * times + inner + closing * times + " }}"


GENERATED = {
    "parentheses": nested("(", "1", ")", 5_000),
    "brackets": nested("[", "1", "]", 8_000),
    "unclosed": "{{ " + "(" * 16_000,
    "nots": nested("not ", "true", "", 3_000),
    "minuses": nested("- ", "1", "", 6_000),
    "choices": nested("1 if true else ", "1", "", 900),
    "sums": nested("1 + ", "1", "", 3_000),
    "joins": nested("'a' ~ ", "'a'", "", 2_000),
    "filters": nested("", "'a'", " | upper", 1_500),
    "attributes": nested("", "vars", ".a", 7_000),
    "subscripts": nested("", "vars", "[0]", 4_000),
    "ands": nested("true and ", "true", "", 1_500),
    "ifs": "{% if true %}" * 500 + "x" + "{% endif %}" * 500,
    "outputs": "{{ 1 }}" * 2_300,
    "digits": "{{ " + "9" * 16_000 + " }}",
    "literal": "{{ '" + "a" * 9_000 + "' }}",
    "long": "{{ vars.x }}" + "a" * 17_000,
    "nul": "{{ vars.x }}\0",
    "surrogate": "{{ vars.x }}\ud800",
}


@pytest.mark.parametrize("name", GENERATED)
def test_template_that_is_too_large_or_deep_is_refused_quickly(name: str) -> None:
    started = time.process_time()
    problems = expressions.check(GENERATED[name])
    assert time.process_time() - started < 1
    wanted = "template-syntax" if name in ("nul", "surrogate", "unclosed") else "template-too-large"
    assert wanted in {problem.code for problem in problems} or name == "unclosed"
    assert problems
    with pytest.raises(TemplateError):
        expressions.render(GENERATED[name], SCOPE)


class _Endless(dict[str, Any]):
    """A map with a text under every key and a map like itself under `a`."""

    def __contains__(self, key: object) -> bool:
        return True

    def __getitem__(self, key: str) -> Any:
        return self if key == "a" else "text"


@pytest.mark.parametrize(
    "text",
    [
        nested("(", "1", ")", 40),
        nested("[", "1", "]", 39),
        nested("not ", "true", "", 38),
        nested("1 if true else ", "1", "", 38),
        nested("1 + ", "1", "", 38),
        nested("'a' ~ ", "'a'", "", 150),
        nested("", "'a'", " | upper", 38),
        nested("", "vars", ".a", 37) + "{{ vars.version | default('x') }}",
        "{% if true %}" * 18 + "x" + "{% endif %}" * 18,
    ],
)
def test_template_within_the_limits_compiles(text: str) -> None:
    assert expressions.check(text) == []
    assert expressions.render(text, {"vars": _Endless()}) is not None


def test_check_names_every_problem_in_order() -> None:
    problems = expressions.check("{{ nope.x }}\n{{ vars.a | uper }} {{ vars.b.c() }}")
    assert [(problem.code, problem.line, problem.column) for problem in problems] == [
        ("template-unknown-name", 1, 4),
        ("template-unknown-filter", 2, 13),
        ("template-not-allowed", 2, 31),
    ]


def test_values_keep_their_places_in_lists_and_maps_and_errors_name_them() -> None:
    value = {"{{ vars.x }}": ["{{ parameters.count }}", 1, None, {"deep": "v{{ vars.version }}"}]}
    assert expressions.render(value, SCOPE) == {"{{ vars.x }}": [3, 1, None, {"deep": "v1.10"}]}
    with pytest.raises(TemplateError) as raised:
        expressions.render({"a/b": [0, "{{ vars.x }}"]}, SCOPE)
    assert raised.value.pointer == "/a~1b/1"


def test_scope_may_be_any_mapping() -> None:
    scope = MappingProxyType({"vars": MappingProxyType({"items": MappingProxyType({"a": 1})})})
    assert expressions.render("{{ vars.items }}", scope) == {"a": 1}
    assert expressions.render("<{{ vars.items }}>", scope) == '<{"a":1}>'
    assert expressions.render("{{ vars.items.a + 1 }}", scope) == 2


def test_objects_in_the_scope_are_out_of_reach() -> None:
    scope = {"vars": {"path": Path("/etc")}}
    for text in (
        "{{ vars.path.parent }}",
        "{{ vars.path['parent'] }}",
        "{{ vars.path }}",
        "{{ vars.path ~ '' }}",
    ):
        with pytest.raises(TemplateError):
            expressions.render(text, scope)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (True, True),
        (False, False),
        ("true", True),
        ("false", False),
        ("{{ parameters.flag }}", True),
        ("{{ parameters.region }}", False),
        ("{{ parameters.count > 5 }}", False),
        ("{{ 0 }}", False),
        ("{{ vars.hosts }}", True),
        ("{{ [] }}", False),
        ("{{ 'true' }}", True),
        ("{% if parameters.flag %} false {% endif %}", False),
        ("{{ task.deploy.result.approved | default(false) }}", False),
    ],
)
def test_truth(text: str | bool, answer: bool) -> None:
    assert expressions.truth(text, SCOPE) is answer


@pytest.mark.parametrize(
    "text", ["yes", "", "parameters.flag", "{{ '' }}", "{{ 'no' }}", "{{ '0' }}", "{{ vars.version }}"]
)
def test_truth_of_other_texts_is_not_guessed(text: str) -> None:
    with pytest.raises(TemplateError) as raised:
        expressions.truth(text, SCOPE)
    assert "neither true nor false" in raised.value.message
    assert "{{" in raised.value.hint


@given(
    st.sampled_from(["task", "vars", "parameters"]),
    st.lists(st.sampled_from(["a", "items", "not", "if", "x_1"]), min_size=1, max_size=4),
)
def test_plain_references_mean_what_they_mean_to_jinja(root: str, keys: list[str]) -> None:
    """The short way for `{{ a.b }}` and Jinja's, which parentheses enforce, agree."""
    chain = ".".join([root, *keys])
    scope = {root: {"a": {"items": 1, "not": {"x_1": None}}, "if": [1], "x_1": "text"}}
    answers = []
    for text in (f"{{{{ {chain} }}}}", f"{{{{ ({chain}) }}}}"):
        assert expressions.check(text) == []
        try:
            answers.append((expressions.render(text, scope), expressions.references(text)))
        except TemplateError as error:
            answers.append((error.message, expressions.references(text)))
    assert answers[0] == answers[1]


@given(st.text(st.characters(exclude_categories=["Cs"])), st.text(max_size=5), st.text(max_size=5))
def test_a_text_arrives_exactly_and_is_never_rendered_again(value: str, before: str, after: str) -> None:
    scope = {"vars": {"x": value}}
    assert expressions.render("{{ vars.x }}", scope) == value
    assert expressions.render("<{{ vars.x }}>{{ vars.x ~ '' }}", scope) == f"<{value}>{value}"


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=9)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=9,
)


@given(PLAIN)
def test_values_keep_their_type_and_come_back_from_their_text(value: Any) -> None:
    scope = {"vars": {"x": value}}
    assert expressions.render("{{ vars.x }}", scope) == value
    assert expressions.render("{{ vars.x | to_json | from_json }}", scope) == value


def test_cached_render_is_fast() -> None:
    texts = [
        "{{ task.build.result.id }}",
        "{{ task.build.result.id + 1 }}",
        "a {{ vars.version }} {{ index }}",
    ]
    best = min(_time(texts) for _ in range(5))
    assert best < 60e-6, f"{best * 1e6:.0f} µs for a render; about 10 are usual"


def _time(texts: list[str]) -> float:
    started = time.process_time()
    for _ in range(300):
        for text in texts:
            expressions.render(text, SCOPE)
    return (time.process_time() - started) / (300 * len(texts))
