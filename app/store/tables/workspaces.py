"""Files: what is stored of them, the snapshots that name them, and what became of an execution's workspace."""

from __future__ import annotations

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, LargeBinary, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from app.store.tables.root import Base
from app.store.types import Instant


class Blob(Base):
    """The bytes of a file, which are in the blob store under the same digest.

    `used_at` is when somebody put them, or was told that they are there: it is renewed at most once an hour.
    """

    __tablename__ = "blobs"

    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    size: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[float] = mapped_column(Instant)
    used_at: Mapped[float] = mapped_column(Instant)


class BlobHolder(Base):
    """Who put a blob, of those who are not shown everything: `job:` and its id, or `person:` and a login.

    Nobody else's bytes are theirs because they know a digest.
    """

    __tablename__ = "blob_holders"
    __table_args__ = (Index("ix_blob_holders_digest", "digest"),)

    holder: Mapped[str] = mapped_column(String(205), primary_key=True)
    digest: Mapped[str] = mapped_column(ForeignKey("blobs.digest", ondelete="CASCADE"), primary_key=True)
    at: Mapped[float] = mapped_column(Instant)


class JobUpload(Base):
    """How many bytes a job's node has put so far, or has set aside for what it is putting."""

    __tablename__ = "job_uploads"

    job: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    bytes: Mapped[int] = mapped_column(BigInteger)


class Snapshot(Base):
    """One immutable state of a workspace; `body` is its manifest's bytes by zlib, `used_at` as that of a blob."""

    __tablename__ = "snapshots"

    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    body: Mapped[bytes] = mapped_column(LargeBinary)
    files: Mapped[int]
    bytes: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[float] = mapped_column(Instant)
    used_at: Mapped[float] = mapped_column(Instant)


class SnapshotPoster(Base):
    """Who posted a snapshot: they may see it and start executions with it."""

    __tablename__ = "snapshot_posters"

    digest: Mapped[str] = mapped_column(ForeignKey("snapshots.digest", ondelete="CASCADE"), primary_key=True)
    login: Mapped[str] = mapped_column(String(64), primary_key=True)


class Artifact(Base):
    """A file that a task keeps for people. `kind` is artifact, or kept: what a task had changed before it failed."""

    __tablename__ = "artifacts"
    __table_args__ = (
        CheckConstraint("kind IN ('artifact', 'kept')", name="kind"),
        Index("ix_artifacts_execution_id", "execution", "id"),
        Index("ix_artifacts_sha256", "sha256"),
    )

    id: Mapped[str] = mapped_column(String(26), primary_key=True)
    execution: Mapped[str] = mapped_column(ForeignKey("executions.id", ondelete="CASCADE"))
    task: Mapped[str] = mapped_column(String(64))
    job: Mapped[str] = mapped_column(String(200))
    node: Mapped[str] = mapped_column(String(64))
    path: Mapped[str] = mapped_column(Text)
    mode: Mapped[int]
    size: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64))
    kind: Mapped[str] = mapped_column(String(8))
    created_at: Mapped[float] = mapped_column(Instant)


class WorkspaceStep(Base):
    """What a job did to the workspace of its execution: from `base` by `changes` (zlib) came to be `snapshot`."""

    __tablename__ = "workspace_steps"

    execution: Mapped[str] = mapped_column(ForeignKey("executions.id", ondelete="CASCADE"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    task: Mapped[str] = mapped_column(String(64))
    job: Mapped[str] = mapped_column(String(200))
    node: Mapped[str] = mapped_column(String(64))
    base: Mapped[str] = mapped_column(String(64))
    changes: Mapped[bytes] = mapped_column(LargeBinary)
    snapshot: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[float] = mapped_column(Instant)
