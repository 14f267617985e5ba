"""What became of a directory that an execution was given: the changes, brought back into it with care.

A person may have gone on working there. Only what the execution changed is touched, and of that only what is still as
it was uploaded: a file that is not is a conflict, which is named and left alone.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from app.cli import transfer
from app.cli.client import Client, api
from app.errors import Conflict, InvalidInput, NotAllowed
from app.files.changes import Changes, difference
from app.files.documents import Entry
from app.files.manifest import EMPTY, Manifest
from app.files.names import BadTree
from app.files.places import reading
from app.files.tree import OpenBlob, apply, build


@dataclass(frozen=True, slots=True)
class Brought:
    """How many files were put and removed, and which were left alone, for somebody changed them meanwhile."""

    put: int
    gone: int
    conflicts: tuple[str, ...]


def now_of(client: Client, execution: str) -> tuple[str, Manifest]:
    """The snapshot of an execution's files as they are now: its digest and what it holds."""
    digest = str(client.get(api("workflow-executions", execution, "workspace"), limit=1)["snapshot"])
    return digest, snapshot(client, execution, digest)


def snapshot(client: Client, execution: str, digest: str) -> Manifest:
    """One of its snapshots; "" is one without files."""
    if not digest:
        return EMPTY
    body = client.call("GET", api("snapshots", digest), query={"execution": execution}).body
    found = Manifest.read(body, transfer.UNBOUNDED)
    if found.digest != digest:
        raise BadTree(f"the server sent another snapshot than {digest}")
    return found


def bring_back(client: Client, execution: str, directory: str, uploaded: Manifest) -> Brought:
    """Do in the directory what the execution did to `uploaded`. Raises NotAllowed where the disk refuses."""
    digest, now = now_of(client, execution)
    if not digest:
        return Brought(0, 0, ())
    wanted, conflicts = _free(directory, uploaded, difference(uploaded, now))
    if not wanted.is_empty:
        _with_blobs(
            client,
            execution,
            digest,
            wanted,
            Path(directory),
            lambda opened: apply(directory, wanted, opened),
        )
    return Brought(len(wanted.put), len(wanted.gone), conflicts)


def take_out(client: Client, execution: str, directory: str) -> Manifest:
    """Make a new directory with an execution's files as they are now; what it holds.

    Raises Conflict where there is something already, NotAllowed where the disk refuses.
    """
    target = Path(os.path.abspath(directory))
    if target.is_symlink() or (target.exists() and (not target.is_dir() or any(target.iterdir()))):
        raise Conflict(f"{directory} is there already", hint="name a directory that is not", code="not-empty")
    digest, now = now_of(client, execution)
    everything = Changes(now.files, made=now.directories)
    _with_blobs(
        client, execution, digest, everything, target.parent, lambda opened: build(target, now, opened)
    )
    return now


def _with_blobs(
    client: Client,
    execution: str,
    digest: str,
    changes: Changes,
    beside: Path,
    do: Callable[[OpenBlob], object],
) -> None:
    """Calls `do` with what opens the blobs of the changes, which are here for so long."""
    place = {"snapshot": digest, "execution": execution}
    try:
        with transfer.Held() as held:
            transfer.fetch(client, transfer.sizes_of(changes.put.values()), place, held)
            do(held.open)
    except OSError as error:
        raise NotAllowed(
            f"{error.filename or beside}: {error.strerror}",
            hint="give a directory in which this user may write, on a disk with room",
            code="cannot-write",
        ) from None


def _free(directory: str, uploaded: Manifest, changes: Changes) -> tuple[Changes, tuple[str, ...]]:
    """What of the changes may be done, and the paths where something else has been done here meanwhile."""
    put: dict[str, Entry] = {}
    gone: list[str] = []
    conflicts: list[str] = []
    try:
        with reading(directory) as opened:
            for path, entry in changes.put.items():
                here = _here(opened, path)
                if here != entry:
                    (
                        conflicts.append(path)
                        if here != uploaded.files.get(path)
                        else put.update({path: entry})
                    )
            for path in changes.gone:
                here = _here(opened, path)
                if here is not None:
                    (conflicts if here != uploaded.files[path] else gone).append(path)
    except OSError as error:
        raise InvalidInput(
            f"{error.filename or directory}: {error.strerror}", hint="is the directory still there?"
        ) from None
    return replace(changes, put=put, gone=tuple(gone)), tuple(sorted(conflicts))


_SOMETHING = Entry(-1, -1, "")
"""What is no file: no entry is equal to it."""


def _here(opened: Callable[[str], int], path: str) -> Entry | None:
    """The file as it is now; None where there is none."""
    try:
        descriptor = opened(path)
    except FileNotFoundError:
        return None
    except BadTree:
        return _SOMETHING
    with os.fdopen(descriptor, "rb") as file:
        told = os.fstat(descriptor)
        return Entry(told.st_mode & 0o777, told.st_size, hashlib.file_digest(file, "sha256").hexdigest())
