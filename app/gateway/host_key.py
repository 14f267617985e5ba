"""The host key that a machine shows to the program `ssh`, by way of whatever hosts its configuration names."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from app.services.ssh_address import Address
from app.ssh.failures import Unreachable

WITHIN = 10.0
"""Seconds in which a machine must have shown its key."""


def by_openssh(address: Address, config: str) -> str:
    """Kind and base64, with the ssh_config at `config` or with none. Nobody logs in for that. Raises `Unreachable`."""
    with tempfile.TemporaryDirectory(prefix="muster-") as directory:
        known = Path(directory) / "known_hosts"
        options = {
            "BatchMode": "yes",
            "ControlMaster": "no",
            "ControlPath": "none",
            "ConnectTimeout": f"{WITHIN:g}",
            "GlobalKnownHostsFile": "/dev/null",
            "HashKnownHosts": "no",
            "HostKeyAlias": "it",
            "PreferredAuthentications": "none",
            "PubkeyAuthentication": "no",
            "StrictHostKeyChecking": "accept-new",
            "UpdateHostKeys": "no",
            "UserKnownHostsFile": str(known),
        }
        words = ["ssh", "-T", "-F", config or "none"]
        words += [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        words += ["-p", str(address.port), "-l", address.user, "--", address.host, "exit"]
        try:
            done = subprocess.run(
                words,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                timeout=2 * WITHIN,
            )
        except FileNotFoundError:
            raise _unseen(address, "there is no program `ssh` here") from None
        except subprocess.TimeoutExpired:
            raise _unseen(address, f"it did not answer within {2 * WITHIN:g} s") from None
        lines = known.read_text().splitlines() if known.exists() else []
    for line in lines:
        parts = line.split()
        if len(parts) >= 3 and parts[0] in ("it", f"[it]:{address.port}"):
            return " ".join(parts[1:3])
    raise _unseen(address, done.stderr.strip()[-300:] or "it showed none")


def _unseen(address: Address, why: str) -> Unreachable:
    return Unreachable(f"{address.place} shows no host key: {why}")
