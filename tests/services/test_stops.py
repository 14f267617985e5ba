"""Whatever ends a task of an execution that fails fast: what else is out on nodes is told to stop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from desk import EPOCH, Office, jobs
from sqlalchemy import select, update

from app.services import cancel as cancelling
from app.services import collect, families, fleet, library, presence, resolve, tick
from app.services.approvals import Word, decide
from app.store.tables import Approval, DeadLetter, Execution, table
from app.transport.life import Heartbeat, Report
from app.transport.sealing import sign_heartbeat, sign_report

approvals, executions = table(Approval), table(Execution)

LONG = "{name: long, action: core.shell, delegate_to: web-2, input: {command: [sleep, '600']}}"
CHILD = "ref: stops.child\ntasks:\n  - {name: bad, action: core.fail, delay: 5}\n"


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    made = Office(tmp_path, ["web-1", "web-2"])
    library.store_workflow(made.control, "stops", CHILD, "ada")
    yield made
    made.store.close()


def of_shell(**more: object) -> str:
    told = {
        "name": "x",
        "action": "core.shell",
        "delegate_to": "web-1",
        "input": {"command": ["true"]},
        **more,
    }
    return str(told).replace("True", "true")


def rejected(office: Office, execution: str) -> None:
    with office.store.read() as connection:
        id_ = connection.execute(select(approvals.c.id)).scalar_one()
    decide(office.control, id_, Word("bob", "reject"))


def unknown(office: Office, execution: str) -> None:
    said(office, execution, "accepted")
    said(office, execution, "not_known")


def said(office: Office, execution: str, status: str) -> None:
    now = office.clock.now
    told = Report(office.installed.id, "web-1", EPOCH, now, ((f"{execution}.x.0.1", status, now),))
    presence.report(office.desk, sign_report(told, office.keys["web-1"]))


def resolved(office: Office, execution: str) -> None:
    unknown(office, execution)
    resolve.resolve(office.control, execution, "x", 0, "failed", "I looked", "ada")


def child_failed(office: Office, execution: str) -> None:
    with office.store.read() as connection:
        child = connection.execute(
            select(executions.c.id).where(executions.c.parent == execution)
        ).scalar_one()
    with office.store.write() as connection:
        ended = update(executions).where(executions.c.id == child)
        connection.execute(ended.values(status="failed", ended_at=office.clock.now))
    families.align(office.control, execution)


def silent(office: Office, execution: str) -> None:
    said(office, execution, "running")
    later(office, 400)


def later(office: Office, seconds: float) -> None:
    office.clock.now += seconds
    office.hear("web-2", last_seen=office.clock.now)
    tick.tick(office.desk, "here")


def away(office: Office, execution: str) -> None:
    office.hear("web-1", last_seen=office.clock.now - 60)
    collect.settle(office.desk, execution)
    later(office, 3700)


def overdue(office: Office, execution: str) -> None:
    said(office, execution, "running")
    office.clock.now += 3700
    for node in ("web-1", "web-2"):
        office.hear(node, last_seen=office.clock.now)
    tick.tick(office.desk, "here")


def other_journal(office: Office, execution: str) -> None:
    now = office.clock.now
    told = Heartbeat(office.installed.id, "web-1", EPOCH[::-1], 1, now, (), 8, 8, ("sh",), {}, now)
    presence.heartbeat(office.desk, sign_heartbeat(told, office.keys["web-1"]))


def removed(office: Office, execution: str) -> None:
    fleet.remove(office.control, "web-1", "ada", force=True)


Act = Callable[[Office, str], None]
ENDS: dict[str, tuple[str, Act]] = {
    "a person rejects": ("{name: x, action: core.approval, input: {prompt: ok}}", rejected),
    "a person says that it failed": (of_shell(), resolved),
    "a child fails": ("{name: x, type: workflow, action: stops.child}", child_failed),
    "its node is silent": (of_shell(idempotent=True), silent),
    "its node was away for too long": (of_shell(), away),
    "its node does not report its timeout": (of_shell(timeout=60), overdue),
    "its node does not know it": (of_shell(idempotent=True), unknown),
    "its node has another journal": (of_shell(idempotent=True), other_journal),
    "its node is removed": (of_shell(idempotent=True), removed),
}


@pytest.mark.parametrize("how", ENDS)
def test_the_others_are_told_to_stop(office: Office, how: str) -> None:
    task, end = ENDS[how]
    if end is away:
        office.hear("web-1", last_seen=None)
    execution = office.submit(f"fail_fast: true\ntasks:\n  - {task}\n  - {LONG}\n")
    assert office.statuses(jobs, execution)["long.0"] == "dispatched"
    end(office, execution)
    collect.settle(office.desk, execution)
    assert office.execution(execution).halt == "fail_fast"
    assert office.job(f"{execution}.long.0.1").stop_asked_at == office.clock.now


def test_a_node_that_lost_what_it_was_told_to_stop_holds_up_no_cancel(office: Office) -> None:
    """It is there and answers, and cannot say what became of the script: it is not waited for without end."""
    execution = office.submit(f"tasks: [{of_shell()}]")
    said(office, execution, "running")
    cancelling.cancel(office.control, execution, "ada")
    collect.settle(office.desk, execution)
    assert office.statuses(jobs, execution) == {"x.0": "running"}
    said(office, execution, "not_known")
    assert office.execution(execution).status == "cancelling"
    for node in ("web-1", "web-2"):
        office.hear(node, last_seen=office.clock.now + office.control.settings.cancel_patience)
    later(office, office.control.settings.cancel_patience)
    assert office.execution(execution).status == "cancelled"
    with office.store.read() as connection:
        row = connection.execute(select(jobs).where(jobs.c.execution == execution)).one()
    assert (row.status, row.settled, row.effect_unknown) == ("cancelled", True, True)
    assert "does not know what became of it" in row.error["message"]


def test_what_a_node_said_under_an_earlier_journal_counts_no_more(office: Office) -> None:
    """It is signed by the node, and kept by whoever reads the queues: said again it loses no job."""

    def beat(epoch: str, sequence: int, held: tuple[str, ...]) -> str:
        now = office.clock.now
        said = Heartbeat(office.installed.id, "web-1", epoch, sequence, now, held, 4, 4, ("sh",), {}, now)
        return sign_heartbeat(said, office.keys["web-1"])

    another, earlier = "0" * 26, beat(EPOCH, 70, ())
    presence.heartbeat(office.desk, earlier)
    presence.heartbeat(office.desk, beat(another, 1, ()))
    execution = office.submit(f"tasks: [{of_shell(idempotent=True, retry={'count': 1})}]")
    job = f"{execution}.x.0.1"
    presence.heartbeat(office.desk, beat(another, 2, (job,)))
    presence.heartbeat(office.desk, earlier)
    presence.heartbeat(office.desk, beat(EPOCH, 80, ()))
    presence.heartbeat(office.desk, beat(another, 3, (job,)))
    assert office.statuses(jobs, execution) == {"x.0": "accepted"}
    with office.store.read() as connection:
        letters = connection.execute(select(table(DeadLetter).c.reason)).scalars().all()
    assert letters == ["left-journal"] * 2
