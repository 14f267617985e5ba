"""`muster test`: each case of cases/rehearse/suites.yaml is a command, its exit code and everything that it prints."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.cli.main import main
from app.rehearse.grammar import ANSWER, CHILD, EXPECT, INTERVENTION, NODE, OUTCOME, SUITE, TEST, UNITS

ROOT = Path(__file__).parents[2]
CASES = yaml.safe_load((ROOT / "tests" / "cases" / "rehearse" / "suites.yaml").read_text())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_suite(
    case: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, text in case["files"].items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    code = main(["test", *case["args"]])
    printed = capsys.readouterr()
    assert printed.out + printed.err == case["prints"]
    assert code == case.get("exit", 0)


def test_the_example_passes_and_fires_every_edge(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["test", str(ROOT / "docs" / "examples"), "--coverage-min", "100"])
    assert (code, capsys.readouterr().err) == (0, "")


def test_the_file_in_the_guide_prints_what_the_guide_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    guide = (ROOT / "docs" / "user" / "guides" / "testing.md").read_text()
    file, shown = re.findall(r"^```(?:yaml fragment|console)\n(.*?)^```$", guide, re.M | re.S)
    (tmp_path / "release.test.yaml").write_text(file)
    monkeypatch.chdir(tmp_path)
    assert main(["test", "release.test.yaml"]) == 0
    assert "$ muster test release.test.yaml\n" + capsys.readouterr().out == shown


def test_every_key_is_told() -> None:
    guide = (ROOT / "docs" / "user" / "guides" / "testing.md").read_text()
    tables = (SUITE, TEST, OUTCOME, UNITS, ANSWER, CHILD, NODE, INTERVENTION, EXPECT)
    keys = {key.name for table in tables for key in table.keys}
    assert keys - set(re.findall(r"`([a-z_]+)`", guide)) == set()
