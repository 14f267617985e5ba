"""The data directory of a fleet on one machine: private, and held by one `muster up` at a time."""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
import tempfile
from pathlib import Path

from app.cli import private
from app.cli.connection import CLIENT_FILE, read_client_file
from app.errors import Conflict, InvalidInput, NotAllowed

_LOG_LIMIT = 20 << 20
_LOG_KEPT = 4 << 20
_SOCKETS_PREFIX = "muster-up-"

TEMPORARY = "tmp"
"""For what the control side would leave under the system's temporary directory."""


class Home:
    """One data directory. `take` first; the lock goes with the process."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.logs = self.root / "logs"
        self.nodes = self.root / "nodes"
        self.redis = self.root / "redis"
        self.temporary = self.root / TEMPORARY
        self._lock: int | None = None

    def take(self) -> None:
        """Makes the directory, private to this user, and locks it.

        Raises Conflict if another `muster up` holds it, NotAllowed if it belongs to somebody else.
        """
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise InvalidInput(f"{self.root} is not a directory", hint="give another --data") from None
        except OSError as error:
            raise NotAllowed(f"{self.root}: {error.strerror}", hint="give another --data") from None
        if self.root.stat().st_uid != os.geteuid():
            raise NotAllowed(f"{self.root} belongs to another user", hint="give a directory of your own")
        self.root.chmod(0o700)
        lock = os.open(self.root / "up.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(lock, 32).decode("ascii", "replace").strip() or "unknown"
            os.close(lock)
            raise Conflict(
                f"another `muster up` (pid {holder}) runs in {self.root}",
                hint="stop it with Ctrl-C there, or give another --data",
                code="already-up",
            ) from None
        os.ftruncate(lock, 0)
        os.write(lock, f"{os.getpid()}\n".encode())
        self._lock = lock
        for directory in (self.logs, self.nodes, self.redis, self.temporary):
            directory.mkdir(mode=0o700, exist_ok=True)

    def release(self) -> None:
        """Lets another `up` in."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

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

    def known_token(self) -> str:
        """The token of an earlier `up`, "" if there is none."""
        return read_client_file(self.root / CLIENT_FILE)[1]

    def node(self, name: str) -> Path:
        """The directory of a node of this machine."""
        return self.nodes / name

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
