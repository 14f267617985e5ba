"""Messages of our own are Celery's, field for field; and what becomes of them where the broker is away or refuses."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from rabbit import Rabbit
from real_fleet import Broker
from waiting import PATIENCE

from app.transport import publisher, queues
from app.transport.celery_app import Muster, make_celery
from app.transport.gate import Canvas, next_link
from app.transport.line import AT_ONCE
from app.transport.wire import Message

QUEUE = "node.web-1"


def link(name: str, queue: str, task_id: str, **more: Any) -> dict[str, Any]:
    immutable, args = more.pop("immutable", False), more.pop("args", [])
    options = {"queue": queue, "task_id": task_id, **more}
    return {
        "task": name,
        "args": args,
        "kwargs": {},
        "options": options,
        "subtask_type": None,
        "immutable": immutable,
    }


ORDER = link(queues.NODE_ORDER, QUEUE, "e1.b.0.1")
LAST = link(queues.COLLECT, queues.RESULTS, "e1.b.0.1.collect")
BODY = link(queues.SETTLE, queues.CONTROL, "e1.settle", args=["e1"], immutable=True)
COUNTING = link(queues.COLLECT, queues.RESULTS, "e1.a.0.1.collect", chord=BODY, group_id="e1.a.group")
NOW = SimpleNamespace(id="e1.a.0.1.collect", root_id="e1.a.0.1")


def send_task(app: Muster, message: Message) -> None:
    """The message as Celery sends it."""
    app.send_task(
        message.task,
        args=list(message.args),
        task_id=message.id,
        queue=message.queue,
        chain=message.chain,
        chord=message.chord,
        group_id=message.group_id,
        group_index=message.group_index,
        root_id=message.root_id,
        parent_id=message.parent_id,
        ignore_result=True,
    )


MESSAGES = {
    "a nudge": Message(queues.CONTROL, queues.SETTLE, "n1", ["e1"]),
    "an order and its line": Message(QUEUE, queues.NODE_ORDER, "e1.a.0.1", ["sealed"], chain=[ORDER, LAST]),
    "an order of a chord": Message(QUEUE, queues.NODE_ORDER, "e1.a.0.1", ["sealed"], chain=[COUNTING]),
    "a part of a chord": Message(
        queues.RESULTS, queues.COLLECT, "c1", ["s"], chord=BODY, group_id="g1", group_index=3
    ),
    "no ASCII": Message(queues.CONTROL, queues.SETTLE, "n2", ["é \u2028 \U0001f680", 1.5, None, {"a": []}]),
}


@pytest.fixture
def app(broker: Broker) -> Iterator[Muster]:
    broker.client.flushall()
    made = make_celery("control", broker_url=broker.url, name="c1", queues=[queues.RESULTS])
    yield made
    made.close()


def taken(broker: Broker, queue: str) -> dict[str, Any]:
    """The oldest message of a queue, with its body decoded and without what differs each time."""
    item: dict[str, Any] = json.loads(broker.client.rpop(queue))
    item["body"] = json.loads(base64.b64decode(item["body"], validate=True))
    assert item["properties"].pop("delivery_tag")
    item["properties"].pop("reply_to")
    return item


@pytest.mark.parametrize("name", MESSAGES)
def test_a_message_is_what_celery_sends(broker: Broker, app: Muster, name: str) -> None:
    message = MESSAGES[name]
    send_task(app, message)
    app.publisher.send([message])
    theirs, ours = taken(broker, message.queue), taken(broker, message.queue)
    assert ours == theirs
    assert ours["body"][0] == list(message.args)


@pytest.mark.parametrize(
    "chain", [[ORDER], [LAST, ORDER], [COUNTING], [BODY]], ids=["one", "two", "chord", "own"]
)
def test_the_next_link_is_what_celery_sends(broker: Broker, app: Muster, chain: list[Any]) -> None:
    *rest, following = chain
    queue = following["options"]["queue"]
    app.signature(following).apply_async(
        ("sealed",), chain=rest, root_id=NOW.root_id, parent_id=NOW.id, ignore_result=True
    )
    message = next_link(NOW, Canvas(chain), "sealed")
    assert message is not None
    app.publisher.send([message])
    theirs, ours = taken(broker, queue), taken(broker, queue)
    assert ours == theirs


def test_many_go_out_in_order(broker: Broker, app: Muster) -> None:
    app.publisher.send([Message(QUEUE, queues.NODE_ORDER, f"j{n}", [n]) for n in range(2 * AT_ONCE + 1)])
    found = [taken(broker, QUEUE)["body"][0] for _ in range(2 * AT_ONCE + 1)]
    assert found == [[n] for n in range(2 * AT_ONCE + 1)]


def test_threads_that_come_first_together_share_one_connection(broker: Broker, app: Muster) -> None:
    before = {each["id"] for each in broker.client.client_list()}
    together, sending = threading.Barrier(8), app.publisher

    def send(thread: int) -> None:
        together.wait()
        for number in range(50):
            sending.send([Message(QUEUE, queues.NODE_ORDER, f"j{thread}.{number}", [thread, number])])

    threads = [threading.Thread(target=send, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    found = [taken(broker, QUEUE)["body"][0] for _ in range(8 * 50)]
    assert sorted(found) == [[thread, number] for thread in range(8) for number in range(50)]
    fresh = [each for each in broker.client.client_list() if each["id"] not in before]
    assert [each["cmd"] for each in fresh] == ["lpush"]


def test_a_node_sends_to_control_only_and_nothing_of_a_batch_that_goes_elsewhere(broker: Broker) -> None:
    broker.client.flushall()
    node = make_celery("node", broker_url=broker.url, name="web-1", queues=[QUEUE])
    allowed = Message(queues.RESULTS, queues.COLLECT, "j1", ["x"])
    with pytest.raises(KeyError, match=r"node\.web-2"):
        node.publisher.send([allowed, Message("node.web-2", queues.NODE_ORDER, "j2", ["x"])])
    assert broker.contents() == {}
    node.publisher.send([allowed])
    assert broker.contents() == {b"results": 1}
    node.close()


def test_what_redis_refuses_is_told_and_the_connection_goes_on(broker: Broker, app: Muster) -> None:
    message = MESSAGES["a nudge"]
    app.publisher.send([message])
    broker.client.config_set("maxmemory", 1)
    try:
        with pytest.raises(redis.ResponseError, match="maxmemory"):
            app.publisher.send([message] * 3)
    finally:
        broker.client.config_set("maxmemory", 0)
    app.publisher.send([message])
    assert broker.contents() == {b"control": 2}


def test_redis_goes_away_and_comes_back(tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = Path(tmp_path_factory.mktemp("r"))
    message = MESSAGES["a nudge"]
    first = Broker(directory)
    app = make_celery("control", broker_url=first.url, name="c1", queues=[queues.RESULTS])
    app.publisher.send([message])
    first.stop()
    with pytest.raises((redis.ConnectionError, OSError)):
        app.publisher.send([message])
    second = Broker(directory)
    try:
        app.publisher.send([message])
        # A restart in between is not noticed: the connection has gone stale, and is made anew.
        second.client.client_kill_filter(_type="normal", skipme=True)
        app.publisher.send([message])
        assert second.contents() == {b"control": 2}
    finally:
        app.close()
        second.stop()


@pytest.mark.parametrize("name", MESSAGES)
def test_on_rabbitmq_too_a_message_is_what_celery_sends(rabbit: Rabbit, name: str) -> None:
    # A queue for each: Celery's pool outlives the app, and remembers what it declared.
    queue = f"wire-test-{name.replace(' ', '-')}"
    app = make_celery("control", broker_url=rabbit.url, name="c1", queues=[queue])
    message = MESSAGES[name]
    changed = Message(
        queue,
        message.task,
        message.id,
        message.args,
        message.chain,
        message.chord,
        message.group_id,
        message.group_index,
    )
    send_task(app, changed)
    app.publisher.send([changed])
    with rabbit.channel() as channel:
        found = [channel.basic_get(queue, no_ack=True) for _ in range(2)]
    theirs, ours = (_shape(each) for each in found)
    assert ours == theirs
    app.close()


def _shape(message: Any) -> dict[str, Any]:
    properties = {name: value for name, value in message.properties.items() if name != "reply_to"}
    return {"body": json.loads(message.body), "properties": properties}


def test_the_waits_for_redis_are_short() -> None:
    """A request to the API waits for them."""
    assert sum(publisher.AGAIN_AFTER) < 2
