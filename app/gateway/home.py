"""Where the gateway keeps what a node of its own would: DATA_DIR/ssh/NODE with keys, identity, journal and spool.

A row without keys is a machine of which nothing is known: then the directory is begun anew. A row with other keys
than those here is another gateway's, or the directory was lost; nothing is done for it before a person has a say.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from app.errors import Conflict, MusterError
from app.node.identity import KEY_FILE, write_identity
from app.services import ssh_nodes
from app.services.control import Control
from app.services.installation import Installed
from app.services.ssh_nodes import SshNode
from app.transport.keys import KeyPair

DIRECTORY = "ssh"
_FRESH = ".new"
"""No node's name has a dot."""


class Home:
    """The directories of all SSH nodes of one gateway."""

    def __init__(self, control: Control, installed: Installed) -> None:
        self._control = control
        self._installed = installed
        self._root = Path(control.settings.data_dir).absolute() / DIRECTORY

    def prepare(self, node: SshNode) -> Path:
        """The directory of a node, with its keys, which the row has too. Raises Conflict for another's."""
        directory, fresh = self._root / node.name, self._root / f"{node.name}{_FRESH}"
        if not node.sign_kid:
            self._take(node.name, fresh)
            self._put(fresh, directory)
        elif self._kid(directory) != node.sign_kid:
            # A gateway that was killed between the two steps above has left this.
            if self._kid(fresh) != node.sign_kid:
                raise _others(node.name)
            self._put(fresh, directory)
        write_identity(directory, node.name, self._installed.id, [self._installed.public])
        return directory

    def forget(self, node: str) -> None:
        """Removes all that is kept of a node."""
        shutil.rmtree(self._root / node, ignore_errors=True)
        shutil.rmtree(self._root / f"{node}{_FRESH}", ignore_errors=True)

    def _take(self, node: str, fresh: Path) -> None:
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700, parents=True)
        keys = KeyPair.generate()
        keys.save(fresh / KEY_FILE)
        if not ssh_nodes.take(self._control, node, keys.public()):
            shutil.rmtree(fresh, ignore_errors=True)
            raise _others(node)

    def _put(self, fresh: Path, directory: Path) -> None:
        shutil.rmtree(directory, ignore_errors=True)
        fresh.rename(directory)

    def _kid(self, directory: Path) -> str:
        try:
            return KeyPair.load(directory / KEY_FILE).kid
        except MusterError:
            return ""


def _others(node: str) -> Conflict:
    return Conflict(
        f"another gateway has the keys of {node}, or those of this one were lost",
        hint=f"stop the other gateway, or remove the node and add it again: `muster node remove {node} --force`",
        code="other-gateway",
    )
