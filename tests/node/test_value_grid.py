"""Values that want to be more than data, in every place of a script, by every shell that is here: none is executed.

By the real runner. Many values share one process, each with a variable and a file of its own.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from runner_bench import Bench

from app.errors import InvalidInput
from app.language.shelltext import value_text
from app.node import jobdir
from app.node.runner_client import RunnerClient
from app.transport.messages import BadMessage, Job

GRID = yaml.safe_load((Path(__file__).parents[1] / "cases" / "shells" / "grid.yaml").read_text())
CONTEXTS, VALUES = GRID["contexts"], GRID["values"]
PROGRAMS = {"sh": "sh", "dash": "dash", "bash": "bash", "zsh": "zsh", "mksh": "ksh", "ksh93": "ksh"}
"""Program -> the name of the shell that it is to a node."""
IN_CI = {"zsh", "mksh"}
"""Programs that may be missing on a machine of our own, and may not in CI."""


class Ground:
    """A runner, and a place where what was executed can be seen. `canary` is what nothing may make."""

    def __init__(self, directory: Path) -> None:
        self.bench = Bench(directory)
        self.client: RunnerClient = self.bench.client()
        self.canary = directory / "canary"
        self._directory = directory

    def path_with(self, program: str) -> str:
        """A PATH on which `program` is the shell that it is, and `reboot` makes the canary."""
        found = shutil.which(program)
        if found is None:
            assert not (program in IN_CI and os.environ.get("CI")), f"{program} must be there in CI"
            pytest.skip(f"{program} is not installed")
        place = self._directory / f"bin-{program}"
        place.mkdir(exist_ok=True)
        reboot = place / "reboot"
        reboot.write_text(f"#!/bin/sh\n: > {self.canary}\n")
        reboot.chmod(0o700)
        link = place / PROGRAMS[program]
        if not link.exists():
            link.symlink_to(found)
        return f"{place}:{os.environ['PATH']}"

    def run(self, script: str, shell: str, path: str, values: dict[str, str]) -> Path:
        """Runs the script with the values in its environment; the directory that it ran in."""
        job = self.bench.job(script=script, shell=shell, env={"PATH": path, "b": "BAD", **values})
        record = self.bench.run(self.client, job)
        assert record["status"] == "succeeded", self.bench.text(job, "stderr").decode()
        return Path(jobdir.path(self.bench.root, job.id)) / "work"

    def made(self, value: str) -> str:
        return value.replace("CANARY", str(self.canary))


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    made = Ground(tmp_path_factory.mktemp("grid"))
    yield made
    made.bench.close()


@pytest.fixture(autouse=True)
def no_canary(ground: Ground) -> Iterator[None]:
    yield
    ground.canary.unlink(missing_ok=True)


def test_the_grid_is_as_large_as_it_should_be() -> None:
    assert len(CONTEXTS) == 8
    assert len({*VALUES}) == len(VALUES) >= 40


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("context", CONTEXTS)
def test_no_value_is_executed_and_each_arrives(ground: Ground, context: str, program: str) -> None:
    path = ground.path_with(program)
    case = CONTEXTS[context]
    values = {f"v{number}": ground.made(value) for number, value in enumerate(VALUES)}
    parts = [f"{{\n{case['text'].replace('${v}', f'${{{name}}}')}\n}} > out.{name}" for name in values]
    where = ground.run("\n".join([*parts, "exit 0"]), PROGRAMS[program], path, values)
    assert not ground.canary.exists()
    arrived = {name: (where / f"out.{name}").read_bytes() for name in values}
    expected = {
        name: case.get("expect", "{}").replace("{}", value).encode()
        for name, value in values.items()
        if re.fullmatch(case.get("only", "(?s:.*)"), value) and value not in case.get("but", ())
    }
    assert expected
    assert {name: arrived[name] for name in expected} == expected


def test_python_reads_them_from_the_environment(ground: Ground) -> None:
    values = {f"v{number}": ground.made(value) for number, value in enumerate(VALUES)}
    script = """
import os, subprocess
for name, value in os.environb.items():
    if name.startswith(b"v"):
        said = subprocess.run([b"printf", b"%s", value], stdout=subprocess.PIPE, check=True).stdout
        with open(b"out." + name, "wb") as file:
            file.write(value if said == value else b"other: " + said)
"""
    where = ground.run(script, "python", os.environ["PATH"], values)
    assert {name: (where / f"out.{name}").read_bytes() for name in values} == {
        name: value.encode() for name, value in values.items()
    }
    assert not ground.canary.exists()


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("name", GRID["arithmetic"]["texts"])
def test_arithmetic_is_the_one_exception(ground: Ground, name: str, program: str) -> None:
    path = ground.path_with(program)
    case: dict[str, Any] = GRID["arithmetic"]["texts"][name]
    value = ground.made(GRID["arithmetic"]["value"])
    script = f"( {case['text']} ) >/dev/null 2>&1\nexit 0"
    ground.run(script, PROGRAMS[program], path, {"v": value})
    assert ground.canary.exists() == (program in case["runs"])


def test_nul_gets_nowhere(ground: Ground) -> None:
    with pytest.raises(InvalidInput):
        value_text("a\0b")
    job = ground.bench.job("true", env={"v": "a\0b"})
    with pytest.raises(BadMessage):
        Job.from_json(job.to_json())
    assert ground.bench.run(ground.client, job)["error"]["type"] == "refused"
