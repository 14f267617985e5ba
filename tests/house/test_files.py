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
from jsonschema import Draft202012Validator
from repository import ROOT

from app.cli.main import COMMANDS, main
from app.compiler.build import build
from app.language import pack_tables
from app.language.actions import ACTIONS
from app.language.parse import load
from app.language.schema import workflow_schema
from app.node.identity import write_identity
from app.settings import Settings, environment_name
from app.transport.keys import KeyPair

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
        assert words[words.index("-A") + 2] in ("worker", "beat")
    elif words[:2] == ["python", "-m"]:
        assert importlib.util.find_spec(words[2]) is not None, words[2]
    elif program == "gunicorn":
        module, _, call = words[1].partition(":")
        assert call == "create_app()"
        assert callable(importlib.import_module(module).create_app)
    else:
        assert program in ("redis-server", "muster") or (ROOT / words[1]).exists()


def test_the_procfile_names_what_is_there() -> None:
    found = procfile()
    assert set(found) == {"api", "control", "io", "ssh", "beat", "local", "flower"}
    for command in found.values():
        check_command(shlex.split(command))


def test_the_procfile_uses_settings_by_their_names() -> None:
    known = {environment_name(one.name): one.default for one in fields(Settings)}
    used = re.findall(r"\$\{(\w+):-([^}]*)\}", (ROOT / "Procfile").read_text())
    assert used
    assert {name: default for name, default in used} == {name: str(known[name]) for name, _ in used}


def test_compose_has_every_role() -> None:
    expected = {"redis", "postgres", "setup", "api", "control", "beat", "local", "web-1", "web-2", "web-3"}
    assert set(COMPOSE["services"]) == {*expected, "flower", "io", "ssh"}


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

    def holders(volume: str) -> set[str]:
        return {
            name
            for name, service in COMPOSE["services"].items()
            if any(mount.split(":")[0] == volume for mount in service.get("volumes", ()))
        }

    assert holders("control") == {"setup", "control"}
    assert holders("ssh") == {"ssh"}
    assert holders("secrets") == {"setup", "control", "api", "io", "ssh"}
    for node in ("local", "web-1", "web-2", "web-3"):
        assert holders(node) == {node}
        assert holders(f"{node}-token") == {"setup", node}
        assert "DATABASE_URL" not in COMPOSE["services"][node]["environment"]


def test_the_threads_of_the_api_are_those_that_it_counts_on() -> None:
    service = COMPOSE["services"]["api"]
    assert f"--threads={service['environment']['MUSTER_API_THREADS']}" in service["command"]


def test_env_example_names_what_compose_asks_for() -> None:
    asked = set(re.findall(r"\$\{(\w+):\?", (ROOT / "docker-compose.yml").read_text()))
    given = re.findall(r"^(\w+)=(.*)$", (ROOT / ".env.example").read_text(), re.M)
    assert dict(given) == dict.fromkeys(asked, ""), "a password that stands here is nobody's own"


def test_the_dockerfile_copies_what_is_there() -> None:
    for sources in re.findall(r"^COPY (.+) \S+$", (ROOT / "Dockerfile").read_text(), re.M):
        assert all((ROOT / name).exists() for name in sources.split())


def test_the_published_schema_is_the_loaders() -> None:
    """`make schema` writes it."""
    assert json.loads((ROOT / "config" / "workflow.schema.json").read_text()) == workflow_schema()


@pytest.mark.parametrize("name", ["pack", "pack-config", "action"])
def test_the_published_schemas_of_packs_are_the_readers(name: str) -> None:
    published = json.loads((ROOT / "config" / f"{name}.schema.json").read_text())
    assert published == pack_tables.schemas()[name.removeprefix("pack-")]


def test_the_pack_core_tells_of_every_core_action() -> None:
    """It is for reading: what runs is the table."""
    told = {}
    for path in (ROOT / "config" / "packs" / "core" / "actions").glob("*.yaml"):
        data = yaml.safe_load(path.read_text())
        given = data.get("parameters", {})
        told[f"core.{data['name']}"] = [
            (name, one.get("required", False), one["description"]) for name, one in given.items()
        ]
    assert told == {
        ref: [(key.name, key.required, key.doc) for key in table.keys] for ref, table in ACTIONS.items()
    }


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("pack", "config/packs/*/pack.yaml"),
        ("pack-config", "config/packs/*/config.yaml"),
        ("action", "config/packs/*/actions/*.yaml"),
    ],
)
def test_what_is_shipped_fits_the_published_schemas_of_packs(name: str, files: str) -> None:
    schema = json.loads((ROOT / "config" / f"{name}.schema.json").read_text())
    Draft202012Validator.check_schema(schema)
    paths = sorted(ROOT.glob(files))
    assert paths
    for path in paths:
        assert not list(Draft202012Validator(schema).iter_errors(yaml.safe_load(path.read_text()))), path
    assert list(Draft202012Validator(schema).iter_errors({"Nobody": ["knows", "this"]}))


PACKS = sorted(path.parent for path in (ROOT / "config" / "packs").glob("*/pack.yaml"))


def test_the_packs_that_are_shipped_are_good_and_their_tests_pass(capsys: pytest.CaptureFixture[str]) -> None:
    assert {path.name for path in PACKS} == {"core", "my_pack", "docker", "kubernetes", "http", "slack"}
    assert main(["pack", "check", "--strict", *map(str, PACKS)]) == 0, capsys.readouterr().out
    out = capsys.readouterr().out
    assert "warning" not in out
    assert "edges 13/13 of my_pack.deploy_application" in out


@pytest.mark.parametrize("path", sorted(ROOT.glob("config/packs/*/actions/*.sh")), ids=lambda path: path.stem)
def test_shell_scripts_of_packs_are_read_by_a_shell(path: Path) -> None:
    assert subprocess.run(["sh", "-n", str(path)], check=False).returncode == 0


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


def test_the_benchmark_starts() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench", "nosuch"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.endswith("error: there is no case nosuch\n")


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


# systemd

UNITS = sorted((ROOT / "config" / "systemd").glob("*.service"))
COMMAND = re.compile(r"^Exec\w+=/opt/muster/\.venv/bin/(.+)$", re.M)


def test_a_unit_for_every_role() -> None:
    expected = {"setup", "api", "control", "io", "ssh", "beat", "runner@", "node@"}
    assert {path.stem.removeprefix("muster-") for path in UNITS} == expected


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_units_start_what_is_there_with_settings_that_are(path: Path) -> None:
    text = path.read_text().replace("\\\n", " ")
    commands = [shlex.split(command) for command in COMMAND.findall(text)]
    assert len(commands) == len(re.findall(r"^Exec", text, re.M)) > 0
    for command in commands:
        if command[:2] == ["python", "-m"]:
            assert importlib.util.find_spec(command[2]) is not None
        else:
            check_command(command)
    known = {environment_name(one.name) for one in fields(Settings)}
    assert set(re.findall(r"(?<![\w.])(?:MUSTER_\w+|\w+_URL)\b", text)) <= known
    assert "User=root" not in text
    assert re.search(r"^User=muster", text, re.M)


def test_what_must_outlive_what() -> None:
    """The runner is no part of the worker's unit, and stopping the worker tells nobody else."""
    node, runner = ((ROOT / "config" / "systemd" / f"muster-{name}@.service") for name in ("node", "runner"))
    assert "\nKillMode=process\n" in node.read_text()
    assert "MUSTER_START_RUNNER=0" in node.read_text()
    assert "\nOOMPolicy=continue\n" in runner.read_text()
    for sandbox in (
        "NoNewPrivileges",
        "ProtectSystem",
        "PrivateTmp",
        "SystemCallFilter",
        "CapabilityBoundingSet",
    ):
        assert sandbox not in runner.read_text(), "scripts would be refused what their user may do"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze")
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    for path in UNITS:
        text = path.read_text().replace("/opt/muster/.venv/bin/", f"{tmp_path}/")
        (tmp_path / path.name).write_text(text)
    for program in ("muster", "celery", "gunicorn", "python"):
        (tmp_path / program).touch(0o755)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *(str(tmp_path / path.name) for path in UNITS)],
        capture_output=True,
        text=True,
        check=False,
    )
    ours = [line for line in (done.stdout + done.stderr).splitlines() if "muster" in line]
    assert not ours


@pytest.mark.parametrize("module", ["profiled_control", "profiled_node"])
def test_the_probes_of_the_breakdown_fit_what_they_are_put_into(module: str, tmp_path: Path) -> None:
    """They are put in by name, and a function that has moved is missed only by who asks where the time goes."""
    keys = KeyPair.generate()
    keys.save(tmp_path / "node.keys")
    write_identity(tmp_path, "web-1", "INST", [keys.public()])
    done = subprocess.run(
        [sys.executable, "-c", f"import bench.{module}"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "MUSTER_DATA_DIR": str(tmp_path), "MUSTER_NODE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
