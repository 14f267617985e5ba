"""Parts of workflows that run in one process: every case by the command and by the archive, which leave the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from local_runs import CLI, ROOT, by_archive, holds, prepare, start

CASES = yaml.safe_load((ROOT / "tests" / "cases" / "local" / "parts.yaml").read_text())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_a_part(case: dict[str, Any], pyz: Path, tmp_path: Path) -> None:
    begun = []
    for name, how in (("muster", CLI), ("pyz", by_archive(pyz))):
        directory = tmp_path / name
        directory.mkdir()
        begun.append((directory, start(how, *prepare(case, directory), cwd=directory)))
    ended = [(directory, process, *process.communicate(timeout=60)) for directory, process in begun]
    for directory, process, out, err in ended:
        assert (process.returncode, err) == (case.get("code", 0), ""), out
        left = json.loads((directory / "out.json").read_text())
        more = ["system"] if "system" in case.get("given", {}) else []
        assert list(left) == ["parameters", "vars", "task", *more, "status", "error", "output"]
        assert holds(case["left"], left), left
        assert {name: one["status"] for name, one in left["task"].items()} == case["tasks"]
        for line in case.get("shown", ()):
            assert line in out
