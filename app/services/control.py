"""What every service is handed: settings, the store, how to nudge the control workers, and the clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from app.services.allowlist import AllowlistFile
from app.services.blob_store import BlobStore
from app.services.keyring import Keyring
from app.services.roster import Roster
from app.services.scoped import ScopedPeople
from app.services.spans import Tell, nobody
from app.services.tally import Tally
from app.settings import Settings
from app.store.db import Store


class Nudge(Protocol):
    """Asks the control workers to settle executions. Best effort: the tick finds what a lost nudge leaves."""

    def __call__(self, executions: Iterable[str]) -> None: ...


class Look(Protocol):
    """Asks the gateway to look at the rows of SSH nodes. Best effort: it looks every few seconds anyway."""

    def __call__(self, nodes: Iterable[str]) -> None: ...


def no_look(nodes: Iterable[str]) -> None:
    """For offline verbs and tests."""


def no_nudge(executions: Iterable[str]) -> None:
    """For offline verbs and tests: the tick will find the work."""


@dataclass(frozen=True, slots=True)
class Control:
    """The control side as a process sees it. It cannot sign: only control workers do (`services.orders.Signer`)."""

    settings: Settings
    store: Store
    nudge: Nudge = no_nudge
    look: Look = field(default=no_look, kw_only=True)
    clock: Callable[[], float] = field(default=time.time)
    roster: Roster = field(default_factory=Roster)
    scoped: ScopedPeople = field(default_factory=ScopedPeople)
    allowlist: AllowlistFile = field(default_factory=AllowlistFile)
    keyring: Keyring = field(default_factory=Keyring)
    tally: Tally = field(default_factory=Tally)
    spans: Tell = field(default=nobody)
    blobs: BlobStore = field(default_factory=BlobStore)
