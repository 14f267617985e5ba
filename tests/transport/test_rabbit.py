"""RabbitMQ as the broker: what is sent is taken or told, and no message ends a worker."""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import amqp
import pytest
from amqp.exceptions import NotFound
from rabbit import Rabbit
from real_fleet import Broker, Workers
from real_messages import notes
from waiting import PATIENCE, wait_until

from app.transport import confirmed, queues
from app.transport.celery_app import Muster, make_celery
from app.transport.confirmed import NotTaken
from app.transport.gate import canvas_digest
from app.transport.wire import Message


def note(queue: str, number: int = 0) -> Message:
    return Message.nudge(queue, queues.SETTLE, f"e{number}")


@pytest.fixture
def app(rabbit: Rabbit) -> Iterator[Muster]:
    made = make_celery("control", broker_url=rabbit.url, name="c1")
    yield made
    made.close()
    rabbit.wipe()


def test_what_leaves_together_arrives_in_order(rabbit: Rabbit, app: Muster) -> None:
    app.publisher.send([note("node.web-1", number) for number in range(250)])
    with rabbit.channel() as channel:
        found = [json.loads(channel.basic_get("node.web-1", no_ack=True).body)[0][0] for _ in range(250)]
    assert found == [f"e{number}" for number in range(250)]


def test_a_queue_that_was_deleted_is_made_again(rabbit: Rabbit, app: Muster) -> None:
    app.publisher.send([note("node.web-1"), note("node.web-2")])
    with rabbit.channel() as channel:
        channel.queue_delete("node.web-1")
    app.publisher.send([note("node.web-2"), note("node.web-1"), note("node.web-1")])
    assert (rabbit.length("node.web-1"), rabbit.length("node.web-2")) == (2, 2)


def test_connections_that_the_server_closes_are_made_again(rabbit: Rabbit, app: Muster) -> None:
    app.publisher.send([note("node.web-1")])
    rabbit.cut()
    app.publisher.send([note("node.web-1")])
    assert rabbit.length("node.web-1") == 2


def test_a_message_that_is_refused_is_told_and_the_next_is_taken(rabbit: Rabbit, app: Muster) -> None:
    with rabbit.channel() as channel:
        channel.queue_declare(
            "node.web-1",
            durable=True,
            auto_delete=False,
            arguments={"x-max-length": 1, "x-overflow": "reject-publish"},
        )
    plain = make_celery("node", broker_url=rabbit.url, name="n1", queues=["node.web-1"])
    plain.amqp.queues["node.web-1"].no_declare = True
    with pytest.raises(NotTaken, match="refused"):
        plain.publisher.send([note("node.web-1")] * 3)
    assert rabbit.purge("node.web-1") == 1
    plain.publisher.send([note("node.web-1")])
    plain.close()


def test_a_node_is_told_while_nobody_has_made_its_ways(rabbit: Rabbit, app: Muster) -> None:
    node = make_celery("node", broker_url=rabbit.url, name="n1", queues=["node.web-1"])
    outcome = Message.nudge(queues.RESULTS, queues.COLLECT, "x")
    with pytest.raises(NotFound):
        node.publisher.send([outcome])
    with rabbit.channel() as channel:
        channel.exchange_declare(queues.FROM_NODES, "direct", durable=True, auto_delete=False)
    with pytest.raises(NotTaken, match="no queue 'results'"):
        node.publisher.send([outcome])
    control = make_celery("control", broker_url=rabbit.url, name="c2", queues=[queues.RESULTS])
    with rabbit.channel() as channel:
        control.amqp.queues[queues.RESULTS](channel).declare()
    node.publisher.send([outcome])
    assert rabbit.length(queues.RESULTS) == 1
    node.close()
    control.close()


@contextmanager
def silent_after(url: str) -> Iterator[tuple[str, threading.Event]]:
    """The URL of a proxy that carries nothing back once its event is set."""
    parts = urlsplit(url)
    listener = socket.create_server(("127.0.0.1", 0))
    silent = threading.Event()

    def carry(source: socket.socket, target: socket.socket, back: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                if not (back and silent.is_set()):
                    target.sendall(data)

    def accept() -> None:
        with suppress(OSError):
            while True:
                near = listener.accept()[0]
                far = socket.create_connection((parts.hostname or "", parts.port or 5672))
                made.extend((near, far))
                for pair in ((near, far, False), (far, near, True)):
                    threading.Thread(target=carry, args=pair, daemon=True).start()

    made: list[socket.socket] = []
    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    place = f"{parts.username}:{parts.password}@127.0.0.1:{listener.getsockname()[1]}"
    yield parts._replace(netloc=place).geturl(), silent
    listener.shutdown(socket.SHUT_RDWR)
    for each in (listener, *made):
        each.close()
    thread.join(PATIENCE)


def test_a_broker_that_gives_no_word_is_not_waited_for_long(
    rabbit: Rabbit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(confirmed, "PATIENCE", 0.5)
    with silent_after(rabbit.url) as (url, silent):
        app = make_celery("control", broker_url=url, name="c1")
        app.publisher.send([note("node.web-1")])
        silent.set()
        with pytest.raises(NotTaken, match="no word"):
            app.publisher.send([note("node.web-1")])
        silent.clear()
        app.publisher.send([note("node.web-1")])
        app.close()
    rabbit.wipe()


def test_a_redis_that_counts_no_chords_stops_no_worker(
    rabbit: Rabbit, broker: Broker, workers: Workers
) -> None:
    """More members than the worker may hold unacknowledged cannot be counted; then comes a plain message."""
    body = {
        "task": queues.SETTLE,
        "args": ["e1"],
        "kwargs": {},
        "options": {"queue": queues.CONTROL, "task_id": "e1.settle"},
        "subtask_type": None,
        "immutable": True,
    }
    (workers.directory / "digest").write_text(canvas_digest(None, body))
    _, log = workers.ready(
        "control", "control-1", "results,control", FLEET_BROKER=rabbit.url, FLEET_BACKEND=broker.url
    )
    node = make_celery("node", broker_url=rabbit.url, name="n1", queues=["node.web-1"])
    broker.client.config_set("maxmemory", 1)
    try:
        members = [
            Message(queues.RESULTS, queues.COLLECT, f"e1.{n}", [n], chord=body, group_id="g1", group_index=n)
            for n in range(7)
        ]
        node.publisher.send([*members, Message.nudge(queues.RESULTS, queues.COLLECT, "plain")])
        wait_until(lambda: len(notes(workers.directory, "collect")) == 8, log.read_text())
        assert "could not be counted" in log.read_text()
        wait_until(lambda: not rabbit.contents()[queues.RESULTS], "all are acknowledged")
    finally:
        broker.client.config_set("maxmemory", 0)
    node.close()
    workers.stop()
    rabbit.wipe()


def nested(depth: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for _ in range(depth):
        found = {"a": found}
    return found


def test_properties_that_cannot_be_read_end_no_worker(
    rabbit: Rabbit, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, log = workers.ready("control", "control-1", "results,control", FLEET_BROKER=rabbit.url)
    limit = sys.getrecursionlimit()
    hostile: list[dict[str, Any]] = [
        {"correlation_id": b"\xff\xfe"},
        {"application_headers": {"task": b"\xff", "id": "j1"}},
        {"application_headers": nested(3000)},
        {"content_type": b"\xff", "application_headers": {"task": queues.COLLECT, "id": "j1"}},
        {"timestamp": 2**63 - 1},
    ]
    count = 0
    with rabbit.channel() as channel:
        for properties in hostile:
            for body in ('[["x"], {}, {}]', ""):
                sys.setrecursionlimit(50_000)
                try:
                    channel.basic_publish(amqp.Message(body, **properties), queues.FROM_NODES, queues.RESULTS)
                finally:
                    sys.setrecursionlimit(limit)
                count += 1
    large = amqp.Message(
        "[" + " " * 9_000_000 + '["x"], {}, {}]',
        content_type="application/json",
        content_encoding="utf-8",
        application_headers={"task": queues.COLLECT, "id": "large"},
    )
    with rabbit.channel() as channel:
        channel.basic_publish(large, queues.FROM_NODES, queues.RESULTS)
    control = make_celery("node", broker_url=rabbit.url, name="n1", queues=["node.web-1"])
    control.publisher.send([Message.nudge(queues.RESULTS, queues.COLLECT, "good")])
    wait_until(lambda: notes(workers.directory, "collect"), "the good one")
    wait_until(lambda: rabbit.length("dead") == count + 1, "the dead")
    assert [each["value"] for each in notes(workers.directory, "collect")] == ["good"]
    assert worker.poll() is None, log.read_text()
    control.close()
    rabbit.wipe()
