"""What needs no server: each case of cases/offline.yaml is the command as typed, in a directory of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CASES = yaml.safe_load((HERE / "cases" / "offline.yaml").read_text())


def muster(
    *args: str, cwd: Path, env: dict[str, str] | None = None, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MUSTER_")}
    plain = {name: value for name, value in plain.items() if name not in ("REDIS_URL", "DATABASE_URL")}
    environment = {**plain, "PYTHONPATH": str(ROOT), **(env or {})}
    command = [sys.executable, "-m", "app.cli.main", *args]
    return subprocess.run(
        command,
        cwd=cwd,
        env=environment,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def holds(wanted: Any, found: Any) -> bool:
    """Whether `found` has everything that `wanted` has, lists position by position."""
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(
            key in found and holds(one, found[key]) for key, one in wanted.items()
        )
    if isinstance(wanted, list):
        long_enough = isinstance(found, list) and len(found) >= len(wanted) and bool(wanted) >= bool(found)
        return long_enough and all(holds(one, other) for one, other in zip(wanted, found, strict=False))
    return bool(wanted == found)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_offline(case: dict[str, Any], tmp_path: Path) -> None:
    for name, text in case.get("files", {}).items():
        (tmp_path / name).write_text(text)
    done = muster(*case["args"], cwd=tmp_path, env=case.get("env"), stdin=case.get("stdin", ""))
    assert done.returncode == case.get("exit", 0), done
    assert "Traceback" not in done.stderr
    for text in case.get("out", ()):
        assert text in done.stdout
    for text in case.get("err", ()):
        assert text in done.stderr
    for text in case.get("never", ()):
        assert text not in done.stdout + done.stderr
    if "json" in case:
        assert holds(case["json"], json.loads(done.stdout)), done.stdout
    if "errjson" in case:
        assert holds(case["errjson"], json.loads(done.stderr)), done.stderr


DIET = {
    "version": (["--version"], ("rich", "yaml", "jinja2", "http.client")),
    "help": (["--help"], ("rich", "yaml", "jinja2", "http.client")),
    "validate": (["validate", "good.yaml"], ("rich", "http.client")),
    "compile": (["compile", "good.yaml"], ("rich", "http.client")),
    "run": (["run", "good.yaml", "--url", "http://127.0.0.1:1"], ("yaml", "jinja2", "cryptography")),
    "node list": (["node", "list", "--url", "http://127.0.0.1:1"], ("yaml", "jinja2", "cryptography")),
    "execution show": (
        ["execution", "show", "x", "--url", "http://127.0.0.1:1"],
        ("yaml", "jinja2", "cryptography"),
    ),
    "graph": (["graph", "a.b", "--url", "http://127.0.0.1:1"], ("rich", "yaml", "jinja2", "cryptography")),
    "doctor": (["doctor"], ("yaml", "jinja2", "cryptography")),
    "up --help": (["up", "--help"], ()),
}
NEVER = ("celery", "kombu", "flask", "requests", "httpx", "redis")


@pytest.mark.parametrize("name", DIET)
def test_import_diet(name: str, tmp_path: Path) -> None:
    """No verb pays for what it does not use; only `up` may touch the store, and no command imports Celery."""
    args, never = DIET[name]
    (tmp_path / "good.yaml").write_text("ref: a.b\ntasks: [{name: x, action: core.noop}]\n")
    code = (
        "import sys, time; began = time.perf_counter(); from app.cli.main import main; main(sys.argv[1:]);"
        "took = time.perf_counter() - began; print('\\nLOADED', *sys.modules); print('TOOK', took, file=sys.stderr)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, *args]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.rpartition("LOADED")[2].split())
    assert "app.cli.main" in loaded
    if name != "up --help":
        never = (*never, "sqlalchemy")
    assert not loaded & {*never, *NEVER}
    print(name, done.stderr.rpartition("TOOK")[2].strip(), "s")


def test_the_schema_beside_the_examples_is_the_loaders(tmp_path: Path) -> None:
    """Made anew by `muster schema > config/examples/workflow.schema.json`."""
    assert (
        muster("schema", cwd=tmp_path).stdout
        == (ROOT / "config" / "examples" / "workflow.schema.json").read_text()
    )


@pytest.mark.parametrize(
    "file", sorted((ROOT / "config" / "examples").glob("*.yaml")), ids=lambda file: file.name
)
def test_examples_are_valid(file: Path, tmp_path: Path) -> None:
    assert file.read_text().startswith("# yaml-language-server: $schema=workflow.schema.json\n")
    done = muster("validate", "--json", str(file), cwd=tmp_path)
    assert json.loads(done.stdout)["files"][0]["problems"] == []


@pytest.mark.parametrize(
    ("where", "code", "said"),
    [("> /dev/full", 1, "error: the output cannot be written: No space left on device\n"), (">&-", 0, "")],
)
def test_an_output_that_takes_nothing_is_no_fault_of_ours(
    tmp_path: Path, where: str, code: int, said: str
) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = f"{sys.executable} -m app.cli.main schema {where}"
    done = subprocess.run(
        ["sh", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (code, said)
