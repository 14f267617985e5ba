"""Flows and what is wrong with a host, with the database, or here: it is known of each flow what became of it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from desk import tasks
from sqlalchemy.exc import DataError, OperationalError
from waiting import PATIENCE, wait_until

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "flows"))

from yard import Yard, carried, opened

from app.flows.model import Flow, Result, Terms, Watch
from app.flows.remote import RemoteExecutor
from app.services import answers, flows
from app.services.answers import Answer
from app.services.cancel import cancel
from app.services.control import Control


@pytest.fixture
def yard(sshd_program: str, tmp_path: Path) -> Iterator[Yard]:
    with opened(tmp_path) as found:
        yield found


def test_what_a_host_says_of_a_failure_is_held_to_its_form(yard: Yard) -> None:
    """A type that is no text would be met by whatever asks for it, for ever."""
    odd = {"status": "failed", "error": {"type": [], "message": {"a": 1}, "code": 7, "much": {"b": []}}}
    long = {"status": "failed", "error": {"type": "x" * 5000, "message": "y" * 5000}}
    deep: Any = 1
    for _ in range(190):
        deep = [deep]
    execution = yard.submit(
        "retry: {count: 1}", a={"as": odd}, b={"as": long}, c={"as": {"status": "succeeded", "result": deep}}
    )
    yard.exchange.make()
    found = yard.jobs(execution)
    said = {"type": "remote", "message": "a ended as failed", "code": 7, "host": yard.site.hosts[0]}
    assert found["a2"].error == said
    assert (len(found["b2"].error["type"]), len(found["b2"].error["message"])) == (100, 2000)
    assert (found["c1"].status, found["c1"].result) == ("succeeded", deep), "as deep as on a node"
    assert yard.exchange.office.statuses(tasks, execution)["many"] == "failed"


@pytest.mark.parametrize("value", ["1e999", "[" * 250 + "]" * 250, '"\\ud800"'])
def test_a_value_that_cannot_be_kept_is_no_result(yard: Yard, value: str) -> None:
    written = f'{{"task": {{"a": {{"status": "succeeded", "result": {value}}}}}}}'
    execution = yard.submit(a={"write": written})
    yard.exchange.make()
    found = yard.jobs(execution)
    assert (found["a1"].status, found["a1"].error["type"]) == ("failed", "bad_result")
    assert "task.a.result" in found["a1"].error["message"]
    assert found["b1"].status == "succeeded"


def test_a_fault_here_fails_what_is_still_open(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    def execute(_: RemoteExecutor, wanted: Sequence[Flow], terms: Terms, watch: Watch) -> list[Result]:
        watch.tell(wanted[0], Result({"task": {"a": {"status": "succeeded", "result": 1}}}))
        raise LookupError("odd")

    monkeypatch.setattr(RemoteExecutor, "execute", execute)
    execution = yard.submit()
    yard.exchange.make()
    found = yard.jobs(execution)
    assert (found["a1"].status, found["b1"].status, found["c1"].status) == ("succeeded", "failed", "failed")
    assert found["b1"].error["type"] == "internal"
    assert "LookupError('odd')" in found["b1"].error["message"]


def test_a_database_that_fails_for_a_while_loses_nothing(
    yard: Yard, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(flows, "_LOOK", 0.05)
    refused: list[str] = []

    def record(control: Control, execution: str, job: str, answer: Answer) -> None:
        if refused.count(job) < 2:
            refused.append(job)
            raise OperationalError("update", {}, OSError("gone"))
        answers.record(control, execution, job, answer)

    monkeypatch.setattr(flows, "record", record)
    execution = yard.submit()
    yard.exchange.make()
    assert {row.status for row in yard.jobs(execution).values()} == {"succeeded"}
    assert len(refused) == 6
    assert "gone" in caplog.text


def test_what_a_database_never_takes_is_no_result(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flows, "_LOOK", 0.01)
    monkeypatch.setattr(flows, "_TRIES", 2)

    def record(control: Control, execution: str, job: str, answer: Answer) -> None:
        if answer.error is None:
            raise DataError("update", {}, ValueError("odd"))
        answers.record(control, execution, job, answer)

    monkeypatch.setattr(flows, "record", record)
    execution = yard.submit()
    yard.exchange.make()
    assert {row.error["type"] for row in yard.jobs(execution).values()} == {"bad_result"}


def test_a_database_that_fails_for_a_while_does_not_keep_a_cancel_from_flows(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flows, "_LOOK", 0.05)
    looked: list[float] = []
    really = flows._look_after

    def look_after(*args: Any) -> float:
        looked.append(args[-1])
        if len(looked) == 1:
            raise OperationalError("select", {}, OSError("gone"))
        return really(*args)

    monkeypatch.setattr(flows, "_look_after", look_after)
    execution = yard.submit(a={"sleep": 100}, b={"sleep": 100}, c={"sleep": 100})
    thread = carried(yard)
    wait_until(lambda: looked)
    cancel(yard.exchange.office.control, execution, "ada")
    thread.join(PATIENCE)
    assert not yard.site.running()
    assert {row.status for row in yard.jobs(execution).values()} == {"cancelled"}
