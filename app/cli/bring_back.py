"""What became of a directory that an execution was given: the changes, brought back into it with care.

A person may have gone on working there. Only what the execution changed is touched, and of that only what is still as
it was uploaded: a file that is not is a conflict, which is named and left alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from app.cli import transfer
from app.cli.client import Client, api
from app.errors import Conflict, InvalidInput, NotAllowed
from app.files.applying import Applied, apply, free
from app.files.changes import difference
from app.files.documents import Entry
from app.files.manifest import EMPTY, Manifest
from app.files.names import BadTree
from app.files.tree import OpenBlob, build

T = TypeVar("T")


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


def bring_back(client: Client, execution: str, directory: str, uploaded: Manifest) -> Applied:
    """Do in the directory what the execution did to `uploaded`; what was done, and what was left alone.

    Raises InvalidInput where the directory cannot be read, NotAllowed where the disk refuses.
    """
    digest, now = now_of(client, execution)
    changes = difference(uploaded, now)
    if not digest or changes.is_empty:
        return Applied()
    try:
        wanted = free(directory, uploaded, changes)
    except OSError as error:
        raise InvalidInput(
            f"{error.filename or directory}: {error.strerror}", hint="is the directory still there?"
        ) from None
    return _with_blobs(
        client,
        {"snapshot": digest, "execution": execution},
        wanted,
        Path(directory),
        lambda opened: apply(directory, uploaded, changes, wanted, opened),
    )


def take_out(client: Client, execution: str, directory: str) -> Manifest:
    """Make a new directory with an execution's files as they are now; what it holds.

    Raises Conflict where there is something already, NotAllowed where the disk refuses.
    """
    target = Path(os.path.abspath(directory))
    if target.is_symlink() or (target.exists() and (not target.is_dir() or any(target.iterdir()))):
        raise Conflict(f"{directory} is there already", hint="name a directory that is not", code="not-empty")
    digest, now = now_of(client, execution)
    _with_blobs(
        client,
        {"snapshot": digest, "execution": execution},
        now.files,
        target.parent,
        lambda opened: build(target, now, opened, among_others=True),
    )
    return now


def _with_blobs(
    client: Client,
    place: transfer.Place,
    files: Mapping[str, Entry],
    beside: Path,
    do: Callable[[OpenBlob], T],
) -> T:
    """What `do` gives, called with what opens the blobs of the files, which are here for so long."""
    try:
        with transfer.Held() as held:
            transfer.fetch(client, transfer.sizes_of(files.values()), place, held)
            return do(held.open)
    except OSError as error:
        raise NotAllowed(
            f"{error.filename or beside}: {error.strerror}",
            hint="give a directory in which this user may write, on a disk with room",
            code="cannot-write",
        ) from None
