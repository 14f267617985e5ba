"""People are asked for a whole execution: nothing of it leaves before they agree, and what they see is what it is."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from desk import BOTH, Office, jobs, tasks
from gate_office import WEB, gate_office, let_time_pass, same_when_replayed, sent, state
from gated import Saved, approve, execute, questions, runnable, told
from sqlalchemy import delete, select, update

from app.errors import Conflict, InvalidInput, NotAllowed
from app.services import again, cancel, collect, hold
from app.services.approvals import get
from app.services.explain import explanations
from app.store.tables import Approval, Execution, Script, Timer, table

approvals, executions, timers = table(Approval), table(Execution), table(Timer)

on_both = pytest.mark.parametrize("office", BOTH, indirect=True)


@pytest.fixture
def office(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Office]:
    with gate_office(getattr(request, "param", "sqlite"), tmp_path) as made:
        yield made


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


def test_it_is_explained_what_it_waits_for(office: Office) -> None:
    execution = execute(office.control, runnable(WEB))
    with office.store.read() as connection:
        (told_,) = explanations(connection, office.control.settings, execution, office.clock.now)
    (wait,) = told_["waits"]
    question = questions(office.control, execution)[0].id
    assert (told_["verdict"], wait["kind"], wait["approval"]) == ("waits", "person", question)
    assert any(question in line for line in told_["sentences"])
    approve(office.control, execution, verb="reject")
    with office.store.read() as connection:
        (told_,) = explanations(connection, office.control.settings, execution, office.clock.now)
    assert told_["verdict"] == "never"
    assert any("not approved: rejected by bob" in line for line in told_["sentences"])


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
    with office.store.write() as connection:
        connection.execute(update(approvals).values(subject=approvals.c.subject + " "))
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
