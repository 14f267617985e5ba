"""The keys that secrets are encrypted with in the database: a list, the first one for what is written now.

They are in MUSTER_SECRET_KEYS, or one a line in a file that its owner alone may read. Whoever has none can do
everything but use secrets.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import os
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from app.errors import Conflict, Unavailable
from app.settings import Settings


@dataclass(frozen=True, slots=True)
class Sealed:
    """A ciphertext, and which key it takes to read it."""

    ciphertext: str
    key_id: str


class Keys:
    """A list of Fernet keys, newest first. Raises Unavailable for a list that is none."""

    def __init__(self, texts: list[str], where: str) -> None:
        try:
            fernets = [Fernet(text) for text in texts]
        except ValueError:
            raise Unavailable(
                f"{where} does not hold keys for secrets",
                hint="restore it from a backup: what was encrypted with other keys cannot be read",
                code="bad-secret-keys",
            ) from None
        self.texts = texts
        self.ids = [hashlib.sha256(text.encode()).hexdigest()[:16] for text in texts]
        self._fernets = fernets

    def seal(self, about: str, value: str) -> Sealed:
        """Encrypt a value. What it is about is encrypted with it, so that no row stands for another."""
        plain = json.dumps([about, value]).encode()
        return Sealed(self._fernets[0].encrypt(plain).decode(), self.ids[0])

    def open(self, about: str, ciphertext: str) -> str | None:
        """The value that was sealed under `about`; None for anything else."""
        try:
            found = json.loads(MultiFernet(self._fernets).decrypt(ciphertext.encode()))
        except (InvalidToken, ValueError):
            return None
        return str(found[1]) if isinstance(found, list) and found[0] == about else None

    def digests(self, text: str) -> list[str]:
        """HMAC-SHA256 of a text by each key: what is short cannot be guessed from it."""
        return [hmac.digest(key.encode(), text.encode(), "sha256").hex() for key in self.texts]


class Keyring:
    """The keys of the settings, read when they are asked for, and again when the file changes. For any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: object = None
        self._keys: Keys | None = None

    def current(self, settings: Settings) -> Keys:
        """Raises Unavailable where there are none."""
        found = self.find(settings)
        if found is None:
            raise Unavailable(
                f"there are no keys for secrets: {settings.secret_keys_path} is not there",
                hint="`muster setup` makes it; every control machine and the API need the same file",
                code="no-secret-keys",
            )
        return found

    def find(self, settings: Settings) -> Keys | None:
        """None where there are none. Raises Unavailable for what cannot be read."""
        if settings.secret_keys:
            seen: object = settings.secret_keys
        else:
            try:
                status = os.stat(settings.secret_keys_path)
            except FileNotFoundError:
                return None
            except OSError as error:
                raise _unreadable(settings.secret_keys_path, error) from None
            seen = (status.st_ino, status.st_mtime_ns, status.st_size)
        with self._lock:
            if seen != self._seen or self._keys is None:
                self._keys = read(settings)
                self._seen = seen
            return self._keys


def read(settings: Settings) -> Keys:
    """The keys as they are now. Raises Unavailable."""
    if settings.secret_keys:
        return Keys(_words(settings.secret_keys.replace(",", "\n")), "MUSTER_SECRET_KEYS")
    path = settings.secret_keys_path
    try:
        if os.stat(path).st_mode & 0o077:
            raise Unavailable(
                f"{path} can be read by others than its owner", hint=f"chmod 600 {path}", code="keys-exposed"
            )
        return Keys(_words(path.read_text("ascii")), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from None


def _words(text: str) -> list[str]:
    words = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    # Without a single key there is nothing to encrypt with: refused like one that is no key.
    return words or [""]


def _unreadable(path: Path, error: Exception) -> Unavailable:
    why = error.strerror if isinstance(error, OSError) else "it is no text"
    return Unavailable(
        f"{path} cannot be read: {why}",
        hint="let the user of the API and of control own it, mode 0600",
        code="bad-secret-keys",
    )


def make(path: Path) -> None:
    """A file with a first key, mode 0600, unless there is one."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = _written(path, [Fernet.generate_key().decode()])
    try:
        os.link(partial, path)
    except FileExistsError:
        pass  # another process was first: its key is the one
    finally:
        partial.unlink()
    _sync(path.parent)


def add(path: Path) -> Keys:
    """A new first key in the file, in place of it at once. Raises Unavailable, Conflict where it cannot be written.

    Of several who do so at once each finds the key of the one before: a key that is in no file any more would take with
    it whatever was encrypted meanwhile.
    """
    try:
        with _alone(path.parent):
            texts = [Fernet.generate_key().decode(), *_words(path.read_text("ascii"))]
            _written(path, texts).replace(path)
            _sync(path.parent)
    except OSError as error:
        raise Conflict(f"{path} cannot be changed: {error.strerror}", code="bad-secret-keys") from None
    return Keys(texts, str(path))


def _written(path: Path, texts: list[str]) -> Path:
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write("\n".join(texts) + "\n")
        file.flush()
        os.fsync(file.fileno())
    return partial


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    handle = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
