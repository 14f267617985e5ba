"""The files of a deploy plan on the node: written where only the job is, and gone when it ends."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from runner_bench import Bench, alive
from waiting import wait_until

from app.node import endpoint, jobdir, shells

ENDS: dict[str, tuple[dict[str, Any], str]] = {
    "well": ({"script": "test -s $0"}, "succeeded"),
    "badly": ({"script": "exit 3"}, "failed"),
    "late": ({"script": "while :; do sleep 0.05; done", "timeout": 0.2}, "timed_out"),
    "without its directory": ({"script": "id", "cwd": "/no/such"}, "failed"),
    "after it removed itself": ({"script": 'rm "$0"'}, "succeeded"),
}


def files(bench: Bench, job_id: str) -> list[str]:
    return sorted(os.listdir(jobdir.path(bench.root, job_id)))


@pytest.mark.parametrize("name", ENDS)
def test_the_script_is_removed_however_it_ends(bench: Bench, name: str) -> None:
    fields, status = ENDS[name]
    job = bench.job(**fields)
    record = bench.run(bench.client(), job)
    assert record["status"] == status
    assert "script" not in files(bench, job.id)
    assert "record" in files(bench, job.id)


def test_the_script_is_removed_when_it_is_cancelled(bench: Bench) -> None:
    client = bench.client()
    job = bench.job("echo begun; while :; do sleep 0.05; done")
    client.start(job)
    bench.until_running(client, job)
    assert "script" in files(bench, job.id)
    client.cancel(job.id)
    assert client.wait(job.id)["status"] == "cancelled"
    assert "script" not in files(bench, job.id)


def test_what_the_script_puts_in_its_place_is_its_own_business(bench: Bench) -> None:
    job = bench.job('rm "$0"; mkdir "$0"; touch "$0/kept"')
    assert bench.run(bench.client(), job)["status"] == "succeeded"
    assert os.listdir(os.path.join(jobdir.path(bench.root, job.id), "script")) == ["kept"]


def test_the_script_of_a_runner_that_died_is_removed_by_the_next_one(bench: Bench) -> None:
    client = bench.client()
    job = bench.job("echo begun; while :; do sleep 0.05; done")
    client.start(job)
    bench.until_running(client, job)
    pid = int(endpoint.read(bench.root)["pid"])
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not alive(pid), "the runner is dead")
    assert client.wait(job.id)["status"] == "unknown"
    assert "script" not in files(bench, job.id)


def test_a_script_cannot_have_the_next_runner_remove_other_files(bench: Bench, tmp_path: Path) -> None:
    """It may write what it likes into its own record."""
    other = tmp_path / "other"
    other.touch()
    client = bench.client()
    noted = f'{{"cleanup": ["{other}", "../../../other", "stdout", "record"]}}'
    job = bench.job(f"""printf '\\n%s\\n' '{noted}' >> "${{MUSTER_INPUT%/*}}/record"
        echo begun; while :; do sleep 0.05; done""")
    client.start(job)
    bench.until_running(client, job)
    pid = int(endpoint.read(bench.root)["pid"])
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not alive(pid), "the runner is dead")
    assert client.wait(job.id)["status"] == "unknown"
    assert other.exists()
    assert {"record", "stdout"} <= set(files(bench, job.id))


def test_a_plan_without_a_removal_leaves_the_script(bench: Bench) -> None:
    job = bench.job("true")
    kept = type(job)(**{**fields_of(job), "commands": job.commands[:1]})
    assert bench.run(bench.client(), kept)["status"] == "succeeded"
    assert "script" in files(bench, job.id)


def fields_of(job: Any) -> dict[str, Any]:
    return {name: getattr(job, name) for name in job.__slots__}


TELLS = """#!/bin/sh
for word in "$0" "$@"; do printf '%s\\n' "$word"; done
cd "${MUSTER_INPUT%/*}" && for file in script* prelude*; do
  [ -f "$file" ] && { printf '== %s\\n' "$file"; cat "$file"; }
done
exit 0
"""
"""A program in the place of an interpreter: it tells how it was called, and with which files."""


def tells(bench: Bench, directory: Path, program: str, **fields: Any) -> str:
    """What such a program says of a job. The job's directory is JOB in it."""
    file = directory / program
    file.write_text(TELLS)
    file.chmod(0o700)
    env = {"PATH": f"{directory}:{os.environ['PATH']}", **fields.pop("env", {})}
    job = bench.job(env=env, **fields)
    assert bench.run(bench.client(), job)["status"] == "succeeded"
    assert not [name for name in files(bench, job.id) if name.startswith(("script", "prelude"))]
    return bench.text(job).decode().replace(f"{jobdir.path(bench.root, job.id)}/", "JOB/")


@pytest.mark.parametrize(
    ("shell", "program", "argv"),
    [
        ("zsh", "zsh", ["-f", "JOB/script"]),
        ("ksh", "ksh", ["JOB/script"]),
        ("bash", "bash", ["JOB/script"]),
        ("powershell", "pwsh", ["-NoProfile", "-NonInteractive", "-File", "JOB/prelude.ps1"]),
        ("cmd", "cmd.exe", ["/V:ON", "/D", "/S", "/C", "JOB/script.cmd"]),
        ("python", "python3", ["JOB/script"]),
    ],
)
def test_each_shell_is_called_as_it_must_be(
    bench: Bench, tmp_path: Path, shell: str, program: str, argv: list[str]
) -> None:
    text = tells(bench, tmp_path, program, script="echo hi", shell=shell)
    assert text.splitlines()[: len(argv) + 1] == [f"{tmp_path}/{program}", *argv]


def test_powershell_is_given_the_script_as_it_was_and_a_prelude(bench: Bench, tmp_path: Path) -> None:
    body = "Write-Output \"${target}\"\r\n'${target}' # grüße\n"
    env = {"target": "'; Remove-Item /", "HOME": "/x", "host": "no", "MUSTER_V1": "v", "a-b": "c"}
    text = tells(bench, tmp_path, "pwsh", script=body, shell="powershell", env=env)
    assert f"== script.ps1\n{body}== prelude.ps1\n" in text
    assert text.partition("== prelude.ps1\n")[2].splitlines() == [
        "${PATH} = [string][Environment]::GetEnvironmentVariable('PATH')",
        "${target} = [string][Environment]::GetEnvironmentVariable('target')",
        "${MUSTER_V1} = [string][Environment]::GetEnvironmentVariable('MUSTER_V1')",
        "$global:LASTEXITCODE = 0",
        ". (Join-Path $PSScriptRoot 'script.ps1')",
        "if (-not $?) { exit $global:LASTEXITCODE }",
    ]


def test_cmd_is_given_the_script_with_its_line_ends(bench: Bench, tmp_path: Path) -> None:
    body = "@echo off\necho !target!\r\n"
    text = tells(bench, tmp_path, "cmd.exe", script=body, shell="cmd", env={"target": "a b"})
    assert text.endswith("== script.cmd\n@echo off\r\necho !target!\r\n")


def test_ksh_is_any_of_its_kind(tmp_path: Path) -> None:
    for program in ("mksh", "ksh93", "ksh"):
        file = tmp_path / program
        file.symlink_to("/bin/sh")
        assert shells.command_for("ksh", str(tmp_path)) == [str(file)]
    assert shells.available(str(tmp_path)) == ("ksh",)
