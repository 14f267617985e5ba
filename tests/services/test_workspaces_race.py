"""Outcomes with files that come in at once, twice, while files are pruned: on both databases, by several threads."""

from __future__ import annotations

import io
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from desk import ALWAYS_BOTH, Office, Step, office_on
from sqlalchemy import select
from test_workspaces import Files, digest_of, manifest_of
from waiting import PATIENCE

from app.files import bundles
from app.services import bearers, blobs, collect, retention, unused_files
from app.services.people import Person
from app.services.roles import kept
from app.store import snapshots
from app.store.tables import Artifact, Job, WorkspaceStep, table

jobs, artifacts, steps = table(Job), table(Artifact), table(WorkspaceStep)
UNITS = 8
LOOP = f"""
workspace: sync
tasks:
  - {{name: l, action: core.shell, delegate_to: "{{{{ item }}}}", with_items: {["web-1", "web-2"] * (UNITS // 2)},
     tolerate: 10, artifacts: "log", input: {{command: x}}}}
"""
DAY = 86400.0


@pytest.fixture(params=ALWAYS_BOTH)
def office(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Office]:
    with office_on(request.param, tmp_path, ["web-1", "web-2"]) as made:
        yield made


def at_once(*acts: Callable[[], Any]) -> list[Any]:
    """Does all of it in threads that begin together; what each gave."""
    gate = threading.Barrier(len(acts))

    def wait(act: Callable[[], Any]) -> Any:
        gate.wait(PATIENCE)
        return act()

    with ThreadPoolExecutor(len(acts)) as pool:
        return [one.result() for one in [pool.submit(wait, act) for act in acts]]


def answered(office: Office, text: Callable[[int], tuple[str, str]]) -> tuple[str, list[tuple[Step, str]]]:
    """A loop whose nodes have put their files and answered: `text` gives the path and content of each unit."""
    files, execution = Files(office), office.submit(LOOP)
    found = []
    for number, line in enumerate(office.sent):
        step = Step(line[0], 0, line[1])
        path, content = text(number)
        found.append((step, files.answer(step, {"put": {path: content}, "keeps": {"log": f"log {number}"}})))
    assert len(found) == UNITS
    return execution, found


def hear(office: Office, some: Sequence[tuple[Step, str]], *, redelivered: bool) -> None:
    for step, answer in some:
        office.hear_of(step, answer, redelivered=redelivered)


def test_all_that_is_changed_at_once_is_merged_once(office: Office) -> None:
    """Each outcome comes three times, in another order in each thread, and retention looks on two days later."""
    execution, found = answered(office, lambda number: (f"f{number}", f"content {number}"))
    office.clock.now += 2 * DAY
    shuffled = [random.Random(number).sample(found, UNITS) for number in range(3)]
    hears = [partial(hear, office, some, redelivered=bool(n)) for n, some in enumerate(shuffled)]
    at_once(*hears, partial(retention.prune, office.control), partial(collect.settle, office.desk, execution))
    collect.settle(office.desk, execution)
    row = office.execution(execution)
    wanted = manifest_of({f"f{number}": f"content {number}" for number in range(UNITS)})
    assert (row.status, row.workspace) == ("completed", wanted.digest)
    with office.store.read() as connection:
        assert snapshots.load(connection, row.workspace) == wanted
        done = connection.execute(select(steps).order_by(steps.c.seq)).all()
        logs = connection.execute(select(artifacts.c.sha256)).scalars().all()
    assert [step.seq for step in done] == list(range(1, UNITS + 1))
    assert len({step.job for step in done}) == UNITS
    assert done[-1].snapshot == row.workspace
    assert sorted(logs) == sorted(digest_of(f"log {number}") for number in range(UNITS))


def test_of_many_that_change_one_file_the_first_counts(office: Office) -> None:
    execution, found = answered(office, lambda number: ("same", f"content {number}"))
    hears = [partial(hear, office, [one], redelivered=False) for one in found]
    at_once(*hears)
    collect.settle(office.desk, execution)
    with office.store.read() as connection:
        rows = connection.execute(
            select(jobs.c.status, jobs.c.error).where(jobs.c.execution == execution)
        ).all()
        kept_ones = (
            connection.execute(select(artifacts.c.sha256).where(artifacts.c.kind == "kept")).scalars().all()
        )
        assert len(connection.execute(select(steps.c.seq)).all()) == 1
        (merged,) = snapshots.load(connection, office.execution(execution).workspace).files.values()
    errors = [row.error["type"] for row in rows if row.status == "failed"]
    assert errors == ["workspace_conflict"] * (UNITS - 1)
    every = {digest_of(f"content {number}") for number in range(UNITS)}
    assert every - set(kept_ones) == {merged.sha256}


ADA = bearers.Bearer("ada", "person:ada", person=Person("ada", "operator", "t", kept("operator", None)))


def test_files_that_are_put_asked_for_and_pruned_at_once(office: Office) -> None:
    """Nobody waits for another one who waits for them, and what was asked for is there afterwards."""
    control = office.control
    texts = {digest_of(f"file {number}"): f"file {number}".encode() for number in range(300)}

    def put(number: int) -> None:
        some = random.Random(number).sample(sorted(texts), 200)
        out = io.BytesIO()
        bundles.write(out, [(one, len(texts[one]), partial(io.BytesIO, texts[one])) for one in some])
        blobs.put_bundle(control, ADA, io.BytesIO(out.getvalue()))

    # The disk's clock is the real one: here it is never behind.
    office.clock.now = time.time() - 20 * DAY
    for number in range(4):
        put(number)
        for path in (Path(control.settings.data_dir) / "blobs").glob("??/*"):
            os.utime(path, (office.clock.now, office.clock.now))
        office.clock.now += 2 * DAY
        asked = random.Random(number).sample(sorted(texts), 300)
        _, _, lacking, other, _ = at_once(
            partial(put, number + 10),
            partial(put, number + 20),
            partial(blobs.missing, control, ADA, asked),
            partial(blobs.missing, control, ADA, asked[::-1]),
            partial(unused_files.sweep, control),
        )
        store = control.blobs.open(control.settings)
        assert store.has(set(texts) - set(lacking)) | set(lacking) == set(texts)
        assert store.has(set(texts) - set(other)) | set(other) == set(texts)
        with office.store.read() as connection:
            assert store.has(blobs.sizes(connection, list(texts))) == set(
                blobs.sizes(connection, list(texts))
            )
