"""A node's side of enrolment: its keys, and the identity that its worker reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.errors import NotFound
from app.node import identity
from app.transport.keys import KeyPair


def keys(directory: Path) -> KeyPair:
    """The key pair of the node's directory, made with the directory where there is none. Both are private."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.chmod(0o700)
    path = directory / identity.KEY_FILE
    try:
        return KeyPair.load(path)
    except NotFound:
        pair = KeyPair.generate()
        pair.save(path)
        return pair


def write(directory: Path, node: str, installation: str, control: Mapping[str, Any]) -> None:
    """Writes what the worker pins: its name, the installation, the control keys."""
    identity.write_identity(directory, node, installation, [dict(control)])
