"""Documents are kept true: what they show runs, and what there is they name."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from markdown import Block, blocks, documents, links, prose, rows, text_of, ticked
from repository import ROOT, modules, named, tree

from app.allow import reading, toml
from app.allow.policy import Asked
from app.api import create_app
from app.cli.folder import known_in
from app.cli.main import cli
from app.compiler.build import build
from app.compiler.explain import render
from app.engine import events, status
from app.language import allowlist, grammar, pack_tables
from app.language.fields import Table
from app.language.filters import FILTERS
from app.language.model import PinnedScript
from app.language.parameters import TYPES
from app.language.parse import load
from app.language.predicates import TESTS
from app.services.measures import MEASURES
from app.settings import Settings, environment_name

DEPLOY = PinnedScript(
    "id",
    "deploy",
    3,
    "sh",
    'ls "${target}"\n',
    ({"name": "target", "type": "string", "required": True}, {"name": "token", "type": "secret"}),
    60.0,
)
"""The saved script that documents speak of."""
SHIPPED = replace(known_in([ROOT / "config" / "packs"]), scripts={"deploy": DEPLOY, "deploy@3": DEPLOY})
YAML_BLOCKS = [block for block in blocks() if block.info.split(" ")[:1] == ["yaml"]]
WORKFLOWS = [block for block in YAML_BLOCKS if block.info == "yaml"]


@pytest.mark.parametrize("block", WORKFLOWS, ids=lambda block: block.where)
def test_workflows_in_documents_compile(block: Block) -> None:
    loaded = load(block.text, block.where, known=SHIPPED)
    assert not loaded.problems
    assert loaded.workflow is not None
    assert render(build(loaded.workflow))


def test_the_complete_example_has_every_key() -> None:
    """And every type of a parameter; it compiles without a warning."""
    path = ROOT / "docs" / "examples" / "complete-workflow.yaml"
    loaded = load(path.read_text(), path.name, known=SHIPPED)
    assert loaded.problems == ()
    data = yaml.safe_load(path.read_text())
    tables = (grammar.WORKFLOW, grammar.TASK, RETRY)
    wanted = {name for table in tables for name in names_of(table)}
    assert wanted - set(keys_used(data)) == set()
    assert {one["type"] for one in data["parameters"].values()} | {"float"} == set(TYPES)


GUIDE_OF_PACKS = "docs/user/guides/packs.md"


def test_every_key_of_a_pack_is_told() -> None:
    told = ticked(GUIDE_OF_PACKS)
    for table in (pack_tables.PACK, pack_tables.SETTING, pack_tables.ACTION):
        assert {key.name for key in table.keys} - told == set()


@pytest.mark.parametrize("block", YAML_BLOCKS, ids=lambda block: block.where)
def test_yaml_in_documents_is_yaml(block: Block) -> None:
    """A block that is no whole workflow says so behind its fence: `yaml fragment`."""
    assert block.info in ("yaml", "yaml fragment")
    assert yaml.safe_load(block.text) is not None


def test_readme_shows_a_workflow_and_is_short() -> None:
    assert any(block.path.name == "README.md" for block in WORKFLOWS)
    assert len(text_of("README.md").splitlines()) <= 150


@pytest.mark.parametrize("path", documents(), ids=named)
def test_links_lead_somewhere(path: Path) -> None:
    missing = [target for target in links(path) if not (path.parent / target).exists()]
    assert not missing


def test_the_index_leads_to_every_page() -> None:
    index = ROOT / "docs" / "index.md"
    linked = {(index.parent / target).resolve() for target in links(index)}
    pages = set((ROOT / "docs").rglob("*.md")) - {index}
    assert {named(page) for page in pages - linked} == set()


# the language

RETRY = next(key.kind for key in grammar.TASK.keys if key.name == "retry")


def keys_used(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield str(key)
            yield from keys_used(item)
    elif isinstance(value, list):
        for item in value:
            yield from keys_used(item)


def used_in(*names: str) -> set[str]:
    """Every mapping key of the workflows of these documents."""
    return {
        key
        for block in blocks(*names)
        if block.info == "yaml"
        for key in keys_used(yaml.safe_load(block.text))
    }


def names_of(table: Table) -> set[str]:
    return {key.name for key in table.keys}


@pytest.mark.parametrize(
    "table",
    [grammar.WORKFLOW, grammar.TASK, RETRY, grammar.PARAMETER],
    ids=["workflow", "task", "retry", "parameter"],
)
def test_every_key_is_told_and_shown(table: Table) -> None:
    """With an example that compiles."""
    wanted = names_of(table)
    assert wanted - ticked("docs/language.md") == set()
    assert wanted - used_in("docs/language.md") == set()


@pytest.mark.parametrize("action", list(grammar.INPUTS))
def test_every_action_is_told_and_shown(action: str) -> None:
    told, shown = ticked("docs/actions.md"), used_in("docs/actions.md")
    assert f"### `{action}`" in text_of("docs/actions.md")
    wanted = names_of(grammar.INPUTS[action])
    assert wanted - told == set()
    assert wanted - shown == set()


GUIDE = "docs/user/guides/workflows.md"


def test_the_guide_tells_and_shows_all_of_a_fan_out_and_a_block() -> None:
    """Its step config reference has a row for every key, and examples that compile use those of a fan-out."""
    told = {name for row in rows(GUIDE) for name in re.findall(r"`([^`]+)`", row[0])}
    fan_out = names_of(grammar.INPUTS["core.distributed_shell"])
    on_a_block = names_of(grammar.TASK) - set(grammar.NOT_ON_A_BLOCK)
    assert (fan_out | on_a_block) - told == set()
    assert fan_out | {"fail_fast", "retry", "queue_timeout", "on_unknown", "idempotent"} <= used_in(GUIDE)
    of_a_child = text_of(GUIDE).partition("A child may have ")[2].partition("\n\n")[0]
    assert names_of(grammar.CHILD) - set(re.findall(r"`([^`]+)`", of_a_child)) == set()


def test_every_filter_and_test_is_told() -> None:
    told = ticked("docs/expressions.md")
    assert FILTERS.keys() - told == set()
    assert {name for name in TESTS if name[0].isalpha()} - told == set()


def test_every_status_is_told() -> None:
    told = ticked("docs/concepts.md")
    known = {*status.EXECUTION_STATUSES, *status.TASK_STATUSES, *status.JOB_STATUSES}
    assert known - told == set()


# codes

KEBAB = re.compile(r"[a-z]+[0-9]?(-[a-z0-9]+)+")
NO_CODES = {"here-document", "utf-8"}


def language_codes() -> set[str]:
    """Every code of the language: those that cases provoke, and those that its source spells."""
    found = set()
    for path in (ROOT / "tests" / "cases").rglob("*.yaml"):
        if path.parent.name in ("language", "templates"):
            found |= set(re.findall(r"\bcode: ([a-z0-9-]+)", path.read_text()))
    for path in modules("app/language"):
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and KEBAB.fullmatch(node.value):
                found.add(node.value)
    return found - NO_CODES


def other_codes() -> set[str]:
    """Every `code` that an error of the rest has: of a class, or given where it is raised or answered."""
    values = [
        _code_of(node)
        for path in modules("app")
        if path.parent.name not in ("language", "node")
        for node in ast.walk(tree(path))
    ]
    return {str(one.value) for one in values if isinstance(one, ast.Constant) and one.value}


def _code_of(node: ast.AST) -> ast.expr | None:
    if isinstance(node, ast.keyword) and node.arg == "code":
        return node.value
    if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "code":
        return (
            node.value if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str) else None
        )
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "problem":
        return node.args[1]
    return None


def told_codes() -> set[str]:
    """One row may tell several."""
    return {code for row in rows("docs/errors.md") for code in re.findall(r"`([^`]+)`", row[0])}


def test_every_code_of_the_language_is_told() -> None:
    assert language_codes() - told_codes() == set()


def test_every_other_code_is_told() -> None:
    assert other_codes() - told_codes() == set()


def test_no_code_is_told_that_is_not() -> None:
    """`template-unknown-…` is put together from the kind of name."""
    left = told_codes() - language_codes() - other_codes()
    assert {code for code in left if not code.startswith("template-unknown-")} == set()


# what may be run


def test_allowlists_in_documents_can_be_read() -> None:
    found = {block.info: block for block in blocks("docs/allowlist.md")}
    loaded = allowlist.load(found["yaml fragment"].text, "docs/allowlist.md")
    assert loaded.problems == ()
    policy, problems = toml.load(found["toml"].text)
    assert problems == ()
    assert policy is not None
    assert policy.judge(Asked(("printf", "%s\\n", "what core.echo says"))).allowed


def test_every_key_of_an_allowlist_is_told() -> None:
    assert {*reading.OF_FILE, *reading.OF_COMMAND, *reading.OF_SCRIPT} - ticked("docs/allowlist.md") == set()


# settings


def test_settings_are_told_with_their_defaults() -> None:
    told = {
        row[0].strip("`"): row[1].strip("`") for row in rows("docs/settings.md") if row[0].startswith("`")
    }
    assert told == {environment_name(one.name): shown(one.default) for one in fields(Settings)}


def shown(default: object) -> str:
    if isinstance(default, bool):
        return "1" if default else "0"
    if isinstance(default, float):
        return f"{default:g}" if default < 100_000 else str(int(default))
    return str(default) or "–"


# the API


def api_routes(data_dir: Path) -> set[str]:
    """`METHOD /path` of every route, as the documents write them."""
    found = set()
    for rule in create_app(Settings(data_dir=str(data_dir))).url_map.iter_rules():
        path = re.sub(r"<(?:[^:>]+:)?([^>]+)>", r"{\1}", rule.rule)
        found |= {f"{method} {path}" for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}}
    return found


def test_every_route_is_told_and_no_other(tmp_path: Path) -> None:
    told = {
        f"{method} {path}"
        for row in rows("docs/api.md")
        for method, path in re.findall(r"`(GET|POST|PUT|PATCH|DELETE) (/[^`\s?]*)`", row[0])
    }
    assert told == api_routes(tmp_path)


def test_every_kind_of_event_is_told() -> None:
    kinds = {str(getattr(one, "kind", "")) for one in vars(events).values() if isinstance(one, type)} - {""}
    assert kinds
    assert kinds - ticked("docs/api.md") == set()


def test_every_metric_is_told_and_no_other() -> None:
    told = {
        (row[0].strip("`"), row[1], tuple(re.findall(r"`([^`]+)`", row[2])))
        for row in rows("docs/metrics.md")
        if len(row) == 4 and row[0].startswith("`")
    }
    assert told == {(one.name, one.kind, one.labels) for one in MEASURES}


def test_metrics_have_names_as_prometheus_wants_them() -> None:
    for one in MEASURES:
        assert re.fullmatch(r"muster(_[a-z]+)+", one.name)
        assert one.name.endswith("_total") == (one.kind == "counter")
        assert one.name.endswith("_seconds") or one.kind != "histogram"
        assert (one.buckets == tuple(sorted(one.buckets)) and one.buckets) or one.kind != "histogram"


# the command line


def commands(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    context = click.Context(command, info_name=name)
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            found = command.get_command(context, child)
            assert found is not None
            yield from commands(found, f"{name} {child}")
    else:
        yield name, command


COMMANDS = dict(commands(cli, "muster"))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_told_with_its_options(name: str) -> None:
    text = text_of("docs/cli.md")
    start = text.find(f"### `{name}")
    assert start >= 0
    section = text[start : text.find("\n### ", start + 4)]
    given = {option.opts[-1] for option in COMMANDS[name].params if isinstance(option, click.Option)}
    everywhere = {"--json", "--url", "--token"}
    assert {option for option in given - everywhere if option not in section} == set()


def test_commands_in_documents_exist() -> None:
    wrong = []
    for path in documents():
        for words in re.findall(r"\bmuster ([a-z]+(?: [a-z]+)?)\b", path.read_text()):
            first, _, second = words.partition(" ")
            whole = f"muster {first} {second}"
            groups = {name.split()[1] for name in COMMANDS if len(name.split()) == 3}
            if first in groups and second and whole not in COMMANDS:
                wrong.append(f"{named(path)}: {whole}")
    assert not wrong


def test_verbs_in_code_exist() -> None:
    """`muster …` in backticks or in a block of a shell."""
    known = {name.split()[1] for name in COMMANDS}
    wrong = []
    for path in documents():
        text = path.read_text()
        shells = "\n".join(block.text for block in blocks(named(path)) if block.info in ("sh", "bash"))
        for verb in re.findall(r"`muster ([a-z]+)", prose(path)) + re.findall(
            r"^\s*muster ([a-z]+)", shells, re.M
        ):
            if verb not in known:
                wrong.append(f"{named(path)}: {verb}")
        for target in re.findall(r"`make ([a-z-]+)", text):
            if f"\n{target}:" not in text_of("Makefile"):
                wrong.append(f"{named(path)}: make {target}")
    assert not wrong


def test_decisions_tell_context_choice_and_price() -> None:
    found = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    assert [path.name[:3] for path in found] == [f"{number:03}" for number in range(1, len(found) + 1)]
    for path in found:
        text = path.read_text()
        assert all(f"\n## {head}\n" in text for head in ("Context", "Choice", "Price")), path.name
