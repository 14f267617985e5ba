"""The node's own policy: what it refuses, and that it refuses everything where somebody else could have written it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from planned_jobs import planned

from app.allow.policy import digest_of
from app.node.policy import PolicyFile
from app.transport.messages import Job

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a file that belongs to root")

POLICY = """
version = 1
mode = "enforce"
environment = ["LANG"]
deny = ["reboot"]

[[entries]]
command = "true"

[[entries]]
command = "cat"
more = "{path:LOGS}"

[[entries]]
script = "sha256:d9f5b7e1e6a3d2f4"
"""


def job(*argv: str, script: str | None = None, **more: object) -> Job:
    fields = {"argv": argv or None, "script": script, **more}
    return planned(id="E.a.0.1", execution="E", task="a", unit=0, attempt=1, action="core.shell", **fields)


class Machine:
    """A directory that only its owner may write, with a policy in it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory.resolve()
        self.logs = self.directory / "logs"
        self.logs.mkdir()
        self.file = self.directory / "policy.toml"
        self.write('mode = "enforce"')
        self.policy = PolicyFile(str(self.file))

    def write(self, mode: str) -> None:
        text = POLICY.replace("LOGS", str(self.logs)).replace('mode = "enforce"', mode)
        new = self.directory / "new"
        new.write_text(text.replace("sha256:d9f5b7e1e6a3d2f4", digest_of("uptime | tail -1")))
        new.chmod(0o644)
        new.replace(self.file)

    def refusal(self, *argv: str, **more: object) -> str:
        return self.policy.refusal(job(*argv, **more))  # type: ignore[arg-type]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@needs_root
def test_what_an_entry_allows_runs_and_nothing_else(machine: Machine) -> None:
    (machine.logs / "own").write_text("")
    (machine.logs / "out").symlink_to("/etc/shadow")
    assert machine.refusal("true") == ""
    assert machine.refusal("/usr/bin/true", env={"LANG": "C"}) == ""
    assert machine.refusal("cat", f"{machine.logs}/own") == ""
    assert machine.refusal(script="uptime | tail -1") == ""
    for argv in (
        ("uptime",),
        ("/tmp/true",),
        ("cat", "/etc/shadow"),
        ("cat", f"{machine.logs}/out"),
        ("cat", f"{machine.logs}/../policy.toml"),
        ("reboot",),
        ("sh", "-c", "true"),
    ):
        assert machine.refusal(*argv).startswith("refused by this node's policy: "), argv
    assert "digest" in machine.refusal(script="uptime | tail -2")
    assert "variable" in machine.refusal("true", env={"LD_PRELOAD": "/tmp/x.so"})
    assert "PATH" in machine.refusal("true", env={"PATH": "/tmp"})
    assert "directory" in machine.refusal("true", cwd="/")
    told = machine.policy.told()
    assert (told["policy"], told["policy_would_refuse"]) == ("enforce", "0")
    assert int(told["policy_refused"]) == 11


@needs_root
def test_a_program_that_is_a_link_to_an_interpreter_is_refused(machine: Machine, tmp_path: Path) -> None:
    tool = tmp_path.resolve() / "report"
    tool.symlink_to("/bin/sh")
    text = machine.file.read_text() + f'\n[[entries]]\ncommand = "{tool}"\n'
    machine.file.write_text(text)
    assert "report is a link to" in machine.refusal(str(tool))
    machine.file.write_text(text + "unsafe = true\n")
    assert machine.refusal(str(tool)) == ""


@needs_root
def test_watched_only_it_is_counted_and_what_is_denied_is_refused(machine: Machine) -> None:
    machine.write('mode = "audit"')
    assert machine.refusal("uptime") == ""
    assert "denied" in machine.refusal("/sbin/reboot")
    assert machine.policy.told() == {"policy": "audit", "policy_refused": "1", "policy_would_refuse": "1"}
    machine.write('mode = "off"')
    assert machine.refusal("uptime") == ""
    assert "denied" in machine.refusal("reboot")


@needs_root
def test_a_changed_file_counts_at_once(machine: Machine) -> None:
    assert machine.refusal("uptime") != ""
    machine.write('mode = "off"')
    assert machine.refusal("uptime") == ""
    machine.write('mode = "enforce"')
    assert machine.refusal("uptime") != ""


@needs_root
def test_a_file_that_others_could_have_written_refuses_everything(machine: Machine) -> None:
    def refused(why: str) -> None:
        assert why in machine.refusal("true"), machine.refusal("true")
        assert why in machine.policy.told()["policy"]

    machine.file.chmod(0o664)
    refused("may be written by others")
    machine.file.chmod(0o646)
    refused("may be written by others")
    machine.file.chmod(0o644)
    assert machine.refusal("true") == ""
    os.chown(machine.file, 65534, -1)
    refused("does not belong to root")
    os.chown(machine.file, 0, -1)
    machine.file.rename(machine.directory / "real.toml")
    machine.file.symlink_to("real.toml")
    refused("real path")
    machine.file.unlink()
    refused("cannot be read: No such file")
    os.mkfifo(machine.file, 0o600)
    refused("is no file")


@needs_root
@pytest.mark.parametrize("wrong", ["directory", "owner"])
def test_the_directories_above_count_too(machine: Machine, wrong: str) -> None:
    inner = machine.directory / "inner"
    inner.mkdir()
    moved = inner / "policy.toml"
    machine.file.rename(moved)
    if wrong == "directory":
        inner.chmod(0o777)
    else:
        os.chown(inner, 65534, -1)
    why = PolicyFile(str(moved)).refusal(job("true"))
    assert str(inner) in why
    assert "root" in why


@needs_root
@pytest.mark.parametrize(
    "text", ["", "version = 1\nmode = 'maybe'", "[[", "version = 1\n[[entries]]\ncommand = 'bash'\n", "\xff"]
)
def test_a_broken_file_refuses_everything(machine: Machine, text: str) -> None:
    machine.file.write_bytes(text.encode("latin-1"))
    assert "every job is refused" in machine.refusal("true")
    assert machine.refusal(script="uptime | tail -1") != ""


def test_a_file_that_is_named_and_not_there_refuses_everything(tmp_path: Path) -> None:
    policy = PolicyFile(str(tmp_path.resolve() / "policy.toml"))
    assert policy.refusal(job("true")) != ""
    assert "policy" in policy.told()


@pytest.mark.skipif(os.geteuid() == 0, reason="root owns what it writes")
def test_a_file_of_another_user_refuses_everything(machine: Machine) -> None:
    assert "does not belong to root" in machine.refusal("true")
