"""Directories that one command at a time works in, private: the data directory of `muster up`, a node's own."""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path

from app.cli import private
from app.cli.connection import CLIENT_FILE, read_client_file
from app.errors import Conflict, InvalidInput, NotAllowed

_LOG_LIMIT = 20 << 20
_LOG_KEPT = 4 << 20
_SOCKETS_PREFIX = "muster-up-"

NODE_FILE = "node.env"
TEMPORARY = "tmp"
"""For what the control side would leave under the system's temporary directory."""


class Held:
    """A private directory, held by one command, with the logs of its processes. `take` first; the lock goes with
    the process. `nodes` is where runners are: a node's directory, or one with a directory for each node."""

    command = ""
    option = ""
    lock = ""

    def __init__(self, root: Path, nodes: Path) -> None:
        self.root = root.absolute()
        self.logs = self.root / "logs"
        self.nodes = nodes.absolute()
        self._lock: int | None = None

    def take(self) -> None:
        """Makes the directory, private to this user, and locks it.

        Raises Conflict if the command runs there already, NotAllowed if it belongs to somebody else.
        """
        another = f"give another {self.option}"
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise InvalidInput(f"{self.root} is not a directory", hint=another) from None
        except OSError as error:
            raise NotAllowed(f"{self.root}: {error.strerror}", hint=another) from None
        if self.root.stat().st_uid != os.geteuid():
            raise NotAllowed(f"{self.root} belongs to another user", hint="give a directory of your own")
        self.root.chmod(0o700)
        lock = os.open(self.root / self.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(lock, 32).decode("ascii", "replace").strip() or "unknown"
            os.close(lock)
            raise Conflict(
                f"another `{self.command}` (pid {holder}) runs in {self.root}",
                hint=f"stop it with Ctrl-C there, or {another}",
                code="already-up",
            ) from None
        os.ftruncate(lock, 0)
        os.write(lock, f"{os.getpid()}\n".encode())
        self._lock = lock
        self.logs.mkdir(mode=0o700, exist_ok=True)

    def release(self) -> None:
        """Lets another in."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def trim_logs(self) -> None:
        """Keeps the tail of a log that has grown too long; its writers append, so they go on after it."""
        for path in self.logs.glob("*.log"):
            if path.stat().st_size > _LOG_LIMIT:
                with path.open("r+b") as file:
                    file.seek(-_LOG_KEPT, os.SEEK_END)
                    tail = file.read()
                    file.truncate(0)
                path.with_suffix(".log.old").write_bytes(tail)

    def tail(self, name: str, lines: int = 15) -> str:
        """The last lines of a process's log."""
        try:
            with self.log(name).open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - 8192))
                text = file.read().decode("utf-8", "replace")
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-lines:])


class Home(Held):
    """The data directory of `muster up`."""

    command = "muster up"
    option = "--data"
    lock = "up.lock"

    def __init__(self, root: Path) -> None:
        super().__init__(root, root / "nodes")
        self.redis = self.root / "redis"
        self.temporary = self.root / TEMPORARY

    def take(self) -> None:
        """Also makes what is in it."""
        super().take()
        for directory in (self.nodes, self.redis, self.temporary):
            directory.mkdir(mode=0o700, exist_ok=True)

    def socket_directory(self) -> Path:
        """A private directory with a short path, the same one at every start unless somebody else has taken it.

        The broker's URL is then the same too, under which workers file what they hold.
        """
        runtime = os.environ.get("XDG_RUNTIME_DIR", "")
        usable = os.path.isabs(runtime) and os.access(runtime, os.W_OK) and len(runtime) < 60
        parent = Path(runtime if usable else "/tmp")
        directory = parent / f"{_SOCKETS_PREFIX}{hashlib.sha256(os.fsencode(self.root)).hexdigest()[:12]}"
        try:
            directory.mkdir(mode=0o700)
        except FileExistsError:
            found = directory.lstat()
            ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
            if not ours or stat.S_IMODE(found.st_mode) != 0o700:
                return Path(tempfile.mkdtemp(prefix=_SOCKETS_PREFIX, dir=parent))
        return directory

    def write_client_file(self, url: str, token: str) -> None:
        """What clients need, for `set -a; . client.env`; readable by this user alone."""
        private.write(self.root / CLIENT_FILE, private.client_file(url, token))

    def write_node_file(self, given: Mapping[str, str]) -> None:
        """What a node on this machine needs to find the broker and the API; readable by this user alone."""
        text = "".join(f"{name}={value}\n" for name, value in given.items())
        private.write(self.root / NODE_FILE, text)

    def known_token(self) -> str:
        """The token of an earlier `up`, "" if there is none."""
        return read_client_file(self.root / CLIENT_FILE)[1]

    def node(self, name: str) -> Path:
        """The directory of a node of this machine."""
        return self.nodes / name


class NodeHome(Held):
    """The directory of a node that `muster node start` runs: that of its worker, with logs beside."""

    command = "muster node start"
    option = "--dir"
    lock = "start.lock"

    def __init__(self, root: Path) -> None:
        super().__init__(root, root)
