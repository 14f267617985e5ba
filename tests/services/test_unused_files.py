"""Which files go and when: nothing that an execution names, nothing that is fresh; and what was interrupted is done."""

from __future__ import annotations

import hashlib
import io
import os
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from desk import BOTH, office_on
from sqlalchemy import delete, insert, select, update
from test_retention import DAY, Clock, end, execute

from app.errors import NotFound
from app.files import bundles
from app.files.changes import difference
from app.files.documents import Entry
from app.files.manifest import EMPTY, Manifest
from app.services import blobs, queries, retention, snapshots
from app.services.bearers import Bearer
from app.services.control import Control
from app.services.people import Person
from app.services.roles import kept
from app.settings import Settings
from app.store import snapshots as rows
from app.store.blobs.local import LocalBlobs
from app.store.tables import (
    Artifact,
    Blob,
    Execution,
    Job,
    Snapshot,
    Task,
    WorkspaceStep,
    table,
)

ADA = Bearer("ada", "person:ada", person=Person("ada", "operator", "t", kept("operator", None)))
CONTENTS = {name: name.encode() * 100 for name in ("a", "b", "c", "d")}
NAMES = {name: hashlib.sha256(content).hexdigest() for name, content in CONTENTS.items()}
A_WEEK = 8 * DAY


@pytest.fixture(params=BOTH)
def control(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Control]:
    with office_on(request.param, tmp_path, []) as office:
        yield Control(Settings(data_dir=str(tmp_path)), office.store, clock=Clock())


def put(control: Control, *names: str, bearer: Bearer = ADA) -> None:
    out = io.BytesIO()
    bundles.write(out, [(NAMES[one], 100, partial(io.BytesIO, CONTENTS[one])) for one in names])
    blobs.put_bundle(control, bearer, io.BytesIO(out.getvalue()))
    for name in names:
        age(control, name)


def age(control: Control, name: str) -> None:
    """The time of a file is the disk's; here it is the clock's."""
    path = Path(control.settings.data_dir) / "blobs" / NAMES[name][:2] / NAMES[name]
    os.utime(path, (control.clock(), control.clock()))


def tree(*names: str) -> Manifest:
    return Manifest({name: Entry(0o644, 100, NAMES[name]) for name in sorted(names)})


def wait(control: Control, seconds: float) -> None:
    control.clock.now += seconds  # type: ignore[attr-defined]


def left(control: Control) -> set[str]:
    """The blobs that have a row and bytes, by their names here; the two are the same."""
    with control.store.read() as connection:
        rows = set(connection.execute(select(table(Blob).c.digest)).scalars())
    assert set(control.blobs.open(control.settings).every()) == rows
    return {name for name, digest in NAMES.items() if digest in rows}


def named(control: Control) -> set[str]:
    with control.store.read() as connection:
        return set(connection.execute(select(table(Snapshot).c.digest)).scalars())


def test_what_nothing_names_goes_a_day_after_its_last_use(control: Control) -> None:
    put(control, "a", "b")
    wait(control, DAY - 60)
    assert retention.prune(control).blobs == 0
    assert blobs.missing(control, ADA, [NAMES["a"]]) == []
    wait(control, 120)
    pruned = retention.prune(control)
    assert (pruned.blobs, pruned.bytes) == (1, 100)
    assert left(control) == {"a"}
    wait(control, DAY)
    assert retention.prune(control).blobs == 1
    assert left(control) == set()


def test_what_a_kept_execution_names_stays_until_it_goes(control: Control) -> None:
    put(control, "a", "b", "c", "d")
    digest, _ = snapshots.post(control, ADA, tree("a").to_bytes())
    snapshots.ready(control, ADA, digest)
    execution = execute(control)
    place = {"execution": execution, "task": "t", "job": "j", "node": "n"}
    with control.store.write() as connection:
        connection.execute(update(Execution).values(workspace=digest))
        made = tree("a", "b").digest
        rows.keep(connection, tree("a", "b"), control.clock())
        own = {**place, "created_at": control.clock()}
        done = zlib.compress(difference(EMPTY, tree("c")).to_bytes())
        step = {**own, "seq": 1, "base": digest, "changes": done, "snapshot": made}
        connection.execute(insert(WorkspaceStep), step)
        file = {**own, "id": "x", "path": "d", "kind": "kept", **tree("d").files["d"]._asdict()}
        connection.execute(insert(Artifact), file)
    wait(control, A_WEEK)
    pruned = retention.prune(control)
    assert (pruned.blobs, pruned.snapshots) == (0, 0)
    assert (left(control), named(control)) == (set("abcd"), {digest, made})
    end(control, execution, control.clock() - 91 * DAY)
    pruned = retention.prune(control)
    assert (pruned.executions, pruned.blobs, pruned.snapshots) == (1, 4, 2)
    assert (left(control), named(control)) == (set(), set())


def test_jobs_without_files_keep_nothing(control: Control) -> None:
    """Most jobs have no snapshot: that names none, and is no reason to keep any."""
    put(control, "a")
    snapshots.post(control, ADA, tree("a").to_bytes())
    job = {"id": "j", "execution": execute(control), "task": "wait", "unit": 0, "attempt": 1, "node": "n"}
    with control.store.write() as connection:
        connection.execute(insert(Job), {**job, "status": "queued", "created_at": control.clock()})
    wait(control, A_WEEK)
    retention.prune(control)
    assert (left(control), named(control)) == (set(), set())


COLUMNS = {
    "executions": update(Execution),
    "tasks": update(Task),
    "jobs": update(Job),
}


@pytest.mark.parametrize("where", COLUMNS)
def test_a_snapshot_stays_wherever_it_is_named(control: Control, where: str) -> None:
    put(control, "a")
    digest, _ = snapshots.post(control, ADA, tree("a").to_bytes())
    execution = execute(control)
    column = "workspace" if where == "executions" else "snapshot"
    with control.store.write() as connection:
        if where == "jobs":
            job = {"id": "j", "execution": execution, "task": "wait", "unit": 0, "attempt": 1, "node": "n"}
            connection.execute(insert(Job), {**job, "status": "queued", "created_at": control.clock()})
        changed = connection.execute(COLUMNS[where].values({column: digest}))
        assert changed.rowcount
    wait(control, A_WEEK)
    retention.prune(control)
    assert (left(control), named(control)) == ({"a"}, {digest})


def test_what_a_job_put_waits_for_its_outcome(control: Control) -> None:
    put(control, "a", bearer=Bearer("node:n", "job:j"))
    wait(control, 3 * DAY)
    assert retention.prune(control).blobs == 0
    wait(control, 5 * DAY)
    assert retention.prune(control).blobs == 1


def test_what_was_interrupted_is_done_the_next_time(control: Control) -> None:
    put(control, "a", "b")
    with control.store.write() as connection:
        connection.execute(delete(table(Blob)).where(table(Blob).c.digest == NAMES["a"]))
    store = control.blobs.open(control.settings)
    store.append(NAMES["c"], 0, 100, io.BytesIO(CONTENTS["c"][:10]), "person:ada")
    part = next((Path(control.settings.data_dir) / "blobs" / "parts").iterdir())
    os.utime(part, (control.clock(), control.clock()))
    assert retention.prune(control).blobs == 0
    assert left(control) == {"a", "b"}
    assert store.partial(NAMES["c"], "person:ada") == 10
    wait(control, 2 * DAY)
    assert retention.prune(control).blobs == 2
    assert (left(control), store.partial(NAMES["c"], "person:ada")) == (set(), 0)


def test_bytes_that_were_put_again_meanwhile_stay(control: Control) -> None:
    """Somebody puts a blob whose row has just been deleted: the bytes are fresh, and their row comes after."""
    put(control, "a")
    wait(control, 2 * DAY)
    age(control, "a")
    assert retention.prune(control).blobs == 1
    assert left(control) == {"a"}


class Forgetful(LocalBlobs):
    """Deletes as S3 does: what is put between the look at its age and the deletion goes too."""

    def __init__(self, control: Control) -> None:
        super().__init__(Path(control.settings.data_dir) / "blobs")
        self.control = control

    def delete(self, digest: str, before: float) -> None:
        put(self.control, "a")
        self._path(digest).unlink()


def test_what_a_store_lost_while_it_was_put_is_asked_for_again(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(control, "a")
    wait(control, 2 * DAY)
    store = Forgetful(control)
    monkeypatch.setattr(type(control.blobs), "open", lambda self, settings: store)
    assert retention.prune(control).blobs == 1
    assert left(control) == set()
    assert blobs.missing(control, ADA, [NAMES["a"]]) == [NAMES["a"]]


def test_a_store_that_is_away_holds_up_nothing_else(
    control: Control, caplog: pytest.LogCaptureFixture
) -> None:
    execution = execute(control)
    end(control, execution, control.clock() - 91 * DAY)
    put(control, "a")
    wait(control, 2 * DAY)
    directory = Path(control.settings.data_dir) / "blobs"
    directory.rename(directory.with_name("away"))
    directory.write_text("this is no directory")
    retention.hourly(control)
    assert "files that nothing names stay until tomorrow" in caplog.text
    with control.store.read() as connection, pytest.raises(NotFound):
        queries.state(connection, execution)


def test_the_tick_looks_once_a_day(control: Control) -> None:
    put(control, "a")
    wait(control, DAY + 60)
    put(control, "b")
    retention.hourly(control)
    assert left(control) == {"b"}
    for _ in range(23):
        wait(control, 3601)
        retention.hourly(control)
    assert left(control) == {"b"}
    wait(control, 2 * 3601)
    retention.hourly(control)
    assert left(control) == set()
