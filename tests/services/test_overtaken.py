"""An outcome that comes while another transaction has read its job and has not yet written it.

A chord's member records its outcome without its execution's lock. Whatever else writes that job (a heartbeat, a
report, a cancel, the tick) is stopped here at its first UPDATE of jobs, until the outcome is recorded or waits for it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from desk import EPOCH, Office, Step, jobs, office_on
from sqlalchemy import event, func, select, text, update
from waiting import PATIENCE, wait_until

from app.services import again, cancel, collect, hold, presence, resolve, retention, tick
from app.store import executions as rows
from app.store import prepared
from app.store.executions import UnknownExecution
from app.store.tables import Execution, Output, table
from app.transport.life import Heartbeat, Report
from app.transport.sealing import sign_heartbeat, sign_report

pytestmark = pytest.mark.postgres

BLOCK = """
tasks:
  - name: all
    type: parallel
    on_success: z
    tasks:
      - {name: a, action: core.shell, delegate_to: web-1, input: {command: ['true']}}
      - {name: b, action: core.shell, delegate_to: web-2, input: {command: ['true']}}
  - {name: z, action: core.shell, delegate_to: web-1, input: {command: ['true']}}
"""
executions, outputs = table(Execution), table(Output)


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    with office_on("postgres", tmp_path, ["web-1", "web-2"]) as made:
        yield made


def beat(office: Office, *held: str, epoch: str = EPOCH, free: int = 8) -> None:
    said = Heartbeat(
        office.installed.id, "web-1", epoch, 7, office.clock.now, held, 8, free, ("sh",), {}, office.clock.now
    )
    presence.heartbeat(office.desk, sign_heartbeat(said, office.keys["web-1"]))


def report(office: Office, job: str, status: str) -> None:
    said = Report(office.installed.id, "web-1", EPOCH, office.clock.now, ((job, status, office.clock.now),))
    presence.report(office.desk, sign_report(said, office.keys["web-1"]))


def become(office: Office, job: str, **columns: Any) -> None:
    with office.store.write() as connection:
        connection.execute(update(jobs).where(jobs.c.id == job).values(columns))


def unknown(office: Office, job: str) -> None:
    """Its node has lost it: the task waits, the job may still take a late outcome."""
    report(office, job, "accepted")
    report(office, job, "not_known")


def suspect(office: Office, job: str) -> None:
    become(office, job, status="suspect")


def late(office: Office, job: str) -> None:
    office.clock.now += 3600


def asked_to_stop(office: Office, job: str) -> None:
    late(office, job)
    become(office, job, stop_asked_at=office.clock.now - 60, stop_sent_at=office.clock.now - 60)


def nothing(office: Office, job: str) -> None:
    """As it was handed over."""


def running(office: Office, job: str) -> None:
    report(office, job, "running")


Act = Callable[[Office, str], None]
WRITERS: dict[str, tuple[Act, Act]] = {
    "a heartbeat holds it, its report was lost": (nothing, lambda office, job: beat(office, job)),
    "a heartbeat does not list it": (running, lambda office, job: beat(office)),
    "a heartbeat has it again after it was suspect": (suspect, lambda office, job: beat(office, job)),
    "a heartbeat has it again after it was unknown": (unknown, lambda office, job: beat(office, job)),
    "a heartbeat has it sent again": (late, lambda office, job: beat(office)),
    "a heartbeat ends what is to be stopped": (asked_to_stop, lambda office, job: beat(office)),
    "a heartbeat of another journal": (running, lambda office, job: beat(office, epoch=EPOCH[::-1])),
    "accepted": (nothing, lambda office, job: report(office, job, "accepted")),
    "running": (nothing, lambda office, job: report(office, job, "running")),
    "not known and never accepted": (nothing, lambda office, job: report(office, job, "not_known")),
    "not known but accepted": (running, lambda office, job: report(office, job, "not_known")),
    "a cancel": (
        nothing,
        lambda office, job: cancel.cancel(office.control, job.split(".")[0], "ada") and None,
    ),
    "a person says that it failed": (
        unknown,
        lambda office, job: resolve.resolve(
            office.control, job.split(".")[0], "a", 0, "failed", "I looked", "ada"
        ),
    ),
    "the tick loses it": (late, lambda office, job: tick.tick(office.desk, "here") and None),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_an_outcome_is_recorded_once(office: Office, writer: str) -> None:
    before, write = WRITERS[writer]
    execution = office.submit(BLOCK)
    steps = [Step(member, 0, order) for member, order in office.sent]
    answers = [(step, office.answer(step.node, step.token, "succeeded", b"hello\n")) for step in steps]
    job = f"{execution}.a.0.1"
    before(office, job)
    with stopped_at(office, lambda: write(office, job)) as reached:
        recorded = threading.Thread(target=office.hear_of, args=answers[0])
        recorded.start()
        assert reached or writer == "a cancel"
        wait_until(lambda: not recorded.is_alive() or waits_for_a_lock(office))
    recorded.join(PATIENCE)
    row = office.job(job)
    assert row.status in {"succeeded", "failed", "cancelled", "unknown"}
    kept = count_outputs(office, job)
    assert kept == (row.status == "succeeded")

    office.hear_of(*answers[0])  # a node sends it again until control has heard it
    assert office.job(job).status == ("succeeded" if row.status == "unknown" else row.status)
    office.hear_of(*answers[1])
    collect.settle(office.desk, execution)
    assert office.job(job).settled
    assert office.execution(execution).status in {"running", "waiting", "failed", "cancelled"}


WIDE = """
tasks:
  - name: a
    action: core.shell
    delegate_to: web-1
    with_items: [1, 2]
    concurrency: 2
    input: {command: ['true']}
"""


def test_a_report_needs_no_lock_of_the_execution(office: Office) -> None:
    execution = office.submit(WIDE)
    now, job = office.clock.now, f"{execution}.a.0.1"
    told = ((job, "accepted", now), (job, "running", now + 1))
    said = Report(office.installed.id, "web-1", EPOCH, now, told)
    with office.store.write() as connection:
        rows.lock(connection, execution)
        heard = threading.Thread(
            target=presence.report, args=(office.desk, sign_report(said, office.keys["web-1"]))
        )
        heard.start()
        heard.join(PATIENCE)
        assert not heard.is_alive(), "it holds the job and waits for the execution"
    row = office.job(job)
    assert (row.status, row.accepted_at, row.started_at) == ("running", now, now + 1)


def test_a_report_of_many_jobs_waits_for_one_with_no_other_in_hand(office: Office) -> None:
    execution = office.submit(WIDE)
    first, second = (f"{execution}.a.{unit}.1" for unit in (0, 1))
    told = tuple((job, "running", office.clock.now) for job in (first, second))
    said = Report(office.installed.id, "web-1", EPOCH, office.clock.now, told)
    with office.store.write() as connection:
        rows.load_job(connection, second)
        heard = threading.Thread(
            target=presence.report, args=(office.desk, sign_report(said, office.keys["web-1"]))
        )
        heard.start()
        wait_until(lambda: waits_for_a_lock(office))
        # As who records an outcome does, whose engine then looks at the units beside it.
        rows.load_job(connection, first)
    heard.join(PATIENCE)
    assert [office.job(job).status for job in (first, second)] == ["running"] * 2


def stops(office: Office, execution: str) -> None:
    collect.send_stops(office.desk)


def suspects(office: Office, execution: str) -> None:
    office.clock.now += 60
    tick.tick(office.desk, "here")


@pytest.mark.parametrize(
    ("act", "column", "becomes"),
    [
        (
            lambda office, execution: beat(office, f"{execution}.a.0.1", f"{execution}.a.1.1"),
            "status",
            "accepted",
        ),
        (stops, "stop_sent_at", 1_800_000_000.0),
        (suspects, "status", "suspect"),
    ],
)
def test_what_comes_again_anyway_waits_for_no_job(
    office: Office, act: Act, column: str, becomes: object
) -> None:
    execution = office.submit(WIDE)
    first, second = (f"{execution}.a.{unit}.1" for unit in (0, 1))
    for job in (first, second):
        if act is suspects:
            report(office, job, "running")
        if act is stops:
            become(office, job, stop_asked_at=office.clock.now)
    with office.store.write() as connection:
        rows.load_job(connection, second)
        acting = threading.Thread(target=act, args=(office, execution))
        acting.start()
        acting.join(PATIENCE)
        assert not acting.is_alive(), "it may hold what the other needs next"
    assert getattr(office.job(first), column) == becomes
    assert getattr(office.job(second), column) != becomes


def test_a_job_that_was_heard_to_run_is_never_sent_again(office: Office) -> None:
    execution = office.submit(WIDE)
    job = f"{execution}.a.0.1"
    report(office, job, "running")
    for _ in range(2):
        report(office, job, "not_known")
    assert office.job(job).status == "unknown"


ONE = """
tasks:
  - {name: a, action: core.shell, delegate_to: web-1, input: {command: ['true']}}
"""


def test_what_was_paused_meanwhile_is_not_handed_over(office: Office) -> None:
    office.hear("web-1", last_seen=None)
    execution, other = office.submit(ONE), office.submit(ONE)
    office.hear("web-1", last_seen=office.clock.now)
    with stopped_at(office, lambda: collect.make_room(office.desk, "web-1")) as reached:
        assert reached
        # As a pause that was committed after what may run was read: one that has to read the job waits for it.
        with office.store.write() as connection:
            connection.execute(update(executions).where(executions.c.id == execution).values(intent="pause"))
    assert office.job(f"{execution}.a.0.1").status == "queued"
    assert office.job(f"{other}.a.0.1").status == "dispatched"
    assert {member.job for member, _ in office.sent} == {f"{other}.a.0.1"}
    hold.resume(office.control, execution, "ada")
    collect.settle(office.desk, execution)
    assert office.job(f"{execution}.a.0.1").status == "dispatched"


def test_what_is_tried_again_meanwhile_is_not_pruned(office: Office) -> None:
    execution = office.submit(BLOCK)
    cancel.cancel(office.control, execution, "ada", forced=True)
    for step in [Step(member, 0, order) for member, order in office.sent]:
        office.take_in(step, "cancelled")
    collect.settle(office.desk, execution)
    assert office.execution(execution).status == "cancelled"
    late(office, "")
    refused: list[BaseException] = []

    def retry() -> None:
        try:
            again.retry(office.control, execution, "ada", again.Wanted())
        except UnknownExecution as gone:
            refused.append(gone)

    with stopped_at(
        office, lambda: retention.prune(office.control, older_than=1) and None, "DELETE FROM outputs"
    ) as reached:
        asked = threading.Thread(target=retry)
        asked.start()
        wait_until(lambda: not asked.is_alive() or waits_for_a_lock(office))
    asked.join(PATIENCE)
    assert reached
    with office.store.read() as connection:
        left = connection.execute(select(func.count()).select_from(table(Execution))).scalar_one()
    assert left == (not refused)


@contextmanager
def stopped_at(office: Office, act: Callable[[], None], statement: str = "UPDATE jobs") -> Iterator[bool]:
    """Runs `act` in a thread that is held at the first statement that begins so while the block runs. Whether it came
    to one."""
    mine, held, let_go = threading.local(), threading.Event(), threading.Event()
    failures: list[BaseException] = []

    def stop(sql: str) -> None:
        if getattr(mine, "stops", False) and sql.startswith(statement) and not held.is_set():
            held.set()
            assert let_go.wait(PATIENCE)

    def run() -> None:
        mine.stops = True
        try:
            act()
        except BaseException as error:
            failures.append(error)

    def noted(connection: Any, cursor: Any, sql: str, *_: Any) -> None:
        stop(sql)

    inner = prepared.hand_over

    def hand_over(connection: Any, sql: str, *given: Any, **more: Any) -> Any:
        stop(sql)
        return inner(connection, sql, *given, **more)

    event.listen(office.store.engine, "before_cursor_execute", noted)
    prepared.hand_over = hand_over
    thread = threading.Thread(target=run)
    try:
        thread.start()
        wait_until(lambda: held.is_set() or not thread.is_alive())
        yield held.is_set()
    finally:
        let_go.set()
        thread.join(PATIENCE)
        prepared.hand_over = inner
        event.remove(office.store.engine, "before_cursor_execute", noted)
    assert not failures, failures


def waits_for_a_lock(office: Office) -> bool:
    query = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    with office.store.read() as connection:
        return bool(connection.execute(query).scalar_one())


def count_outputs(office: Office, job: str) -> int:
    with office.store.read() as connection:
        return connection.execute(select(func.count()).where(outputs.c.job == job)).scalar_one()
