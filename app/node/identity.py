"""Who this node is: its name, its keys, the installation that it belongs to and the control keys that it obeys."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.errors import InvalidInput, NotFound
from app.transport.keys import KeyPair, Public

IDENTITY_FILE = "identity.json"
KEY_FILE = "node.keys"


@dataclass(frozen=True, slots=True)
class Identity:
    """`control` are the keys that may sign orders: two while they are rotated."""

    node: str
    installation: str
    keys: KeyPair
    control: tuple[Public, ...]


def write_identity(
    directory: str | Path, node: str, installation: str, control_keys: Sequence[Mapping[str, Any]]
) -> None:
    """Keeps what enrolment answered, beside the key file; replaces what was there, whole or not at all."""
    path = Path(directory) / IDENTITY_FILE
    text = json.dumps(
        {"node": node, "installation": installation, "control_keys": list(control_keys)}, indent=2
    )
    partial = path.with_name(f".{IDENTITY_FILE}.{os.getpid()}")
    handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def load_identity(directory: str | Path) -> Identity:
    """Raises NotFound before enrolment, InvalidInput for a file that is not one of ours."""
    path = Path(directory) / IDENTITY_FILE
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        control = tuple(Public.from_json(keys) for keys in data["control_keys"])
        node, installation = str(data["node"]), str(data["installation"])
    except FileNotFoundError:
        raise NotFound(
            f"{directory} holds no node",
            hint="enrol this machine: `muster node enroll NAME --token … --url …`",
            code="not-enrolled",
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidInput(f"{path} cannot be read: {error}", hint="enrol this machine again") from None
    return Identity(node, installation, KeyPair.load(Path(directory) / KEY_FILE), control)
