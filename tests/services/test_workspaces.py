"""The files of an execution on the control side: jobs get their snapshot, and what they changed is merged, or kept."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import yaml
from desk import BOTH, EPOCH, Office, Step, office_on
from sqlalchemy import select, update

from app.files import bundles
from app.files.changes import Changes, difference
from app.files.manifest import Entry, Manifest
from app.services import again, bearers, blobs, collect, presence, tick
from app.store import snapshots
from app.store.tables import Artifact, Execution, Job, Node, WorkspaceStep, table
from app.transport.life import Heartbeat, Report
from app.transport.messages import Job as Message
from app.transport.messages import Outcome
from app.transport.sealing import open_order, seal_outcome, sign_heartbeat, sign_report

CASES = Path(__file__).parents[1] / "cases" / "workspaces" / "merged.yaml"
executions, jobs, nodes = table(Execution), table(Job), table(Node)
artifacts, steps = table(Artifact), table(WorkspaceStep)


def digest_of(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def manifest_of(files: Mapping[str, str]) -> Manifest:
    return Manifest.of({path: Entry(0o644, len(text), digest_of(text)) for path, text in files.items()})


class Files:
    """What the nodes of an office see of files, and what is put for them through the API's own service."""

    def __init__(self, office: Office) -> None:
        self.office = office
        self.texts: dict[str, str] = {}

    def order(self, step: Step) -> tuple[Message, Mapping[str, str] | None]:
        office, node = self.office, step.node
        at: dict[str, Any] = {"installation": office.installed.id, "node": node, "epoch": EPOCH}
        order = open_order(step.token, office.keys[node], [office.public], **at, now=office.clock.now)
        return order.jobs[0], order.files

    def seen(self, job: Message) -> dict[str, str]:
        assert job.workspace is not None
        with self.office.store.read() as connection:
            found = snapshots.load(connection, job.workspace.snapshot)
        return {path: self.texts[entry.sha256] for path, entry in found.files.items()}

    def put(self, token: str, texts: list[str]) -> None:
        found = {digest_of(text): text for text in texts}
        self.texts.update(found)
        bundle = io.BytesIO()
        parts = (
            (name, len(text.encode()), partial(io.BytesIO, text.encode())) for name, text in found.items()
        )
        bundles.write(bundle, parts)
        bundle.seek(0)
        blobs.put_bundle(self.office.control, bearers.of_pass(self.office.control, token), bundle)

    def answer(self, step: Step, said: Mapping[str, Any]) -> str:
        """The outcome of a script that did what is said, sealed by its node."""
        job, files = self.order(step)
        status, papers = said.get("status", "succeeded"), None
        if said.get("without"):
            assert job.workspace is None
        else:
            assert job.workspace is not None
            assert files is not None
            assert job.workspace.mode == said.get("mode", "sync")
            before = self.seen(job)
            assert said.get("sees", before) == before
            papers = None if said.get("silent") else self._papers(files["token"], job, before, said)
        office, keys = self.office, self.office.keys[step.node]
        about = (job.id, job.digest, office.installed.id, step.node, EPOCH)
        error = None if status == "succeeded" else {"type": "exit", "message": "exit code 1"}
        outcome = Outcome(*about, status, 0, error=error, ended_at=office.clock.now, files=papers)
        return seal_outcome(outcome, keys, office.public)

    def _papers(
        self, token: str, job: Message, before: Mapping[str, str], said: Mapping[str, Any]
    ) -> dict[str, str]:
        after = {**before, **said.get("put", {})}
        for path in said.get("gone", ()):
            del after[path]
        changes = difference(manifest_of(before), manifest_of(after))
        lies = {path: changes.put[path]._replace(size=size) for path, size in said.get("sizes", {}).items()}
        changes = replace(changes, put={**changes.put, **lies})
        text = said.get("document", changes.to_bytes().decode())
        kept = said.get("keeps", {})
        left = [
            text
            for path, text in {**said.get("put", {}), **kept}.items()
            if path not in said.get("leaves_out", ())
        ]
        documents = [manifest_of(kept).to_bytes().decode()] if kept else []
        self.put(token, [*left, *documents, *([] if text == "none" else [text])])
        comes_back = job.workspace is not None and job.workspace.comes_back
        return {
            "changes": digest_of(text) if comes_back else "",
            "artifacts": digest_of(documents[0]) if documents else "",
        }


def cases() -> list[Any]:
    return [pytest.param(case, id=case["name"]) for case in yaml.safe_load(CASES.read_text())]


@pytest.fixture(params=BOTH)
def office(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Office]:
    with office_on(request.param, tmp_path, ["web-1", "web-2"]) as made:
        yield made


def begin(office: Office, files: Files, case: Mapping[str, Any]) -> str:
    """The execution with the files that it starts with."""
    execution = office.hand_in(case["workflow"])
    if case.get("start"):
        first = manifest_of(case["start"])
        files.texts.update({digest_of(text): text for text in case["start"].values()})
        with office.store.write() as connection:
            snapshots.keep(connection, first, office.clock.now)
            mine = update(executions).where(executions.c.id == execution)
            connection.execute(mine.values(workspace=first.digest))
    collect.settle(office.desk, execution)
    return execution


def carry_out(office: Office, files: Files, execution: str, answers: list[Mapping[str, Any]]) -> None:
    """The nodes answer in this order, each of them what is said."""
    followed: dict[str, Step] = {}
    answered: set[str] = set()
    for said in answers:
        found = {
            files.order(step)[0].id: step for step in (Step(line[0], 0, line[1]) for line in office.sent)
        }
        found |= followed
        task, _, unit = said["job"].partition(".")
        wanted = [
            id_ for id_ in found if id_ not in answered and id_.startswith(f"{execution}.{task}.{unit}.")
        ]
        assert wanted, f"nothing was sent for {said['job']}"
        step = found[wanted[0]]
        answered.add(wanted[0])
        collected = office.hear_of(step, files.answer(step, said))
        if collected.order:
            follower = Step(step.member, step.position + 1, collected.order, collected)
            followed[files.order(follower)[0].id] = follower
        for waiting in collected.settle:
            collect.settle(office.desk, waiting)
        office.clock.now += 1
        collect.settle(office.desk, execution)
        retry_due(office)


def retry_due(office: Office) -> None:
    tick.tick(office.desk, "test")


@pytest.mark.parametrize("case", cases())
def test_what_jobs_change_is_merged(office: Office, case: dict[str, Any]) -> None:
    files = Files(office)
    execution = begin(office, files, case)
    carry_out(office, files, execution, case["answers"])

    row = office.execution(execution)
    with office.store.read() as connection:
        found = snapshots.load(connection, row.workspace)
        kept = connection.execute(select(artifacts.c.task, artifacts.c.kind, artifacts.c.path)).all()
        errors = dict(
            connection.execute(select(jobs.c.id, jobs.c.error).where(jobs.c.error.is_not(None))).all()
        )
    assert {path: files.texts[entry.sha256] for path, entry in found.files.items()} == case["files"]
    assert row.status == case["status"]
    for job, wanted in case.get("errors", {}).items():
        (error,) = [one for id_, one in errors.items() if id_.startswith(f"{execution}.{job}.")]
        assert error["type"] == wanted["type"]
        assert wanted.get("contains", "") in error["message"]
    if "artifacts" in case or case["status"] == "completed":
        assert sorted(map(list, kept)) == sorted(case.get("artifacts", []))


TWO = """
workspace: sync
tasks:
  - {name: a, action: core.shell, delegate_to: web-1, input: {command: x}, on_success: b}
  - {name: b, action: core.shell, delegate_to: web-1, input: {command: x}}
"""


def test_an_outcome_that_comes_twice_is_merged_once(office: Office) -> None:
    files = Files(office)
    begin(office, files, {"workflow": TWO})
    step = Step(office.sent[0][0], 0, office.sent[0][1])
    answer = files.answer(step, {"put": {"a.txt": "one"}})
    for redelivered in (False, True, True):
        office.hear_of(step, answer, redelivered=redelivered)
    with office.store.read() as connection:
        assert len(connection.execute(select(steps.c.seq)).all()) == 1


@pytest.mark.parametrize(("asks", "margin"), [("workspace: sync", 930.0), ("workspace: none", 30.0)])
def test_files_have_time_to_come_back(office: Office, asks: str, margin: float) -> None:
    """The time of a script is over with its script; its node says so when the files are here."""
    task = "{name: a, action: core.shell, delegate_to: web-1, timeout: 60, input: {command: x}}"
    begin(office, Files(office), {"workflow": f"{asks}\ntasks: [{task}]\n"})
    with office.store.read() as connection:
        job, limit = connection.execute(select(jobs.c.id, jobs.c.time_limit)).one()
    now = office.clock.now
    said = Report(office.installed.id, "web-1", EPOCH, now, ((job, "running", now),))
    presence.report(office.desk, sign_report(said, office.keys["web-1"]))
    assert office.job(job).backstop_at == pytest.approx(now + limit + margin)


def test_a_retry_of_the_execution_starts_from_the_files_as_they_are_now(office: Office) -> None:
    files = Files(office)
    execution = begin(office, files, {"workflow": TWO})
    carry_out(
        office,
        files,
        execution,
        [
            {"job": "a.0", "put": {"a.txt": "one"}},
            {"job": "b.0", "status": "failed", "put": {"a.txt": "bad"}},
        ],
    )
    assert office.execution(execution).status == "failed"
    again.retry(office.control, execution, "ada", again.Wanted())
    collect.settle(office.desk, execution)
    last = Step(office.sent[-1][0], 0, office.sent[-1][1])
    job, _ = files.order(last)
    assert job.task == "b"
    assert files.seen(job) == {"a.txt": "one"}


IN_PART = {
    "fan-out": """
workspace: sync
tasks: [{name: v, type: distributed_shell, input: {nodes: [web-1, web-2], script: x}}]
""",
    "loop": """
workspace: sync
tasks: [{name: v, action: core.shell, delegate_to: "{{ item }}", with_items: [web-1, web-2], input: {command: x}}]
""",
    "block": """
workspace: sync
tasks:
  - name: both
    type: parallel
    tasks:
      - {name: v, action: core.shell, delegate_to: web-1, input: {command: x}}
      - {name: w, action: core.shell, delegate_to: web-2, input: {command: x}}
""",
}


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("kind", IN_PART)
def test_what_was_in_conflict_sees_on_a_retry_what_won(office: Office, kind: str, reset: bool) -> None:
    files = Files(office)
    execution = begin(office, files, {"workflow": IN_PART[kind]})
    second = "w.0" if kind == "block" else "v.1"
    both = [{"job": "v.0", "put": {"same": "first"}}, {"job": second, "put": {"same": "second"}}]
    carry_out(office, files, execution, both)
    assert office.execution(execution).status == "failed"
    sent = len(office.sent)
    again.retry(office.control, execution, "ada", again.Wanted(reset=reset))
    collect.settle(office.desk, execution)
    born = [files.order(Step(member, 0, token))[0] for member, token in office.sent[sent:]]
    assert len(born) == 1 + reset
    assert [files.seen(job) for job in born] == [{"same": "first"}] * len(born)


def test_a_job_that_is_sent_again_is_the_same_job(office: Office) -> None:
    """Its snapshot is kept with it, whatever the workspace has become by then."""
    files = Files(office)
    begin(office, files, {"workflow": TWO, "start": {"a.txt": "one"}})
    job, token = files.order(Step(office.sent[0][0], 0, office.sent[0][1]))
    office.clock.now += 6
    about = (office.installed.id, "web-1", EPOCH)
    beat = Heartbeat(*about, 1, office.clock.now, (), 8, 8, ("sh",), {}, office.clock.now)
    presence.heartbeat(office.desk, sign_heartbeat(beat, office.keys["web-1"]))
    assert len(office.sent) == 2
    again, other = files.order(Step(office.sent[1][0], 0, office.sent[1][1]))
    assert again.digest == job.digest
    assert replace(again) == replace(job)
    assert other != token


def test_who_is_not_given_a_file_cannot_have_it_merged_by_its_digest(office: Office) -> None:
    """To know the digest of somebody's file is not to have it."""
    files = Files(office)
    execution = begin(office, files, {"workflow": TWO})
    step = Step(office.sent[0][0], 0, office.sent[0][1])
    (secret,) = [digest_of("somebody's secret")]
    store = office.control.blobs.open(office.control.settings)
    store.put(secret, 17, io.BytesIO(b"somebody's secret"))
    changes = Changes({"stolen": Entry(0o600, 17, secret)})
    said = {"document": changes.to_bytes().decode()}
    office.hear_of(step, files.answer(step, said))
    assert office.job(f"{execution}.a.0.1").error["type"] == "workspace"
    assert office.execution(execution).workspace == ""


def test_a_job_whose_files_nobody_has_settled_is_not_handed_over_behind_its_execution(office: Office) -> None:
    """A slot that comes free hands over what waits for a node, without the lock of the execution."""
    files = Files(office)
    execution = office.hand_in(TWO)
    first = manifest_of({"a.txt": "one"})
    files.texts[digest_of("one")] = "one"
    with office.store.write() as connection:
        snapshots.keep(connection, first, office.clock.now)
        mine = update(executions).where(executions.c.id == execution)
        connection.execute(mine.values(workspace=first.digest))

    collect.make_room(office.desk, "web-1")
    assert not office.sent
    collect.settle(office.desk, execution)
    job, _ = files.order(Step(office.sent[0][0], 0, office.sent[0][1]))
    assert files.seen(job) == {"a.txt": "one"}
