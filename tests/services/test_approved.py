"""What was approved is what is signed: a writer in the database changes nothing that runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from desk import BOTH, Office, jobs, tasks
from gate_office import WEB, gate_office, sent
from gated import approve, execute, questions, runnable
from sqlalchemy import select, update

from app.services import approved, collect, handover, hold, room, secrets
from app.store import executions as rows
from app.store.tables import Approval, AuditEntry, Execution, SecretParameter, StoredPlan, table

approvals, executions = table(Approval), table(Execution)
audit, plans, parameters = table(AuditEntry), table(StoredPlan), table(SecretParameter)

on_both = pytest.mark.parametrize("office", BOTH, indirect=True)


@pytest.fixture
def office(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Office]:
    with gate_office(getattr(request, "param", "sqlite"), tmp_path) as made:
        yield made


def change(of: Any, where: Any, **columns: Any) -> Callable[[Office, str], None]:
    def do(office: Office, execution: str) -> None:
        with office.store.write() as connection:
            connection.execute(update(of).where(where(execution)).values(**columns))

    return do


def edit_input(env: dict[str, str] | None = None, **given: Any) -> Callable[[Office, str], None]:
    """The rendered input of the task, after its jobs were born."""

    def do(office: Office, execution: str) -> None:
        with office.store.write() as connection:
            mine = tasks.c.execution == execution
            known = connection.execute(select(tasks.c.input).where(mine)).scalar_one()
            changed = {**known, "env": {**known["env"], **(env or {})}, **given}
            connection.execute(update(tasks).where(mine).values(input=changed))

    return do


def edit_plan(office: Office, execution: str) -> None:
    """The plan itself, under the digest that it had."""
    with office.store.write() as connection:
        digest = connection.execute(select(executions.c.plan_digest)).scalar_one()
        body = connection.execute(select(plans.c.body).where(plans.c.digest == digest)).scalar_one()
        body = body.replace(json.dumps('echo "$word"\n')[1:-1], "reboot")
        assert "reboot" in body
        connection.execute(update(plans).where(plans.c.digest == digest).values(body=body))
    rows.forget_plans()


def edit_subject(office: Office, execution: str) -> None:
    """The text of the approval, so that it holds what the attacker wants."""
    with office.store.write() as connection:
        text = connection.execute(select(approvals.c.subject)).scalar_one()
        connection.execute(update(approvals).values(subject=text.replace("web-1", "web-3")))
        connection.execute(update(jobs).values(node="web-3"))


_mine = {
    name: (lambda e, c=of: c == e) for name, of in (("job", jobs.c.execution), ("task", tasks.c.execution))
}

BEFORE: dict[str, Callable[[Office, str], None]] = {
    "parameters": change(
        executions, lambda e: executions.c.id == e, parameters={"word": "; reboot", "token": None}
    ),
    "plan": edit_plan,
}
"""Changed after the approval and before the task begins."""

AFTER: dict[str, Callable[[Office, str], None]] = {
    "script": edit_input(script="reboot"),
    "shell": edit_input(shell="sh"),
    "value": edit_input(env={"word": "; reboot"}),
    "variable": edit_input(env={"LD_PRELOAD": "/tmp/x.so"}),
    "command": edit_input(command=["reboot"]),
    "standard input": edit_input(stdin="reboot"),
    "directory": edit_input(cwd="/root"),
    "timeout": change(tasks, _mine["task"], timeout=3600.0),
    "good exit codes": edit_input(ok_codes=[0, 1]),
    "node": change(jobs, _mine["job"], node="web-3"),
    "taken back": change(approvals, lambda e: approvals.c.execution == e, status="rejected"),
    "expired": change(approvals, lambda e: approvals.c.execution == e, status="expired"),
    "digest": change(approvals, lambda e: approvals.c.execution == e, digest="0" * 64),
    "text": edit_subject,
}
"""Changed when the job is there and waits."""


def held_back(office: Office, **parameters: Any) -> str:
    """An approved execution whose one job waits for its node."""
    office.hear("web-1", last_seen=None)
    execution = execute(office.control, runnable(WEB[:1]), **parameters)
    approve(office.control, execution)
    assert office.statuses(jobs, execution) == {"script.0": "queued"}
    return execution


def refused(office: Office, execution: str) -> str:
    """That the job failed and nothing was sent; the message."""
    assert not office.sent
    row = office.job(f"{execution}.script.0.1")
    assert (row.status, row.error["type"]) == ("failed", "not_approved"), row.error
    with office.store.read() as connection:
        query = select(audit.c.outcome, audit.c.detail).where(audit.c.subject == row.id)
        told_ = [tuple(one) for one in connection.execute(query)]
    assert [(outcome, detail["code"]) for outcome, detail in told_] == [("refused", "not-approved")]
    return str(row.error["message"])


@pytest.mark.parametrize("path", ["settle", "promote"])
@pytest.mark.parametrize("what", [*BEFORE, *AFTER])
def test_what_is_changed_behind_the_approval_does_not_run(office: Office, what: str, path: str) -> None:
    approved._SUBJECTS.clear()
    office.hear("web-1", last_seen=None)
    execution = execute(office.control, runnable(WEB[:1]))
    if what in BEFORE:
        hold.pause(office.control, execution, "ada")
    approve(office.control, execution)
    (BEFORE.get(what) or AFTER[what])(office, execution)
    if what in BEFORE:
        hold.resume(office.control, execution, "ada")
    for name in WEB:
        office.hear(name, last_seen=office.clock.now)
    if path == "promote":
        for name in WEB:
            collect.make_room(office.desk, name)
    collect.settle(office.desk, execution)
    assert refused(office, execution)


@on_both
def test_what_is_not_changed_runs(office: Office) -> None:
    """The way of the test above, and nobody touches anything."""
    execution = held_back(office)
    office.hear("web-1", last_seen=office.clock.now)
    collect.make_room(office.desk, "web-1")
    assert sorted(sent(office)) == ["web-1"]
    assert office.statuses(jobs, execution) == {"script.0": "dispatched"}


def test_settings_that_differ_between_processes_are_no_change(office: Office) -> None:
    execution = held_back(office)
    settings = replace(office.control.settings, grace=3.0, output_limit=5000)
    desk = replace(office.desk, control=replace(office.control, settings=settings))
    office.hear("web-1", last_seen=office.clock.now)
    collect.settle(desk, execution)
    ((job, _),) = sent(office).values()
    assert (job.grace, job.output_limit) == (3.0, 5000)


def test_an_order_that_was_sent_is_looked_at_again_before_it_is_sent_again(office: Office) -> None:
    execution = execute(office.control, runnable(WEB[:1]))
    approve(office.control, execution)
    collect.settle(office.desk, execution)
    assert sorted(sent(office)) == ["web-1"]
    edit_input(script="reboot")(office, execution)
    parcel = handover.Parcel()
    with office.store.write() as connection:
        sent_again = room.resend(office.control, connection, f"{execution}.script.0.1", parcel)
    assert (sent_again, parcel.members) == (False, [])


def test_the_word_on_one_execution_is_no_word_on_another(office: Office) -> None:
    """Nor does it help to say that no word is needed: the plan says that it is."""
    good, other = (execute(office.control, runnable(WEB[:1])) for _ in range(2))
    approve(office.control, good)
    text = questions(office.control, good)[0]
    with office.store.write() as connection:
        mine = approvals.c.execution == other
        columns = {"subject": text.subject, "digest": text.digest, "status": "approved"}
        connection.execute(update(approvals).where(mine).values(**columns))
        connection.execute(update(executions).where(executions.c.id == other).values(gate=""))
    office.sent.clear()
    hold.pause(office.control, other, "eve")
    hold.resume(office.control, other, "eve")
    collect.settle(office.desk, other)
    assert "another execution" in refused(office, other)


@on_both
def test_a_secret_is_approved_by_name_and_version(office: Office) -> None:
    secrets.put(office.control, "db", "first", [], "ada")
    secrets.put(office.control, "root", "other", [], "ada")
    execution = held_back(office, token="own-value")
    row = questions(office.control, execution)[0]
    assert "own-value" not in row.subject
    with office.store.write() as connection:
        connection.execute(update(parameters).values(secret="root"))
    office.hear("web-1", last_seen=office.clock.now)
    collect.settle(office.desk, execution)
    assert "secretref:parameter:token" in refused(office, execution)


def test_a_secret_that_is_its_own_reaches_the_script(office: Office) -> None:
    execution = execute(office.control, runnable(WEB[:1]), token="own-value")
    approve(office.control, execution)
    collect.settle(office.desk, execution)
    ((job, values),) = sent(office).values()
    assert values == {"parameter:token": "own-value"}
    assert "own-value" not in json.dumps(job.to_json())


def test_labels_are_resolved_as_it_is_asked(office: Office) -> None:
    for name in WEB[:2]:
        office.hear(name, labels={"tier": "web"})
    execution = execute(office.control, runnable({"labels": {"tier": "web"}}))
    office.hear("web-3", labels={"tier": "web"})
    # What is submitted reads the nodes anew.
    execute(office.control, runnable(WEB[:1]))
    approve(office.control, execution)
    collect.settle(office.desk, execution)
    assert sorted(sent(office)) == ["web-1", "web-2"]
    assert office.job(f"{execution}.script.2.1").error["type"] == "not_approved"
