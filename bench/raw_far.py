"""The peers where machines have only an SSH server: `ssh` over masters, plain asyncssh, and ansible."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench.far import SAID, SCRIPT
from bench.processes import Broken, Skipped
from bench.served import ANSWER_WITHIN, timed
from tests.sshd import Sshd

KEPT = 600
"""Seconds for which a connection that nobody uses stays open."""

_CONFIGURATION = """\
[defaults]
host_key_checking = False
interpreter_python = {python}
local_tmp = {directory}/tmp
[ssh_connection]
pipelining = True
control_path_dir = {directory}/masters
ssh_args = -C -o ControlMaster=auto -o ControlPersist={kept}s -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR
"""


def ansible() -> str:
    """The program, from the PATH or where the peers' set-up puts it. Raises Skipped."""
    home = os.environ.get("BENCH_HOME", "/tmp/bench")
    found = shutil.which("ansible") or shutil.which("ansible", path=f"{home}/v-ssh/bin")
    if found is None:
        raise Skipped("no ansible on the PATH or in $BENCH_HOME/v-ssh")
    return found


class Masters:
    """The options of `ssh` for an sshd of ours; `directory` holds a socket for each host that was connected to."""

    def __init__(self, directory: Path, sshd: Sshd) -> None:
        directory.mkdir(mode=0o700)
        self._directory = directory
        known = f"UserKnownHostsFile={sshd.known_hosts()}"
        self.options = ["-p", str(sshd.port), "-i", str(sshd.key_file), "-l", sshd.user, "-F", "none"]
        for option in ("BatchMode=yes", "IdentitiesOnly=yes", "LogLevel=ERROR", known):
            self.options += ["-o", option]
        for option in ("ControlMaster=auto", f"ControlPersist={KEPT}", f"ControlPath={directory}/%h"):
            self.options += ["-o", option]

    def close(self) -> None:
        end_masters(self._directory)


class RawFar:
    """Runs SCRIPT on every address of `sshd`. `close` ends the connections that were kept."""

    def __init__(self, directory: Path, sshd: Sshd) -> None:
        self._sshd = sshd
        self._directory = directory / "raw"
        self._directory.mkdir(mode=0o700)
        self._masters = Masters(self._directory / "masters", sshd)
        self._ran = 0

    def warm(self) -> float:
        """Seconds for an `ssh` for each address, all at once, over connections that are open."""
        began = time.perf_counter()
        running = [
            subprocess.Popen(
                ["ssh", *self._masters.options, address, SCRIPT],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                text=True,
            )
            for address in self._sshd.addresses
        ]
        said = "".join(one.communicate(timeout=ANSWER_WITHIN)[0] for one in running)
        took = time.perf_counter() - began
        if codes := [one.returncode for one in running if one.returncode]:
            raise Broken(f"{len(codes)} of {len(running)} ssh failed, with {codes}")
        self._count(said)
        return took

    def cold(self) -> float:
        """Seconds for a fresh process that connects to all, runs the script and prints."""
        return self._timed(
            [
                *(sys.executable, "-m", "bench.raw_asyncssh"),
                *(str(self._sshd.key_file), str(self._sshd.port), SCRIPT),
                *self._sshd.addresses,
            ],
            {},
        )

    def command(self) -> float:
        """Seconds for `ansible all -m shell` on all at once, over connections that are open."""
        directory = self._directory / "ansible"
        if not directory.exists():
            self._configure(directory)
        given = {"ANSIBLE_CONFIG": f"{directory}/ansible.cfg", "ANSIBLE_HOME": f"{directory}/home"}
        words = [ansible(), "all", "-i", f"{directory}/hosts", "-f", str(len(self._sshd.addresses))]
        return self._timed([*words, "-m", "shell", "-a", SCRIPT], {**given, "HOME": str(directory)})

    def ran(self) -> int:
        """How many machines have answered since this was asked before."""
        ran, self._ran = self._ran, 0
        return ran

    def close(self) -> None:
        self._masters.close()
        end_masters(self._directory / "ansible" / "masters")

    def _configure(self, directory: Path) -> None:
        directory.mkdir(mode=0o700)
        python = shutil.which("python3", path="/usr/bin:/bin") or sys.executable
        text = _CONFIGURATION.format(python=python, directory=directory, kept=KEPT)
        (directory / "ansible.cfg").write_text(text)
        sshd = self._sshd
        lines = (
            f"h{number} ansible_host={address} ansible_port={sshd.port} ansible_user={sshd.user}"
            f" ansible_ssh_private_key_file={sshd.key_file}\n"
            for number, address in enumerate(sshd.addresses)
        )
        (directory / "hosts").write_text(f"[all]\n{''.join(lines)}")

    def _timed(self, command: Sequence[str], environment: dict[str, str]) -> float:
        took, said = timed(list(command), environment)
        self._count(said)
        return took

    def _count(self, said: str) -> None:
        if (answers := said.count(SAID)) != len(self._sshd.addresses):
            raise Broken(f"{answers} of {len(self._sshd.addresses)} machines answered: {said[-500:]}")
        self._ran += answers


def end_masters(directory: Path) -> None:
    """Ends the connections whose sockets are here."""
    for socket in directory.glob("*"):
        command = ["ssh", "-F", "none", "-o", f"ControlPath={socket}", "-O", "exit", "any"]
        subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=ANSWER_WITHIN)
