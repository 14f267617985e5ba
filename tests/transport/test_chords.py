"""The count of a chord's members: each once, and behind the last of them the body."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from celery.app.task import Context
from real_fleet import Broker
from waiting import PATIENCE

from app.transport import queues
from app.transport.celery_app import Muster, make_celery
from app.transport.line import Line

MONTH = 30 * 86_400


@pytest.fixture
def control(broker: Broker) -> Iterator[Muster]:
    broker.client.flushall()
    app = make_celery("control", broker_url=broker.url, backend_url=broker.url, name="control-1")
    yield app
    app.close()


def count(app: Muster, member: str, group: str | None = "g1") -> None:
    body = {
        "task": queues.SETTLE,
        "args": ["e1"],
        "options": {"queue": queues.CONTROL, "task_id": f"{group}.settle"},
    }
    request = Context(id=member, group=group, chord=body, root_id="root")
    app.backend.mark_as_done(member, None, request, store_result=False)


def sent(broker: Broker) -> list[dict[str, Any]]:
    """The messages in control's queue, oldest first."""
    return [json.loads(item) for item in reversed(broker.client.lrange(queues.CONTROL, 0, -1))]


def left(broker: Broker) -> set[bytes]:
    """What is kept of chords."""
    return set(broker.client.scan_iter("celery-taskset-meta-*"))


def test_the_body_is_sent_behind_the_last_member_and_nothing_is_kept(broker: Broker, control: Muster) -> None:
    control.backend.expect({"g1": 3})
    for member in ("a", "b", "a", "b", "b"):
        count(control, member)
    assert sent(broker) == []
    assert {0 < broker.client.ttl(key) <= MONTH for key in left(broker)} == {True}
    count(control, "c")
    (message,) = sent(broker)
    assert (message["headers"]["task"], message["headers"]["id"]) == (queues.SETTLE, "g1.settle")
    assert (message["headers"]["root_id"], message["headers"]["parent_id"]) == ("root", "c")
    assert json.loads(base64.b64decode(message["body"]))[:2] == [["e1"], {}]
    # What was posted is done before what is called next.
    control.backend.line.call([])
    assert left(broker) == set()


def test_what_comes_again_behind_the_body_sends_nothing(broker: Broker, control: Muster) -> None:
    control.backend.expect({"g1": 1})
    count(control, "a")
    count(control, "a")
    count(control, "b")
    assert len(sent(broker)) == 1


def test_chords_are_counted_apart_and_one_that_is_sent_again_from_the_start(
    broker: Broker, control: Muster
) -> None:
    control.backend.expect({"g1": 2, "g2": 1})
    count(control, "a")
    count(control, "x", "g2")
    assert [message["headers"]["id"] for message in sent(broker)] == ["g2.settle"]
    control.backend.set_chord_size("g1", 2)
    count(control, "b")
    assert len(sent(broker)) == 1
    count(control, "a")
    assert [message["headers"]["id"] for message in sent(broker)] == ["g2.settle", "g1.settle"]


def test_nothing_is_forgotten_before_the_body_is_sent(
    broker: Broker, control: Muster, caplog: pytest.LogCaptureFixture
) -> None:
    """The message of the last member comes again where its worker died, and then it sends the body."""
    control.backend.expect({"g1": 2})
    count(control, "a")
    broker.client.execute_command("ACL", "SETUSER", "default", "-lpush")
    try:
        with caplog.at_level(logging.WARNING, "app.transport.chords"):
            count(control, "b")
    finally:
        broker.client.execute_command("ACL", "SETUSER", "default", "+@all")
    assert "could not be counted" in caplog.text
    assert sent(broker) == []
    count(control, "b")
    assert len(sent(broker)) == 1


def test_without_redis_a_member_is_not_counted_and_nothing_is_raised(
    caplog: pytest.LogCaptureFixture,
) -> None:
    nowhere = "redis+socket:///nowhere/r.sock"
    app = make_celery("control", broker_url=nowhere, backend_url=nowhere, name="control-1")
    with caplog.at_level(logging.WARNING, "app.transport.chords"):
        count(app, "a")
    assert "could not be counted" in caplog.text
    app.close()


def test_all_threads_count_over_one_connection(broker: Broker, control: Muster) -> None:
    members = [f"m{number}" for number in range(20)]
    control.backend.expect({"g1": len(members)})

    def counted(member: str) -> Line:
        count(control, member)
        line: Line = control.backend.line
        return line

    with ThreadPoolExecutor(5) as threads:
        lines = {future.result(PATIENCE) for future in [threads.submit(counted, one) for one in members]}
    assert lines == {control.backend.line}
    assert len(sent(broker)) == 1
