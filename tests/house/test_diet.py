"""What a process loads is its import graph: nodes and clients stay light."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from repository import ROOT

from app.node import identity
from app.transport.keys import KeyPair

SERVER_ONLY = ("flask", "sqlalchemy", "marshmallow", "alembic", "flask_smorest", "gunicorn", "psycopg")
DIETS = {
    "workers.node": (
        *SERVER_ONLY,
        "structlog",
        "jinja2",
        "rich",
        "joserfc",
        "app.language",
        "app.services",
        "app.store",
    ),
    "app.cli.main": (*SERVER_ONLY, "celery", "kombu", "redis", "cryptography", "jinja2", "yaml"),
    "app.cli.offline": (*SERVER_ONLY, "celery", "kombu", "redis", "cryptography"),
    "app.cli.testing": (*SERVER_ONLY, "celery", "kombu", "redis", "cryptography"),
    "app.cli.run": (*SERVER_ONLY, "celery", "kombu", "redis", "cryptography"),
    "app.cli.remote": (
        *SERVER_ONLY,
        "celery",
        "kombu",
        "redis",
        "cryptography",
        "rich",
        "difflib",
        "app.language.problems",
    ),
    "app.cli.execution": (*SERVER_ONLY, "celery", "kombu", "redis", "cryptography"),
    "app.language.parse": (*SERVER_ONLY, "celery", "kombu", "redis", "click"),
    "workers.beat": SERVER_ONLY,
}
"""Module -> packages that it must not bring along.

PyYAML is not among a node's: kombu imports it wherever it is installed.
"""


def loaded_by(module: str, environment: dict[str, str]) -> set[str]:
    """The names of all modules of a fresh interpreter after importing one."""
    code = f"import {module}, sys, json; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """That of an enrolled node, without anything of the caller's that is ours."""
    pair = KeyPair.generate()
    pair.save(tmp_path / identity.KEY_FILE)
    identity.write_identity(tmp_path, "web-1", "01", [KeyPair.generate().public()])
    given = {name: value for name, value in os.environ.items() if not name.startswith("MUSTER_")}
    return given | {"MUSTER_NODE": "web-1", "MUSTER_NODE_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)}


@pytest.mark.parametrize("module", DIETS)
def test_diet(module: str, environment: dict[str, str]) -> None:
    assert sorted(loaded_by(module, environment) & set(DIETS[module])) == []


def test_the_runner_needs_only_the_standard_library(environment: dict[str, str]) -> None:
    """Scripts outlive the worker, so what owns them must not fall with a package."""
    before = loaded_by("json", environment)
    extra = {name.split(".")[0] for name in loaded_by("app.node.runner", environment) - before}
    assert extra - set(sys.stdlib_module_names) == {"app"}
