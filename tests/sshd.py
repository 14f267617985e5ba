"""A real sshd of the tests' own: on loopback addresses, with its own keys, configuration, and state directory.

    with Sshd(tmp_path, addresses=["127.0.0.2", "127.0.0.3"]) as sshd:
        sshd.user, sshd.address, sshd.port, sshd.private_key, sshd.host_key

Sessions get XDG_STATE_HOME below the directory, so that nothing is written into anybody's home.
"""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

PROGRAM = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin") or ""
_AT_ONCE = 15
"""Addresses of one daemon: sshd takes 16 listening sockets."""


class Sshd:
    """One server at `addresses`, all with the same port, which the kernel chose. `with` starts and stops it.

    `sftp` False leaves out the subsystem; `sessions` is how many a connection may have at once; `environment` is what
    every session has more.
    """

    def __init__(
        self,
        directory: Path,
        addresses: Sequence[str] = ("127.0.0.1",),
        *,
        sftp: bool = True,
        sessions: int = 200,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.directory = directory / "sshd"
        self.addresses = tuple(addresses)
        self.user = getpass.getuser()
        self.state = self.directory / "state"
        self.port = 0
        self._sftp = sftp
        self._sessions = sessions
        self._environment = dict(environment or {})
        self._daemons: list[subprocess.Popen[bytes]] = []
        self.directory.mkdir(parents=True, mode=0o700)
        self.state.mkdir(mode=0o700)
        for name in ("host", "user"):
            make_key(self.directory / name)
        shutil.copy(self.directory / "user.pub", self.directory / "authorized_keys")

    @property
    def address(self) -> str:
        return self.addresses[0]

    @property
    def key_file(self) -> Path:
        return self.directory / "user"

    @property
    def private_key(self) -> str:
        """The text of the key that may log in."""
        return self.key_file.read_text()

    @property
    def host_key(self) -> str:
        """`ssh-ed25519 AAAA…`, as known_hosts has it behind the name."""
        return " ".join((self.directory / "host.pub").read_text().split()[:2])

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text()

    def known_hosts(self) -> Path:
        """A file with the key of every address."""
        path = self.directory / "known_hosts"
        path.write_text("".join(f"[{one}]:{self.port} {self.host_key}\n" for one in self.addresses))
        return path

    def start(self) -> None:
        """Listens when it returns; the first time at a free port, later at the same one again."""
        if os.geteuid() == 0:
            os.makedirs("/run/sshd", exist_ok=True)
        for _ in range(1 if self.port else 10):
            port = self.port or _free_port(self.addresses)
            if self._start_at(port):
                self.port = port
                return
        raise AssertionError(f"sshd does not listen: {self.log}")

    def stop(self) -> None:
        """Ends the daemon and every session of it, as a machine that lost its power or network would."""
        sessions = self.sessions()
        for daemon in self._daemons:
            daemon.kill()
            daemon.wait()
        self._daemons.clear()
        _kill(sessions)

    def drop_sessions(self) -> None:
        """Kills what serves the connections there are; new ones are taken. The scripts are not touched."""
        _kill(self.sessions())

    def sessions(self) -> list[int]:
        """The processes that serve connections."""
        parents = {daemon.pid for daemon in self._daemons}
        return [pid for pid, parent in _parents().items() if parent in parents]

    def __enter__(self) -> Sshd:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _start_at(self, port: int) -> bool:
        for first in range(0, len(self.addresses), _AT_ONCE):
            addresses = self.addresses[first : first + _AT_ONCE]
            file = self.directory / f"config.{first}"
            file.write_text(self._config(addresses, port))
            command = [PROGRAM, "-D", "-f", str(file), "-E", str(self.directory / "log")]
            # A session of its own: Ctrl-C at the tests is not for it.
            self._daemons.append(subprocess.Popen(command, start_new_session=True))
        deadline = time.monotonic() + 60
        for address in self.addresses:
            while not _answers(address, port):
                if time.monotonic() > deadline or any(one.poll() is not None for one in self._daemons):
                    self.stop()
                    return False
                time.sleep(0.01)
        return True

    def _config(self, addresses: Sequence[str], port: int) -> str:
        # With SHLVL set bash does not take a session for one that should read ~/.bashrc.
        variables = {"SHLVL": "5", "XDG_STATE_HOME": str(self.state), **self._environment}
        set_env = " ".join(f'"{name}={value}"' for name, value in variables.items())
        lines = [
            *(f"ListenAddress {address}:{port}" for address in addresses),
            f"HostKey {self.directory / 'host'}",
            f"AuthorizedKeysFile {self.directory / 'authorized_keys'}",
            "PidFile none",
            "StrictModes no",
            "UsePAM no",
            "UseDNS no",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "PermitRootLogin prohibit-password",
            "MaxStartups 500:30:600",
            "PerSourceMaxStartups none",
            f"MaxSessions {self._sessions}",
            "PrintMotd no",
            f"SetEnv {set_env}",
            *(["Subsystem sftp internal-sftp"] if self._sftp else []),
        ]
        return "\n".join(lines) + "\n"


def make_key(path: Path) -> None:
    """An Ed25519 key without a passphrase in `path`, its public half in `path`.pub."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(path)], check=True)


def _free_port(addresses: Sequence[str]) -> int:
    """A port that is free at each of the addresses, for now."""
    for _ in range(50):
        with socket.socket() as first:
            first.bind((addresses[0], 0))
            port: int = first.getsockname()[1]
            if all(_is_free(address, port) for address in addresses[1:]):
                return port
    raise AssertionError("no port is free at all of the addresses")


def _is_free(address: str, port: int) -> bool:
    with socket.socket() as sock:
        try:
            sock.bind((address, port))
        except OSError:
            return False
        return True


def _answers(address: str, port: int) -> bool:
    try:
        with socket.create_connection((address, port), timeout=1) as sock:
            return sock.recv(4) == b"SSH-"
    except OSError:
        return False


def _parents() -> dict[int, int]:
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                stat = Path("/proc", name, "stat").read_text()
            except OSError:
                continue
            found[int(name)] = int(stat.rpartition(")")[2].split()[1])
    return found


def _kill(pids: Sequence[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
