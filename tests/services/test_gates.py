"""People are asked for a whole execution: nothing of it leaves before they agree, and then only what they agreed to."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from desk import BOTH, Office, jobs, office_on, tasks
from gated import Saved, approve, execute, questions, runnable, told
from sqlalchemy import delete, insert, select, update

from app.errors import Conflict, InvalidInput, NotAllowed
from app.services import again, approved, cancel, collect, handover, hold, secrets, tick
from app.services.approvals import get
from app.services.replay import replayed
from app.services.rotation import ensure
from app.store import executions as rows
from app.store.tables import (
    Approval,
    AuditEntry,
    Execution,
    Node,
    Script,
    SecretParameter,
    StoredPlan,
    Timer,
    User,
    table,
)
from app.transport.sealing import open_order

approvals, executions, nodes, timers = table(Approval), table(Execution), table(Node), table(Timer)
audit, plans, parameters, users = table(AuditEntry), table(StoredPlan), table(SecretParameter), table(User)

WEB = ["web-1", "web-2", "web-3"]


on_both = pytest.mark.parametrize("office", BOTH, indirect=True)


@pytest.fixture
def office(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Office]:
    with office_on(getattr(request, "param", "sqlite"), tmp_path, WEB) as made:
        for name in WEB:
            made.hear(name, shells=["bash", "sh"])
        ensure(made.control)
        people = [{"login": one, "role": "operator", "created_at": 0.0} for one in ("ada", "bob", "eve")]
        with made.store.write() as connection:
            connection.execute(insert(users), people)
        rows.forget_plans()
        yield made
        rows.forget_plans()


def state(office: Office, execution: str) -> tuple[str, str]:
    row = office.execution(execution)
    return row.status, row.gate


def sent(office: Office) -> dict[str, Any]:
    """The jobs that were sent since the last look, by node."""
    found = {}
    for member, token in office.sent:
        node = str(member.order["options"]["queue"]).removeprefix("node.")
        about = {"installation": office.installed.id, "node": node, "epoch": office_epoch(office, node)}
        order = open_order(token, office.keys[node], [office.public], now=office.clock.now, **about)
        found[node] = (order.jobs[0], order.secrets)
    office.sent.clear()
    return found


def office_epoch(office: Office, node: str) -> str:
    with office.store.read() as connection:
        return str(connection.execute(select(nodes.c.epoch).where(nodes.c.name == node)).scalar_one())


def let_time_pass(office: Office, seconds: float) -> None:
    """The tick of a moment later; the nodes are still there."""
    office.clock.now += seconds
    for name in WEB:
        office.hear(name, last_seen=office.clock.now)
    tick.tick(office.desk, "control")


def same_when_replayed(office: Office, execution: str) -> None:
    rows.forget_plans()
    with office.store.read() as connection:
        assert replayed(connection, execution).differences == ()


# what becomes of the execution


@on_both
def test_nothing_leaves_before_somebody_agrees(office: Office) -> None:
    execution = execute(office.control, runnable(WEB[:2]))
    collect.settle(office.desk, execution)
    let_time_pass(office, 5)
    assert state(office, execution) == ("waiting", "pending")
    assert office.statuses(tasks, execution) == {"script": "pending"}
    assert office.statuses(jobs, execution) == {}
    assert office.execution(execution).started_at is None
    approve(office.control, execution)
    assert state(office, execution) == ("running", "approved")
    collect.settle(office.desk, execution)
    found = sent(office)
    assert sorted(found) == ["web-1", "web-2"]
    assert {job.env["word"] for job, _ in found.values()} == {"hello"}
    assert office.execution(execution).started_at == office.clock.now
    same_when_replayed(office, execution)


ENDS: list[tuple[str, Callable[[Office, str], Any], str, str, str]] = [
    ("reject", lambda o, e: approve(o.control, e, verb="reject"), "rejected", "rejected", "rejected"),
    ("expire", lambda o, _: let_time_pass(o, 61), "rejected", "expired", "expired"),
    ("cancel", lambda o, e: cancel.cancel(o.control, e, "ada"), "cancelled", "closed", "closed"),
    ("force", lambda o, e: cancel.cancel(o.control, e, "ada", forced=True), "cancelled", "closed", "closed"),
]


@pytest.mark.parametrize(("what", "do", "status", "gate", "question"), ENDS, ids=[one[0] for one in ENDS])
@pytest.mark.parametrize("paused", [False, True])
def test_what_is_not_agreed_to_never_runs(
    office: Office,
    what: str,
    do: Callable[[Office, str], Any],
    status: str,
    gate: str,
    question: str,
    paused: bool,
) -> None:
    execution = execute(office.control, runnable(WEB, expires_in=60))
    if paused:
        assert hold.pause(office.control, execution, "ada") == "paused"
    do(office, execution)
    collect.settle(office.desk, execution)
    assert state(office, execution) == (status, gate)
    assert office.statuses(tasks, execution) == {"script": "not_reached"}
    assert questions(office.control, execution)[0].status == question
    assert not office.sent
    with office.store.read() as connection:
        assert connection.execute(select(timers)).all() == []
    with pytest.raises(Conflict, match=question) as raised:
        approve(office.control, execution)
    assert raised.value.code == "already-decided"
    same_when_replayed(office, execution)


@on_both
def test_an_expiry_may_approve(office: Office) -> None:
    execution = execute(office.control, runnable(WEB[:1], expires_in=60, on_expire="approve"))
    let_time_pass(office, 59)
    assert state(office, execution) == ("waiting", "pending")
    let_time_pass(office, 2)
    assert state(office, execution) == ("running", "approved")
    assert questions(office.control, execution)[0].status == "expired"
    assert sorted(sent(office)) == ["web-1"]


def test_a_decision_after_the_expiry_comes_too_late(office: Office) -> None:
    execution = execute(office.control, runnable(WEB, expires_in=60))
    office.clock.now += 60
    with pytest.raises(Conflict) as raised:
        approve(office.control, execution)
    assert raised.value.code == "approval-expired"


def test_a_decision_in_a_pause_holds_the_start(office: Office) -> None:
    execution = execute(office.control, runnable(WEB[:1]))
    assert hold.pause(office.control, execution, "ada") == "paused"
    approve(office.control, execution)
    collect.settle(office.desk, execution)
    assert state(office, execution) == ("paused", "approved")
    assert not office.sent
    assert hold.resume(office.control, execution, "ada") == "running"
    collect.settle(office.desk, execution)
    assert sorted(sent(office)) == ["web-1"]


def test_a_resume_does_not_open_the_gate(office: Office) -> None:
    execution = execute(office.control, runnable(WEB[:1]))
    hold.pause(office.control, execution, "ada")
    assert hold.resume(office.control, execution, "ada") == "waiting"
    collect.settle(office.desk, execution)
    assert state(office, execution) == ("waiting", "pending")
    assert not office.sent


# a retry


def failed(office: Office, *nodes_: str) -> str:
    """An execution on all nodes that was approved, and failed on some."""
    execution = execute(office.control, runnable(WEB))
    approve(office.control, execution)
    collect.settle(office.desk, execution)
    for member, token in list(office.sent):
        node = str(member.order["options"]["queue"]).removeprefix("node.")
        office.take_in((member, token), "failed" if node in nodes_ else "succeeded")
    collect.settle(office.desk, execution)
    office.sent.clear()
    assert office.execution(execution).status == "failed"
    return execution


def test_a_retry_asks_anew_and_then_runs_what_failed(office: Office) -> None:
    execution = failed(office, "web-2")
    assert again.retry(office.control, execution, "ada", again.Wanted()) == "waiting"
    let_time_pass(office, 5)
    assert state(office, execution) == ("waiting", "pending")
    assert not office.sent
    assert [row.status for row in questions(office.control, execution)] == ["approved", "pending"]
    approve(office.control, execution)
    collect.settle(office.desk, execution)
    found = sent(office)
    assert {node: job.attempt for node, (job, _) in found.items()} == {"web-2": 2}
    same_when_replayed(office, execution)


@on_both
def test_a_retry_that_is_rejected_leaves_what_failed_to_another(office: Office) -> None:
    execution = failed(office, "web-2")
    again.retry(office.control, execution, "ada", again.Wanted())
    approve(office.control, execution, verb="reject")
    collect.settle(office.desk, execution)
    assert state(office, execution) == ("rejected", "rejected")
    assert office.execution(execution).error_message == "rejected by bob"
    assert not office.sent
    again.retry(office.control, execution, "ada", again.Wanted())
    approve(office.control, execution)
    collect.settle(office.desk, execution)
    assert {node: job.attempt for node, (job, _) in sent(office).items()} == {"web-2": 3}
    same_when_replayed(office, execution)


@pytest.mark.parametrize("end", ["reject", "cancel"])
def test_what_never_began_may_be_asked_for_again(office: Office, end: str) -> None:
    execution = execute(office.control, runnable(WEB[:1]))
    if end == "cancel":
        cancel.cancel(office.control, execution, "ada")
    else:
        approve(office.control, execution, verb="reject")
    assert again.retry(office.control, execution, "ada", again.Wanted()) == "waiting"
    approve(office.control, execution)
    collect.settle(office.desk, execution)
    assert sorted(sent(office)) == ["web-1"]
    same_when_replayed(office, execution)


def test_neither_who_submitted_nor_who_retries_may_approve(office: Office) -> None:
    execution = failed(office, "web-1")
    again.retry(office.control, execution, "eve", again.Wanted())
    for person in ("ada", "eve"):
        with pytest.raises(NotAllowed) as raised:
            approve(office.control, execution, person)
        assert raised.value.code == "own-request"
    approve(office.control, execution, "bob")


def test_attempts_by_retry_of_the_task_need_no_other_word(office: Office) -> None:
    execution = execute(office.control, runnable(WEB[:1], retry=1))
    approve(office.control, execution)
    collect.settle(office.desk, execution)
    office.take_in(office.sent.pop(), "failed")
    let_time_pass(office, 1)
    assert {job.attempt for job, _ in sent(office).values()} == {2}


# what was approved, and what is signed


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


def test_an_order_that_was_sent_is_looked_at_again_before_it_is_sent_again(office: Office) -> None:
    execution = execute(office.control, runnable(WEB[:1]))
    approve(office.control, execution)
    collect.settle(office.desk, execution)
    assert sorted(sent(office)) == ["web-1"]
    edit_input(script="reboot")(office, execution)
    parcel = handover.Parcel()
    with office.store.write() as connection:
        sent_again = handover.resend(office.control, connection, f"{execution}.script.0.1", parcel)
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


# the script that was asked for


def change_script(office: Office, saved: Saved) -> None:
    saved.edit("reboot\n")


def delete_script(office: Office, saved: Saved) -> None:
    with office.store.write() as connection:
        connection.execute(delete(Script))


@on_both
@pytest.mark.parametrize(("do", "why"), [(change_script, "2 is the newest"), (delete_script, "was deleted")])
def test_a_script_that_is_not_the_one_asked_for_is_not_approved(
    office: Office, do: Callable[[Office, Saved], None], why: str
) -> None:
    saved = Saved.save(office.control)
    execution = execute(office.control, runnable(WEB[:1], saved=saved))
    do(office, saved)
    with pytest.raises(Conflict, match=why) as raised:
        approve(office.control, execution)
    assert raised.value.code == "subject-changed"
    assert state(office, execution) == ("waiting", "pending")
    assert approve(office.control, execution, verb="reject")["status"] == "rejected"


def test_an_older_version_may_be_approved_whatever_came_since(office: Office) -> None:
    saved = Saved.save(office.control)
    first = runnable(WEB[:1], saved=saved)
    saved.edit("echo two\n")
    execution = execute(office.control, first)
    saved.edit("echo three\n")
    approve(office.control, execution)
    collect.settle(office.desk, execution)
    assert {job.script for job, _ in sent(office).values()} == {'echo "$word"\n'}


# what is shown and told


@on_both
def test_what_would_run_where_is_shown(office: Office) -> None:
    saved = Saved.save(office.control)
    execution = execute(office.control, runnable(WEB[:2], saved=saved), token="own-value")
    with office.store.read() as connection:
        about = get(connection, questions(office.control, execution)[0].id)["about"]
    (run,) = about["runs"]
    assert (run["nodes"], run["shell"], run["timeout"], run["body"]) == (WEB[:2], "bash", 60.0, saved.body)
    assert about["parameters"] == {"word": "hello", "token": "secretref:parameter:token"}
    assert (about["script"]["version"], about["requester"], about["is_genuine"]) == (1, "ada", True)
    edit_subject(office, execution)
    with office.store.read() as connection:
        assert get(connection, questions(office.control, execution)[0].id)["about"] == {"is_genuine": False}


@on_both
def test_people_are_told_and_no_secret_is_in_it(office: Office) -> None:
    first = execute(office.control, runnable(WEB[:1], expires_in=60), token="own-value")
    second = execute(office.control, runnable(WEB[:1]))
    approve(office.control, second)
    let_time_pass(office, 61)
    asked = [questions(office.control, one)[0].id for one in (first, second)]
    found = told(office.control)
    assert sorted((kind, subject) for kind, subject, _ in found) == [
        *(("approval.asked", one) for one in sorted(asked)),
        ("approval.decided", asked[1]),
        ("approval.expired", asked[0]),
    ]
    assert "own-value" not in json.dumps([data for *_, data in found])
    assert [data["people"] for kind, _, data in found if kind == "approval.decided"] == [["bob"]]


def test_what_nobody_can_know_beforehand_is_not_asked(office: Office) -> None:
    found = runnable(WEB[:1])
    hostile = found.plan.tasks["script"]
    object.__setattr__(hostile, "var_refs", ("seen",))
    with pytest.raises(InvalidInput) as raised:
        execute(office.control, found)
    assert raised.value.code == "gate-not-fixed"
    with office.store.read() as connection:
        assert connection.execute(select(executions.c.id)).all() == []
