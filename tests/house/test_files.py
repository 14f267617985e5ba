"""Files at the top that start things: they parse, and what they name is there."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from repository import ROOT

from app.cli.main import COMMANDS
from app.compiler.build import build
from app.language.parse import load
from app.language.schema import workflow_schema
from app.settings import Settings, environment_name

COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
EXAMPLES = sorted((ROOT / "config" / "examples").glob("*.yaml"))


def procfile() -> dict[str, str]:
    pairs = (line.split(": ", 1) for line in (ROOT / "Procfile").read_text().splitlines() if line)
    return {name: command for name, command in pairs}


def check_command(words: list[str]) -> None:
    """A module named by `-A`, an app of gunicorn, or a program that we know."""
    program = words[0]
    if program == "celery":
        module = words[words.index("-A") + 1]
        assert importlib.util.find_spec(module) is not None, module
        assert words[words.index("-A") + 2] in ("worker", "beat", "flower")
    elif program == "gunicorn":
        module, _, call = words[1].partition(":")
        assert call == "create_app()"
        assert callable(importlib.import_module(module).create_app)
    else:
        assert program in ("python", "redis-server")


def test_the_procfile_names_what_is_there() -> None:
    found = procfile()
    assert set(found) == {"api", "control", "beat", "local", "flower"}
    for command in found.values():
        check_command(shlex.split(command))


def test_the_procfile_uses_settings_by_their_names() -> None:
    known = {environment_name(one.name): one.default for one in fields(Settings)}
    used = re.findall(r"\$\{(\w+):-([^}]*)\}", (ROOT / "Procfile").read_text())
    assert used
    assert {name: default for name, default in used} == {name: str(known[name]) for name, _ in used}


def test_compose_has_every_role() -> None:
    expected = {"redis", "postgres", "migrate", "api", "control", "beat", "local", "web-1", "web-2", "web-3"}
    assert set(COMPOSE["services"]) == {*expected, "flower"}


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_compose_service(name: str) -> None:
    service: dict[str, Any] = COMPOSE["services"][name]
    command = service.get("command")
    if command is not None:
        check_command(shlex.split(command) if isinstance(command, str) else command)
    assert set(service.get("depends_on", {})) <= set(COMPOSE["services"])
    for volume in service.get("volumes", ()):
        assert volume.split(":")[0] in COMPOSE["volumes"]
    for port in service.get("ports", ()):
        assert port.startswith("127.0.0.1:"), "nothing is open to the network unless somebody says so"
    known = {environment_name(one.name) for one in fields(Settings)}
    ours = {key for key in service.get("environment", {}) if not key.startswith(("POSTGRES_", "REDISCLI_"))}
    assert ours <= known


def test_only_those_who_sign_have_the_key() -> None:
    """The API holds no signing key, a node only its own directory."""
    holders = {
        name
        for name, service in COMPOSE["services"].items()
        for volume in service.get("volumes", ())
        if volume.startswith("control:")
    }
    assert holders == {"migrate", "control"}
    for node in ("local", "web-1", "web-2", "web-3"):
        assert COMPOSE["services"][node]["volumes"] == [f"{node}:/var/lib/muster/nodes/{node}"]
        assert "DATABASE_URL" not in COMPOSE["services"][node]["environment"]


def test_the_script_of_the_migrate_service_works(tmp_path: Path) -> None:
    """Run as it stands, on SQLite: twice, for it runs at every start."""
    script = COMPOSE["services"]["migrate"]["command"][2]
    given = {name: value for name, value in os.environ.items() if not name.startswith("MUSTER_")}
    given |= {"MUSTER_DATA_DIR": str(tmp_path / "muster"), "PYTHONPATH": str(ROOT)}
    tokens = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", script],
            env=given,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        tokens.append((tmp_path / "muster" / "client.env").read_text())
    assert tokens[0] == tokens[1]
    nodes = {path.parent.name for path in (tmp_path / "muster" / "nodes").glob("*/identity.json")}
    assert nodes == {"local", "web-1", "web-2", "web-3"}
    assert (tmp_path / "muster" / "control.keys").stat().st_mode & 0o077 == 0


def test_the_dockerfile_copies_what_is_there() -> None:
    for sources in re.findall(r"^COPY (.+) \S+$", (ROOT / "Dockerfile").read_text(), re.M):
        assert all((ROOT / name).exists() for name in sources.split())


def test_the_published_schema_is_the_loaders() -> None:
    """`make schema` writes it."""
    assert json.loads((ROOT / "config" / "workflow.schema.json").read_text()) == workflow_schema()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_compile(path: Path) -> None:
    loaded = load(path.read_text(), path.name)
    assert loaded.workflow is not None
    assert not loaded.problems
    assert build(loaded.workflow).tasks


def test_make_has_a_target_for_each_door() -> None:
    text = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", text, re.M))
    phony = set(re.findall(r"^\.PHONY: (.+)$", text, re.M)[0].split())
    assert {"demo", "test", "test-all", "check", "bench", "chaos", "up", "schema", "setup", "lock"} <= targets
    assert phony == targets
    verbs = set(re.findall(r"\$\(BIN\)/muster (\w+)", text))
    assert verbs <= COMMANDS.keys()


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
@pytest.mark.parametrize("target", ["demo", "test", "check", "bench", "chaos", "simulate-long", "clean"])
def test_make_understands_its_file(target: str) -> None:
    done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_ci_runs_under_bash_and_is_executable() -> None:
    path = ROOT / ".ci" / "run"
    assert os.access(path, os.X_OK)
    assert path.read_text().startswith("#!/usr/bin/env bash\n")
    assert "set -euo pipefail" in path.read_text()
    assert subprocess.run(["bash", "-n", str(path)], check=False).returncode == 0


def test_the_licence_is_there() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text
