"""The files of an execution: what its jobs are given of them, and what becomes of what they changed.

The rows are the truth: an execution's row names the snapshot that holds now, and only who has that row locked moves it
on, so that what jobs changed is merged one after another. Documents that a node left with control are read before the
lock is taken; the bytes of files are never read here.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, func, insert, select, update

from app.compiler.plan import Plan, PlanTask
from app.engine.state import JobState
from app.engine.status import SUCCEEDED, TASK_OVER, UNKNOWN
from app.errors import InvalidInput, NotFound
from app.files.changes import NOTHING, Changes, merge, under
from app.files.limits import Limits
from app.files.manifest import EMPTY, Entry, Manifest
from app.files.names import BadTree, Globs
from app.ids import ulid
from app.services import blobs
from app.services.control import Control
from app.services.run import Run
from app.store import snapshots
from app.store.blobs import Blobs
from app.store.jobs import JobRow
from app.store.statements import set_columns
from app.store.tables import Artifact, Execution, Job, Task, WorkspaceStep, table
from app.transport.messages import Outcome

executions, tasks, jobs = table(Execution), table(Task), table(Job)
steps, artifacts = table(WorkspaceStep), table(Artifact)

PATHS_TOLD: Final = 5
"""Paths in conflict that an error's message names; its `paths` has more."""
_PATHS_KEPT: Final = 100


# what a job is given


def pin(run: Run, job: JobState) -> None:
    """Settle which snapshot the job starts from: the same for all jobs of its task, or of the block that it is in.

    It is taken as the first of them is about to be handed over, whether its node is there or not, and anew where the
    task runs again after a retry of the execution.
    """
    task = run.plan.tasks[job.task]
    if task.workspace is None or job.snapshot is not None:
        return
    owner = task.parent or task.name
    run.load_tasks({owner})
    row = (tasks.c.execution == run.execution, tasks.c.name == owner)
    job.snapshot = run.connection.execute(select(tasks.c.snapshot).where(*row)).scalar_one()
    if job.snapshot is None:
        job.snapshot = run.head.workspace
        run.connection.execute(update(tasks).where(*row).values(snapshot=job.snapshot))
    # A job that was born in this transaction is written with what it holds by then.
    if not run.mark(job, {}):
        set_columns(run.connection, jobs, {"snapshot": job.snapshot}, id=job.id)


def unpin(run: Run) -> None:
    """What runs again after a retry of the execution starts from the files as they are then, be it some units alone."""
    again = tasks.c.status.not_in(TASK_OVER)
    mine = update(tasks).where(tasks.c.execution == run.execution, again)
    run.connection.execute(mine.values(snapshot=None))


def check_pinned(plan: Plan, job: JobState) -> None:
    """Raises InvalidInput for a job of which nobody has settled the files yet: only who has its execution can."""
    if plan.tasks[job.task].workspace is not None and job.snapshot is None:
        raise InvalidInput(f"the files of {job.id} are not settled yet")


# what comes back


@dataclass(frozen=True, slots=True)
class Papers:
    """The documents that a node left with control for one outcome; `problem` says why they are of no use."""

    changes: Changes = NOTHING
    artifacts: Manifest = EMPTY
    problem: str = ""


NO_PAPERS: Final = Papers()


def read_papers(control: Control, outcome: Outcome) -> Papers:
    """The documents that an outcome names. Raises Unavailable where the blob store does not answer."""
    if not outcome.files or not any(outcome.files.values()):
        return NO_PAPERS
    files, limits = outcome.files, blobs.limits_of(control)
    store = control.blobs.open(control.settings)
    try:
        changes, kept = files.get("changes"), files.get("artifacts")
        return Papers(
            Changes.read(_document(store, changes, limits), limits) if changes else NOTHING,
            Manifest.read(_document(store, kept, limits), limits) if kept else EMPTY,
        )
    except NotFound:
        return Papers(problem="the node left no word of its files with control")
    except BadTree as wrong:
        return Papers(problem=wrong.message)


def _document(store: Blobs, digest: str, limits: Limits) -> bytes:
    with store.open(digest) as file:
        # One byte more than there may be, so that one that is too long is seen.
        return file.read(limits.document_bytes + 1)


class Filing:
    """What becomes of the files of one job's outcome, in the transaction that has its execution locked.

    `merge` is asked before the outcome is recorded, and may say why the job failed after all; `keep` is called when it
    was recorded, and writes. Between the two nothing is written.
    """

    def __init__(self, run: Run, row: JobRow, outcome: Outcome, papers: Papers) -> None:
        self._run = run
        self._row = row
        self._outcome = outcome
        self._papers = papers
        self._limits = blobs.limits_of(run.control)
        self._task = run.plan.tasks.get(row.task)
        self._merged: tuple[Changes, Manifest] | None = None

    def merge(self) -> Mapping[str, Any] | None:
        """Put what the job changed into the workspace; the error that it fails with where that cannot be."""
        task, papers = self._task, self._papers
        if task is None or not task.has_files:
            return None
        if papers.problem or (task.workspace and self._outcome.files is None):
            return _error("workspace", papers.problem or "the node said nothing of its files")
        if strays := self._strays(task):
            self._papers = Papers(problem=strays)
            return _error("workspace", strays)
        told = self._told()
        lacking = self._lacking({entry.sha256 for entry in told.values()})
        if lacking:
            return _error("workspace", f"{len(lacking)} files of it were never left with control")
        if others := self._of_other_sizes(told.values()):
            return _error("workspace", f"{others} files of it are not of the size that the node says")
        if task.workspace is None or task.workspace["mode"] == "push" or papers.changes.is_empty:
            return None
        try:
            return self._merge(task)
        except BadTree as wrong:
            hint = f" ({wrong.hint})" if wrong.hint else ""
            return _error("workspace", f"what it changed cannot be in the workspace: {wrong.message}{hint}")

    def _strays(self, task: PlanTask) -> str:
        """What the node speaks of that its patterns do not let it, or nothing."""
        changes, asked = self._papers.changes, task.workspace or {}
        globs = Globs(asked.get("include") or (), asked.get("exclude") or ())
        for path in (*changes.put, *changes.gone, *changes.made, *changes.unmade):
            if not globs.takes(path):
                return f"{path} is not among the files that `include` and `exclude` take"
        kept = Globs(task.artifacts)
        for path in self._papers.artifacts.files:
            if not task.artifacts or not kept.takes(path):
                return f"{path} is not among the artifacts that were asked for"
        return ""

    def _of_other_sizes(self, told: Collection[Entry]) -> int:
        """How many entries do not fit their blobs: nobody could build a tree of them."""
        sizes = blobs.sizes(self._run.connection, {entry.sha256 for entry in told})
        return sum(sizes.get(entry.sha256) != entry.size for entry in told)

    def keep(self, status: str) -> None:
        """Write what was merged, and what is kept for people of a job that has ended as `status`."""
        task, papers = self._task, self._papers
        if task is None or not task.has_files or papers.problem or status == UNKNOWN:
            return
        if status == SUCCEEDED and self._merged is not None:
            self._move_on(*self._merged)
        held = self._held({entry.sha256 for entry in self._told().values()})
        sizes = blobs.sizes(self._run.connection, held)
        self._keep("artifact", papers.artifacts.files, sizes)
        if status != SUCCEEDED:
            self._keep("kept", papers.changes.put, sizes)

    def _told(self) -> dict[str, Entry]:
        """All files that the documents name, by names that do not matter."""
        put, kept = self._papers.changes.put, self._papers.artifacts.files
        return {
            f"{of}/{path}": entry for of, some in (("a", put), ("b", kept)) for path, entry in some.items()
        }

    def _merge(self, task: PlanTask) -> Mapping[str, Any] | None:
        run, changes = self._run, self._papers.changes
        if task.merge == "per_node":
            changes = under(changes, self._row.node)
        base = snapshots.load(run.connection, self._row.snapshot or "")
        current = snapshots.load(run.connection, run.head.workspace)
        merged, conflicts = merge(base, current, changes, self._limits)
        if conflicts:
            return self._conflict(conflicts)
        self._merged = changes, merged
        return None

    def _conflict(self, paths: tuple[str, ...]) -> Mapping[str, Any]:
        other = _who_changed(self._run.connection, self._run.execution, set(paths))
        named = ", ".join(paths[:PATHS_TOLD]) + (
            f" and {len(paths) - PATHS_TOLD} more" * (len(paths) > PATHS_TOLD)
        )
        mine = f"{self._row.task} on {self._row.node}"
        theirs = f"{other[0]} on {other[1]}" if other else "an earlier task"
        message = f"{mine} and {theirs} changed the same files differently: {named}"
        return {**_error("workspace_conflict", message), "paths": list(paths[:_PATHS_KEPT])}

    def _move_on(self, changes: Changes, merged: Manifest) -> None:
        run, row = self._run, self._row
        snapshots.keep(run.connection, merged, run.now)
        last = select(func.max(steps.c.seq)).where(steps.c.execution == run.execution)
        run.connection.execute(
            insert(steps).values(
                execution=run.execution,
                seq=(run.connection.execute(last).scalar() or 0) + 1,
                task=row.task,
                job=row.id,
                node=row.node,
                base=row.snapshot or "",
                changes=zlib.compress(changes.to_bytes()),
                snapshot=merged.digest,
                created_at=run.now,
            )
        )
        run.head.workspace = merged.digest
        mine = update(executions).where(executions.c.id == run.execution)
        run.connection.execute(mine.values(workspace=merged.digest))

    def _keep(self, kind: str, files: Mapping[str, Entry], sizes: Mapping[str, int]) -> None:
        row, now = self._row, self._run.now
        about = {"execution": row.execution, "task": row.task, "job": row.id, "node": row.node}
        found = [
            {**about, "id": ulid(now), "path": path, **entry._asdict(), "kind": kind, "created_at": now}
            for path, entry in files.items()
            if sizes.get(entry.sha256) == entry.size
        ]
        if found:
            self._run.connection.execute(insert(artifacts), found)

    def _lacking(self, digests: Collection[str]) -> set[str]:
        return set(digests) - self._held(digests)

    def _held(self, digests: Collection[str]) -> set[str]:
        """Those that this job has put, or was given: to know the digest of a file is not to have it."""
        connection = self._run.connection
        own = {entry.sha256 for entry in snapshots.load(connection, self._row.snapshot or "").files.values()}
        given = own.intersection(digests)
        return given | blobs.held(connection, f"job:{self._row.id}", set(digests) - given)


def _error(kind: str, message: str) -> dict[str, Any]:
    return {"type": kind, "message": message}


def _who_changed(connection: Connection, execution: str, paths: Collection[str]) -> tuple[str, str] | None:
    """The task and node of the last job that changed one of these paths."""
    query = select(steps.c.task, steps.c.node, steps.c.changes).where(steps.c.execution == execution)
    for row in connection.execute(query.order_by(steps.c.seq.desc())):
        data = zlib.decompress(row.changes)
        # What is stored was held to the limits of its day, whatever they are now.
        changes = Changes.read(data, Limits(files=len(data), bytes=1 << 62))
        if not {*changes.put, *changes.gone, *changes.made}.isdisjoint(paths):
            return row.task, row.node
    return None
