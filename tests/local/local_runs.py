"""`muster run` as typed, and the same in muster.pyz by a Python without packages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
CLI = (sys.executable, "-m", "app.cli.main", "run")


def by_archive(archive: Path) -> tuple[str, ...]:
    return (sys.executable, "-I", "-S", str(archive), "run")


def environment() -> dict[str, str]:
    """Without a server that a person has in mind."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MUSTER_")}
    return {**plain, "PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8"}


def start(how: Sequence[str], *args: str, cwd: Path) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen([*how, *args], cwd=cwd, env=environment(), stdout=pipe, stderr=pipe, text=True)


def run(how: Sequence[str], *args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    process = start(how, *args, cwd=cwd)
    out, err = process.communicate(timeout=60)
    return subprocess.CompletedProcess(args, process.returncode, out, err)


def prepare(case: Mapping[str, Any], directory: Path) -> list[str]:
    """The files of a case, and the words after `run`: the state goes from in.json to out.json."""

    def placed(value: Any) -> Any:
        return json.loads(json.dumps(value).replace("{tmp}", str(directory)))

    for name, text in case.get("files", {}).items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)
    (directory / "workflow.yaml").write_text(case["workflow"])
    args = ["workflow.yaml", *placed(case["args"])]
    if "given" in case:
        (directory / "in.json").write_text(json.dumps(placed(case["given"])))
        args += ["--input", "in.json"]
    return args if "--output" in args else [*args, "--output", "out.json"]


def holds(wanted: Any, found: Any) -> bool:
    """Whether `found` has everything that `wanted` has, lists position by position; an empty map is empty."""
    if isinstance(wanted, dict) and wanted:
        return isinstance(found, dict) and all(
            key in found and holds(one, found[key]) for key, one in wanted.items()
        )
    if isinstance(wanted, list) and wanted:
        return isinstance(found, list) and len(found) >= len(wanted) and all(map(holds, wanted, found))
    return bool(wanted == found)
