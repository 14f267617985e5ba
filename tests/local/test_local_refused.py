"""What is refused before anything runs: with its code, its place, and nothing written."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from local_runs import ROOT, by_archive, run

from app.cli.main import main

CASES = yaml.safe_load((ROOT / "tests" / "cases" / "local" / "refused.yaml").read_text())


def words(case: dict[str, Any], directory: Path) -> list[str]:
    (directory / "w.yaml").write_text(case["workflow"])
    args = list(case.get("args", ()))
    state = case.get("input") or (json.dumps(case["given"]) if "given" in case else None)
    if state is not None:
        (directory / "in.json").write_text(state)
        args += ["--input", "in.json"]
    return ["w.yaml", *args, "--json"]


def places(error: dict[str, Any]) -> list[str]:
    found = [one for one in error["errors"] if one["severity"] == "error"]
    return [f"{one['code']} {one['line']}:{one['column']}" for one in found]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_refused(
    case: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    args = words(case, tmp_path)
    before = sorted(tmp_path.iterdir())
    code = main(["run", *args])
    told = capsys.readouterr()
    if case.get("at") == []:
        assert (code, told.err) == (0, "")
        return
    assert (code, told.out) == (2, "")
    assert sorted(tmp_path.iterdir()) == before
    error = json.loads(told.err)["error"]
    if "at" in case:
        assert places(error) == case["at"]
    else:
        assert error["code"] == case["code"]
    for text in case.get("says", ()):
        assert text in told.err.replace('\\"', '"')


def test_the_archive_says_the_same(pyz: Path, tmp_path: Path) -> None:
    case = next(case for case in CASES if case["name"] == "what the server keeps, wherever it is read")
    done = run(by_archive(pyz), *words(case, tmp_path), cwd=tmp_path)
    assert done.returncode == 2
    assert places(json.loads(done.stderr)["error"]) == case["at"]
    plain = run(by_archive(pyz), *words(case, tmp_path)[:-1], cwd=tmp_path)
    assert plain.stderr.startswith("w.yaml:2:11: error: the value kept under `v` is read here [part-kv]\n")


def test_a_state_that_cannot_be_left_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Something ran: that is not how an input is refused."""
    monkeypatch.chdir(tmp_path)
    deep = ", ".join(
        f'{{{name}: {"[" * 50}"{{{{ vars.{before} }}}}"{"]" * 50}}}' for before, name in pairwise("abcdef")
    )
    tasks = f"vars: {{a: 1}}\ntasks: [{{name: t, action: core.noop, publish: [{deep}]}}]\n"
    (tmp_path / "w.yaml").write_text(tasks)
    assert main(["run", "w.yaml", "--output", "out.json", "--json"]) == 1
    assert json.loads(capsys.readouterr().err)["error"]["code"] == "state-not-json"
    assert not (tmp_path / "out.json").exists()
