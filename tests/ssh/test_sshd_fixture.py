"""The server that the other tests rely on is a real one, and goes when it is told to."""

from __future__ import annotations

import subprocess
from pathlib import Path

from sshd import Sshd


def _ssh(server: Sshd, address: str, command: str) -> subprocess.CompletedProcess[str]:
    options = {
        "UserKnownHostsFile": server.known_hosts(),
        "StrictHostKeyChecking": "yes",
        "IdentityFile": server.key_file,
        "IdentitiesOnly": "yes",
        "BatchMode": "yes",
    }
    words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    return subprocess.run(
        ["ssh", "-F", "none", *words, "-p", str(server.port), f"{server.user}@{address}", command],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def test_it_serves_every_address_and_stops(sshd_program: str, tmp_path: Path) -> None:
    with Sshd(tmp_path, addresses=[f"127.0.0.{number}" for number in range(2, 19)]) as server:
        for address in ("127.0.0.2", "127.0.0.18"):
            done = _ssh(server, address, 'echo "$XDG_STATE_HOME"')
            assert (done.stdout, done.returncode) == (f"{server.state}\n", 0), done.stderr
        server.stop()
        assert _ssh(server, "127.0.0.2", "true").returncode == 255
        server.start()
        assert _ssh(server, "127.0.0.2", "true").returncode == 0
    assert server.sessions() == []
