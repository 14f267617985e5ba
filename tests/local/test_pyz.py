"""The archive: what is in it, that it is the same each time, and that it needs nothing but Python."""

from __future__ import annotations

import json
import resource
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from local_runs import ROOT, environment

from app.pyz import archive, contents

MOST_BYTES = 1_500_000
MOST_SECONDS = 0.5


def bare(pyz: Path, *args: str, cwd: Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", "-S", str(pyz), *args]
    return subprocess.run(
        command, cwd=cwd, input=stdin, capture_output=True, text=True, timeout=60, check=False
    )


def test_it_is_small_and_pure(pyz: Path) -> None:
    assert pyz.stat().st_size < MOST_BYTES
    with zipfile.ZipFile(pyz) as found:
        names = found.namelist()
        assert found.testzip() is None
        assert {one.date_time for one in found.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    assert names == sorted(names)
    assert {Path(name).suffix for name in names if name.startswith(("app/", "yaml/", "jinja2/"))} == {
        ".py",
        ".pyc",
    }
    assert not [name for name in names if name.endswith((".so", ".pyd", ".c")) or "__pycache__" in name]
    assert {f"licenses/{one}.txt" for one in contents.VENDORED.values()} <= {*names}


def test_it_is_the_same_each_time(pyz: Path, tmp_path: Path) -> None:
    """Also by another process, with another order of sets."""
    again = tmp_path / "dist" / "again.pyz"
    command = [sys.executable, "-m", "app.cli.main", "pyz", str(again)]
    env = {**environment(), "PYTHONHASHSEED": "7"}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    assert again.read_bytes() == pyz.read_bytes()
    assert done.stdout == f"{again}: {pyz.stat().st_size} bytes\n"
    assert stat.S_IMODE(again.stat().st_mode) == 0o755


def test_it_starts_soon(pyz: Path, tmp_path: Path) -> None:
    """By the time of the processor: the machine may have other things to do."""

    def used() -> float:
        found = resource.getrusage(resource.RUSAGE_CHILDREN)
        return found.ru_utime + found.ru_stime

    (tmp_path / "w.yaml").write_text("tasks: [{name: a, action: core.noop}]\n")
    before = used()
    done = bare(pyz, "validate", "w.yaml", cwd=tmp_path)
    assert (done.returncode, used() - before < MOST_SECONDS) == (0, True), used() - before


def test_its_verbs(pyz: Path, tmp_path: Path) -> None:
    assert bare(pyz, "--version", cwd=tmp_path).stdout == "muster 0.1.0\n"
    usage = bare(pyz, cwd=tmp_path)
    assert (usage.returncode, usage.stdout) == (2, "")
    assert "VERB" in usage.stderr
    for verb in ("run", "validate"):
        assert bare(pyz, verb, "--help", cwd=tmp_path).returncode == 0
    done = bare(pyz, "run", "-", "--json", "-p", "n=3", cwd=tmp_path, stdin=SAY)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["task"]["say"]["result"] == {"message": "3"} | SILENT | {"stdout": "3"}


SAY = 'tasks: [{name: say, action: core.echo, input: {message: "{{ parameters.n }}"}}]\nparameters: {n: {}}\n'
SILENT = {"exit_code": 0, "stderr": "", "truncated": False}


@pytest.mark.parametrize("form", ["text", "json", "github"])
def test_it_validates_as_muster_does(form: str, pyz: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("tasks:\n  - {name: a, action: core.nop}\n  - {name: a, action: [}\n")
    (tmp_path / "odd.yaml").write_text("tasks: [{name: a, acton: core.noop, action: core.noop}]\n")
    (tmp_path / "good.yaml").write_text("ref: a.b\ntasks: [{name: x, action: core.noop}]\n")
    files = ["odd.yaml", "good.yaml"]
    command = [sys.executable, "-m", "app.cli.main", "validate", "--format", form, *files]
    ours = subprocess.run(
        command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    theirs = bare(pyz, "validate", "--format", form, *files, cwd=tmp_path)
    assert (theirs.returncode, theirs.stdout, theirs.stderr) == (ours.returncode, ours.stdout, ours.stderr)
    assert theirs.returncode == 2
    assert "bad.yaml:3:" in bare(pyz, "validate", "bad.yaml", cwd=tmp_path).stdout


def test_another_version_of_python_reads_the_source(pyz: Path, tmp_path: Path) -> None:
    """What that finds compiled is not for it: as if there were nothing compiled."""
    bare_source = tmp_path / "source.pyz"
    with zipfile.ZipFile(pyz) as whole, zipfile.ZipFile(bare_source, "w") as source:
        for name in whole.namelist():
            if not name.endswith(".pyc"):
                source.writestr(name, whole.read(name))
    done = bare(bare_source, "run", "-", "-p", "n=4", cwd=tmp_path, stdin=SAY)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("say │ 4\nsay · succeeded\nstatus=completed\n")


def test_nothing_that_is_missing_is_packed_around(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that needs a package which the archive does not carry is found when it is built, not far away."""
    monkeypatch.setattr(contents, "_ROOTS", ("app.cli.main",))
    with pytest.raises(contents.NotSelfContained, match="imports click"):
        contents.modules()
    assert not [*tmp_path.iterdir()]


def test_an_archive_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "muster.pyz"
    target.mkdir()
    with pytest.raises(OSError, match="directory"):
        archive.write(target, b"new")
    assert [one.name for one in tmp_path.iterdir()] == ["muster.pyz"]


def test_the_makefile_builds_it() -> None:
    assert "muster pyz dist/muster.pyz" in (ROOT / "Makefile").read_text()
