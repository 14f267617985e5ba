"""Orders to nodes, signed and sealed. Only control workers hold the key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.ids import ulid
from app.services.installation import key_path
from app.settings import Settings
from app.transport.keys import KeyPair, Public
from app.transport.messages import Job, Order
from app.transport.passes import Pass, sign_pass
from app.transport.sealing import seal_order
from app.transport.workspace import Workspace

PASS_LIFETIME = 30 * 86400.0
"""Seconds that a job's files may be had at the longest: as long as a node knows of a job. The API ends it earlier."""


@dataclass(frozen=True, slots=True)
class Recipient:
    """A node as an order needs it: `epoch` is the one of its journal."""

    name: str
    epoch: str
    public: Public


@dataclass(frozen=True, slots=True)
class Signer:
    """Signs for one installation. `lifetime` is how long an order may be opened, in seconds.

    `files_url` is where nodes reach the API for the files of a job, `files_bytes` how much a job may put there.
    """

    keys: KeyPair
    installation: str
    lifetime: float
    files_url: str = ""
    files_bytes: int = 0

    @classmethod
    def load(cls, settings: Settings, installation: str) -> Signer:
        keys = KeyPair.load(Path(key_path(settings.data_dir)))
        files = (settings.files_url, settings.workspace_upload)
        return cls(keys, installation, settings.order_lifetime, *files)

    def run(
        self,
        jobs: Sequence[Job],
        secrets: Mapping[str, str],
        to: Recipient,
        now: float,
        *,
        at_once: bool = False,
    ) -> str:
        """The sealed order to run a job, with the values of its marks, and then, or `at_once`, those that share its
        order, which have neither marks nor files."""
        job = jobs[0]
        files = None if job.workspace is None else self._files(job, job.workspace, to, now)
        order = Order(
            **self._claims("run", to, now), jobs=tuple(jobs), secrets=secrets, files=files, at_once=at_once
        )
        return self._seal(order, to)

    def about(self, kind: str, jobs: tuple[str, ...], to: Recipient, now: float) -> str:
        """The sealed order to cancel jobs, to begin none behind them, to ask about them, or to send output again."""
        return self._seal(Order(**self._claims(kind, to, now), job_ids=jobs), to)

    def _files(self, job: Job, workspace: Workspace, to: Recipient, now: float) -> dict[str, str]:
        """Where the files of the job are had, and by which right. It ends with the job, whenever that is."""
        pass_ = Pass(
            installation=self.installation,
            node=to.name,
            execution=job.execution,
            job=job.id,
            snapshot=workspace.snapshot,
            bytes=self.files_bytes,
            issued_at=now,
            expires_at=now + PASS_LIFETIME,
        )
        return {"url": self.files_url, "token": sign_pass(pass_, self.keys)}

    def _claims(self, kind: str, to: Recipient, now: float) -> dict[str, Any]:
        return {
            "id": ulid(now),
            "installation": self.installation,
            "node": to.name,
            "epoch": to.epoch,
            "kind": kind,
            "issued_at": now,
            "expires_at": now + self.lifetime,
        }

    def _seal(self, order: Order, to: Recipient) -> str:
        return seal_order(order, self.keys, to.public)
