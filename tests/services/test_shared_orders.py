"""Jobs that share an order: what is sent, and what comes of their outcomes in whatever way they come in."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from desk import ALWAYS_BOTH, Office, jobs, office_on, tasks
from sqlalchemy import select, update

from app.services import cancel as cancelling
from app.services import collect, hold, room, tick
from app.services.handover import Parcel
from app.services.replay import replayed
from app.store.tables import DeadLetter, table
from app.transport.messages import Outcome
from app.transport.sealing import Signer as NodeSigner
from app.transport.sealing import open_outcome, seal_outcome

LINE = """
delegate_to: web-1
tasks:
  - {name: a, action: core.shell, input: {command: ['true']}, on_success: b, on_failure: sorry}
  - {name: b, action: core.shell, input: {command: ['true']}, on_success: c, on_failure: sorry}
  - {name: c, action: core.shell, input: {command: ['true']}, on_success: d}
  - {name: d, action: core.shell, delegate_to: web-2, input: {command: ['true']}}
  - {name: sorry, action: core.noop}
"""
BLOCK = """
tasks:
  - name: all
    type: parallel
    on_success: after
    tasks:
      - {name: a, action: core.shell, delegate_to: web-1, input: {command: ['true']}}
      - {name: b, action: core.shell, delegate_to: web-2, input: {command: ['true']}}
      - {name: c, action: core.shell, delegate_to: web-1, input: {command: ['true']}}
      - {name: d, action: core.shell, delegate_to: web-2, input: {command: ['true']}}
      - {name: e, action: core.shell, delegate_to: web-1, input: {command: ['true']}}
  - {name: after, action: core.noop}
"""
LOOP = """
tasks:
  - {name: each, action: core.shell, delegate_to: web-1, with_items: [1, 2, 3], input: {command: ['true']}}
"""
ALONG = yaml.safe_load((Path(__file__).parents[1] / "cases" / "canvas" / "along.yaml").read_text("utf-8"))
WAYS = {
    "together": ["abc"],
    "one by one": ["a", "b", "c"],
    "the last alone": ["ab", "c"],
    "backwards": ["c", "b", "a"],
    "the end first": ["bc", "a"],
    "all that was said so far, each time": ["a", "ab", "abc"],
    "everything three times": ["ab", "c", "ab", "c", "ab", "c"],
    "backwards and twice": ["c", "bc", "abc", "c", "bc"],
}


@pytest.fixture(params=ALWAYS_BOTH)
def office(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Office]:
    with office_on(request.param, tmp_path, ["web-1", "web-2"]) as made:
        yield made


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Office]:
    with office_on("sqlite", tmp_path, ["web-1", "web-2"]) as made:
        yield made


def names(office: Office, place: int = 0) -> list[str]:
    """The tasks of an order that left."""
    member, token = office.sent[place]
    node = str(member.order["options"]["queue"]).removeprefix("node.")
    return [job.task for job in office.order(node, token).jobs]


def letters(office: Office) -> list[str]:
    dead = table(DeadLetter)
    with office.store.read() as connection:
        return list(connection.execute(select(dead.c.reason).order_by(dead.c.id)).scalars())


def said(office: Office) -> list[tuple[str, tuple[str, ...]]]:
    """What nodes were told about jobs: kind, and the tasks' names."""
    orders = [office.order(node, token) for node, token in office.told]
    return [(order.kind, tuple(job.split(".")[1] for job in order.job_ids)) for order in orders]


def come_in(office: Office, messages: list[list[str]], last: str) -> list[str]:
    """All of them, and again what was too early; `last` comes with the canvas of the first order. Returns the orders
    that the chain went on with."""
    queue, went_on, left = deque(messages), [], 100
    while queue and left:
        left -= 1
        message = queue.popleft()
        collected = office.take_in_all(message, office.sent[0] if message[-1] == last else None)
        if collected.order:
            went_on.append(collected.order)
        if collected.early:
            queue.append(collected.early)
    assert left, "it is always too early"
    return went_on


def differences(office: Office, execution: str) -> list[object]:
    """Where the rows are not what the events say."""
    with office.store.read() as connection:
        return list(replayed(connection, execution).differences)


def test_a_line_on_one_node_is_one_order(here: Office) -> None:
    execution = here.submit(LINE)
    assert [names(here, place) for place in range(len(here.sent))] == [["a", "b", "c"]]
    # What is not reached is not there: only the order knows of it.
    assert here.statuses(jobs, execution) == {"a.0": "dispatched"}
    assert [link["options"]["task_id"].split(".")[1] for link in here.sent[0][0].rest] == ["a", "d", "d"]


@pytest.mark.parametrize("way", WAYS)
def test_it_is_all_the_same_how_the_outcomes_come(office: Office, way: str) -> None:
    execution = office.submit(LINE)
    by_name = dict(zip("abc", office.go_through(office.sent[0], *["succeeded"] * 3), strict=True))
    messages = [[by_name[name] for name in message] for message in WAYS[way]]
    (order,) = come_in(office, messages, by_name["c"])
    assert [job.task for job in office.order("web-2", order).jobs] == ["d"]
    assert office.statuses(jobs, execution) == {
        "a.0": "succeeded",
        "b.0": "succeeded",
        "c.0": "succeeded",
        "d.0": "dispatched",
    }
    assert (letters(office), office.told, len(office.sent)) == ([], [], 1)
    assert differences(office, execution) == []
    born = office.job(f"{execution}.b.0.1")
    assert (born.settled, born.node, born.exit_code) == (True, "web-1", 0)
    assert "" not in (born.digest, born.epoch)


def test_many_outcomes_cost_little_more_than_one(here: Office) -> None:
    here.submit(LINE)
    answers = here.go_through(here.sent[0], "succeeded", "succeeded")
    with here.statements() as counted:
        here.take_in_all(answers)
    assert counted == {
        "SELECT jobs": 1,
        "UPDATE jobs SET": 1,
        "SELECT tasks": 2,
        "UPDATE tasks SET": 4,
        "INSERT INTO jobs": 1,
        "INSERT INTO events": 1,
        "UPDATE executions SET": 1,
    }


def test_what_follows_a_failure_was_never_begun(here: Office) -> None:
    execution = here.submit(LINE)
    here.take_in_all(here.go_through(here.sent[0], "succeeded", "failed"))
    assert here.statuses(jobs, execution) == {"a.0": "succeeded", "b.0": "failed"}
    assert here.statuses(tasks, execution)["sorry"] == "succeeded"
    assert here.execution(execution).status == "completed"


def test_a_node_that_knows_one_job_of_an_order_only(here: Office) -> None:
    """It takes the first and sends the canvas of the whole order back with it: the next is sent as if it were alone."""
    execution = here.submit(LINE)
    (first,) = here.sent
    here.take_in_all([here.answer("web-1", first[1], "succeeded")], first)
    assert letters(here) == []
    assert names(here, 1) == ["b", "c"]
    assert here.statuses(jobs, execution) == {"a.0": "succeeded", "b.0": "dispatched"}


def test_a_pause_meets_what_has_begun(here: Office) -> None:
    """What its node began before it heard of the pause runs to its end; then nothing more does."""
    execution = here.submit(LINE)
    hold.pause(here.control, execution, "ada")
    collect.settle(here.desk, execution)
    assert said(here) == [("hold", ("a",))]
    a, b = here.go_through(here.sent[0], "succeeded", "succeeded")
    here.take_in_all([a])
    assert here.statuses(jobs, execution) == {"a.0": "succeeded", "b.0": "running"}
    assert here.execution(execution).status == "pausing"
    assert said(here)[1:] == [("hold", ("b",))]
    stopped = rewritten(here, b, then="")
    here.take_in_all([stopped])
    assert here.statuses(tasks, execution)["c"] == "pending"
    assert here.execution(execution).status == "paused"
    hold.resume(here.control, execution, "ada")
    collect.settle(here.desk, execution)
    assert names(here, 1) == ["c"]
    assert differences(here, execution) == []


def test_a_cancel_stops_what_has_begun(here: Office) -> None:
    execution = here.submit(LINE)
    cancelling.cancel(here.control, execution, "ada")
    collect.settle(here.desk, execution)
    a, b = here.go_through(here.sent[0], "succeeded", "cancelled")
    answer = here.take_in_all([a])
    assert answer.settle == {execution}
    assert here.statuses(tasks, execution)["b"] == "running"
    collect.settle(here.desk, execution)
    assert said(here) == [("cancel", ("a",)), ("cancel", ("b",))]
    here.take_in_all([b])
    assert here.statuses(tasks, execution) == {
        "a": "succeeded",
        "b": "cancelled",
        "c": "not_reached",
        "d": "not_reached",
        "sorry": "not_reached",
    }
    assert here.execution(execution).status == "cancelled"
    assert differences(here, execution) == []


def test_what_follows_a_job_that_was_given_up_is_stopped_and_told_of(here: Office) -> None:
    """Its timeout was over and nobody had heard of it: the execution is over, and its node goes on."""
    execution = here.submit(LINE.replace(", on_failure: sorry", ""))
    with here.store.write() as connection:
        connection.execute(update(jobs).values(status="running", backstop_at=here.clock.now))
    tick.tick(here.desk, "here")
    assert here.execution(execution).status == "failed"
    a, b = here.go_through(here.sent[0], "succeeded", "succeeded")
    here.take_in_all([a])
    assert said(here) == [("cancel", ("b",))]
    assert here.take_in_all([b]).early == []
    assert letters(here) == ["ran-ahead"]
    assert here.statuses(jobs, execution) == {"a.0": "timed_out"}


def test_what_nobody_told_a_node_is_not_believed(here: Office) -> None:
    execution = here.submit(LINE)
    a, b = here.go_through(here.sent[0], "succeeded", "succeeded")
    here.take_in_all([rewritten(here, a, then=f"{execution}.d.0.1")])
    # It says that it went on with something else: what follows is handed over as ever.
    assert here.statuses(jobs, execution) == {"a.0": "succeeded", "b.0": "dispatched"}
    assert names(here, 1) == ["b", "c"]
    made_up = rewritten(here, b, job=f"{execution}.x.0.1", after=f"{execution}.a.0.1")
    here.take_in_all([made_up])
    assert letters(here) == ["no-such-job"]


def test_what_is_sent_again_may_still_be_what_came_first(here: Office) -> None:
    execution = here.submit(LINE)
    answers = here.go_through(here.sent[0], "succeeded", "succeeded", "succeeded")
    with here.store.write() as connection:
        room.resend(here.control, connection, f"{execution}.a.0.1", Parcel())
    assert len(come_in(here, [answers], answers[2])) == 1
    assert here.statuses(jobs, execution)["d.0"] == "dispatched"
    assert letters(here) == []


def test_a_job_that_finds_room_later_takes_its_line_along(here: Office) -> None:
    here.hear("web-1", slots=0)
    here.submit(LINE)
    assert here.sent == []
    here.hear("web-1", slots=1)
    collect.make_room(here.desk, "web-1")
    assert names(here) == ["a", "b", "c"]


@pytest.mark.parametrize("name", ALONG["cases"])
def test_what_may_go_along(here: Office, name: str) -> None:
    case, text = ALONG["cases"][name], yaml.safe_load(ALONG["base"])
    next(task for task in text["tasks"] if task["name"] == case.get("of", "a")).update(case.get("with", {}))
    here.submit(yaml.safe_dump(text, sort_keys=False))
    assert names(here) == case["order"]


def test_what_runs_again_goes_alone(here: Office) -> None:
    """Its number is not known beforehand."""
    execution = here.submit(
        LINE.replace(
            "command: ['true']}, on_success: b",
            "command: ['true']}, retry: {count: 1, delay: 0}, on_success: b",
        )
    )
    here.take_in_all(here.go_through(here.sent[0], "failed"))
    assert names(here, 1) == ["a"]
    assert here.job(f"{execution}.a.0.2").along is None


@pytest.mark.parametrize("way", ["ace bd", "a c e b d", "ce a bd", "bd ace", "e d c b a", "ace bd ace bd"])
def test_members_of_a_block_share_the_order_of_their_node(office: Office, way: str) -> None:
    execution = office.submit(BLOCK)
    assert [names(office, place) for place in range(2)] == [["a", "c", "e"], ["b", "d"]]
    assert [
        office.order(node, sent[1]).at_once
        for node, sent in zip(("web-1", "web-2"), office.sent, strict=True)
    ] == [True, True]
    assert {member.body for member, _ in office.sent} == {None}
    assert set(office.statuses(jobs, execution).values()) == {"dispatched"}
    sent = {"a": (0, 0), "c": (0, 1), "e": (0, 2), "b": (1, 0), "d": (1, 1)}
    for message in way.split():
        order = office.sent[sent[message[0]][0]]
        node = "web-1" if message[0] in "ace" else "web-2"
        answers = [office.answer(node, order[1], "succeeded", nth=sent[name][1]) for name in message]
        office.take_in_all(answers, order if message[-1] in "ed" else None)
    assert office.execution(execution).status == "completed"
    assert letters(office) == []
    assert differences(office, execution) == []


def test_one_node_alone_needs_no_chord(here: Office) -> None:
    execution = here.submit(LOOP)
    assert names(here) == ["each", "each", "each"]
    assert here.sent[0][0].body is None
    order = here.sent[0]
    answers = [
        here.answer("web-1", order[1], status, nth=nth)
        for nth, status in enumerate(["succeeded", "failed", "succeeded"])
    ]
    here.take_in_all(answers, order)
    assert here.execution(execution).status == "failed"
    assert here.statuses(jobs, execution) == {
        "each.0": "succeeded",
        "each.1": "failed",
        "each.2": "succeeded",
    }


def rewritten(office: Office, answer: str, **fields: Any) -> str:
    """Another outcome that the node signs."""
    keys = office.keys["web-1"]
    known = NodeSigner("web-1", None, keys.public_keys)
    outcome: Outcome = open_outcome(answer, office.desk.signer.keys, lambda kid: known)
    return seal_outcome(replace(outcome, **fields), keys, office.public)
