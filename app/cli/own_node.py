"""A node's side of enrolment: its keys, and the identity that its worker reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from app.cli import private
from app.errors import InvalidInput, NotFound
from app.node import identity
from app.transport.keys import KeyPair

_LONGEST_FILE = 4096


@dataclass(frozen=True, slots=True)
class OneTimeToken:
    """What makes a machine the node: the token, and the fingerprint of the control keys that it is to pin."""

    node: str
    token: str = field(repr=False)
    control: str


def write_token(path: Path, token: OneTimeToken, expires_at: str) -> None:
    """A file for `read_token`, of the form that `muster node token NAME --json` prints."""
    private.write(path, json.dumps({**asdict(token), "expires_at": expires_at}, indent=2) + "\n")


def read_token(path: Path, node: str) -> OneTimeToken:
    """The token in a file. Raises NotFound, and InvalidInput for a file that has none for this node."""
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(_LONGEST_FILE))
        token = OneTimeToken(*(str(found[name]) for name in ("node", "token", "control")))
    except OSError as error:
        raise NotFound(
            f"{path}: {error.strerror}",
            hint=f"`muster node token {node} --json` on the control side prints what belongs there",
            code="no-token-file",
        ) from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InvalidInput(
            f"{path} holds no enrolment token",
            hint="put what `muster node token NAME --json` or `muster setup` gave there, as it is",
            code="bad-token-file",
        ) from None
    if token.node != node:
        raise InvalidInput(
            f"{path} holds a token for node {token.node[:80]}, not for {node}",
            hint="give that name, or the other file",
            code="bad-token-file",
        )
    return token


def is_enrolled(directory: Path, node: str) -> bool:
    """Whether the directory has keys and identity of this node. Raises InvalidInput for another node's."""
    try:
        known = identity.load_identity(directory)
    except NotFound:
        return False
    if known.node != node:
        raise InvalidInput(
            f"{directory} belongs to node {known.node}, not to {node}",
            hint="give another --dir, or the other name",
            code="other-node",
        )
    return True


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
