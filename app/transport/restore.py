"""A worker's name is held by one process, and what that process had not acknowledged comes back when it
starts again.

On Redis a message that was handed to a worker and not acknowledged lies in a hash, and is handed out again
when the visibility timeout is over: days, where scripts may run for hours. Every worker has a hash of its own
(`own_keys`), so whoever holds the name may push all of it back at once. Two processes under one name would
push back what the other is working on; `hold_name` makes sure there is one, on this machine. RabbitMQ does
all this by itself. A node has no such hash: its journal answers for what it took, and what it lost before that is
sent again by control.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import tempfile
from pathlib import Path
from typing import IO, Any

from kombu.utils.json import loads

from app.errors import Conflict, NotAllowed
from app.transport.channel import Channel, bury

logger = logging.getLogger(__name__)


def own_keys(name: str) -> dict[str, str]:
    """The transport options that give the worker `name` unacked keys of its own."""
    return {
        "unacked_key": f"unacked:{name}",
        "unacked_index_key": f"unacked_index:{name}",
        "unacked_mutex_key": f"unacked_mutex:{name}",
    }


def hold_name(name: str, broker_url: str, directory: Path | None = None) -> IO[str]:
    """Takes the name for this process, until it ends or the returned file is closed.

    The lock file lies in `directory`, by default a private one of this user under the system's temporary
    directory. Raises Conflict if a living process holds the name, NotAllowed if the directory is not ours.
    """
    if directory is None:
        directory = Path(tempfile.gettempdir()) / f"muster-{os.getuid()}"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = directory.lstat()
    if found.st_uid != os.getuid() or found.st_mode & 0o022 or directory.is_symlink():
        raise NotAllowed(f"{directory} is not a directory of ours alone", hint="remove it, or set another")
    # One name may be in use on two brokers: two installations on one machine.
    installation = hashlib.sha256(broker_url.encode()).hexdigest()[:12]
    path = directory / f"{name}-{installation}.lock"
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600), "r+", encoding="ascii")
    try:
        # lockf, not flock: a record lock is not inherited by forked pool processes that outlive their parent.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = file.read().strip() or "unknown"
        file.close()
        raise Conflict(
            f"a worker named {name!r} is running already (process {holder})",
            hint="stop it, or give this one another name",
            code="name-held",
        ) from None
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file


def restore_own(channel: Any) -> int:
    """Pushes what the worker of this channel had not acknowledged back to where it came from; returns how
    many.

    In order: what was taken first is handed out first. To be called before anything is consumed, by the
    process that holds the name. What cannot be read goes to the dead.
    """
    if not isinstance(channel, Channel) or not channel.ack_emulation:
        return 0
    with channel.conn_or_acquire() as client:
        by_age = channel.qos.tags(client)
        # Each is pushed to the end that is read next, so the oldest goes last.
        for tag in reversed(by_age):
            _restore(channel, client, tag)
    if by_age:
        logger.info("%d messages that were not acknowledged are back in their queues", len(by_age))
    return len(by_age)


def _restore(channel: Any, client: Any, tag: str) -> None:
    item = client.hget(channel.unacked_key, tag)
    if item is not None and not _is_readable(item):
        bury(channel, channel.unacked_key, "not-an-envelope", item)
        client.hdel(channel.unacked_key, tag)
    channel.qos.restore_by_tag(tag, client=client)


def _is_readable(item: bytes) -> bool:
    try:
        message, _, queue = loads(item.decode())
        parts = (message["properties"], message["headers"])
        return all(isinstance(part, dict) for part in parts) and isinstance(queue, str)
    except (ValueError, TypeError, KeyError, RecursionError):
        return False
