"""What a worker took from a queue and did not finish: it comes back, once, in order, and where it was."""

from __future__ import annotations

import base64
import json
import signal

import pytest
from real_fleet import Broker, Workers
from real_messages import GOOD, dead, message, notes, push
from waiting import PATIENCE, wait_until

from app.transport import queues
from app.transport.celery_app import make_celery

pytestmark = pytest.mark.fleet


def test_what_a_killed_worker_had_comes_back_at_once_and_in_order(broker: Broker, workers: Workers) -> None:
    (workers.directory / "hold").touch()
    control, _ = workers.ready("control", "control-1", "results")
    for number in range(6):
        item = message(queues.COLLECT, [f"m{number}"], id=f"j{number}")
        # What the item says of where it came from is not where it goes back to.
        item["properties"]["delivery_info"]["routing_key"] = "node.web-9"
        item["properties"]["delivery_tag"] = "the same for all"
        push(broker, queues.RESULTS, item)
    wait_until(lambda: len(notes(workers.directory)) == 3, "three at work")
    assert broker.client.hlen("unacked:control-1") == 3
    control.kill()
    control.wait()
    broker.client.hset("unacked:control-1", "junk", b"not json")
    workers.ready("control", "control-1", "results")
    # They wait again, so that none of the three can be overtaken by what comes behind it.
    wait_until(lambda: len(notes(workers.directory)) == 6, "the same three at work")
    assert {each["value"] for each in notes(workers.directory)[3:]} == {"m0", "m1", "m2"}
    (workers.directory / "hold").unlink()
    wait_until(lambda: len(notes(workers.directory)) == 9, "all six again")
    assert sorted(each["value"] for each in notes(workers.directory)[3:]) == [f"m{n}" for n in range(6)]
    wait_until(lambda: broker.client.hlen("unacked:control-1") == 0, "all acknowledged")
    assert [each["reason"] for each in dead(broker)] == ["not-an-envelope"]
    assert b"node.web-9" not in broker.contents()


def test_a_node_notes_nothing_and_gives_back_what_it_did_not_begin(broker: Broker, workers: Workers) -> None:
    (workers.directory / "hold").touch()
    node, log = workers.ready("node", "web-1", "node.web-1")
    for number in range(6):
        push(broker, "node.web-1", message(queues.NODE_ORDER, [f"m{number}"], id=f"j{number}"))
    wait_until(lambda: len(notes(workers.directory)) == 3, "three at work")
    wait_until(lambda: broker.client.llen("node.web-1") == 0, "the others are taken")
    assert [key for key in broker.client.scan_iter() if b"unacked" in key] == []
    node.send_signal(signal.SIGTERM)
    wait_until(lambda: "Warm shutdown" in log.read_text(), "the shutdown")
    (workers.directory / "hold").unlink()
    assert node.wait(PATIENCE) == 0
    begun = {each["value"] for each in notes(workers.directory)}
    back = [json.loads(item) for item in reversed(broker.client.lrange("node.web-1", 0, -1))]
    assert begun | {json.loads(base64.b64decode(item["body"]))[0][0] for item in back} == {
        f"m{n}" for n in range(6)
    }
    workers.ready("node", "web-1", "node.web-1")
    wait_until(
        lambda: {each["value"] for each in notes(workers.directory)} == {f"m{n}" for n in range(6)}, "all"
    )
    assert len(notes(workers.directory)) == 6
    assert dead(broker) == []


def test_what_is_held_longer_than_the_visibility_timeout_is_handed_out_again(broker: Broker) -> None:
    broker.client.flushall()
    app = make_celery("control", broker_url=broker.url, name="control-1", queues=[queues.RESULTS])
    push(broker, queues.RESULTS, GOOD)
    with app.connection_for_read() as connection, connection.channel() as channel:
        channel.do_restore = False
        taken = channel.basic_get(queues.RESULTS)
        channel.qos.write()
        held = broker.client.hgetall("unacked:control-1")
        assert list(held) == [taken.delivery_tag.encode()]
        channel.qos.restore_visible()
        assert broker.client.llen(queues.RESULTS) == 0
        (tag, kept), old = held.popitem(), f"{10**18:020d}.0.x"
        broker.client.hset("unacked:control-1", mapping={old: kept, "another kind of tag": kept})
        channel.qos.restore_visible()
        assert broker.client.llen(queues.RESULTS) == 1
        assert set(broker.client.hkeys("unacked:control-1")) == {tag, b"another kind of tag"}
        again = channel.basic_get(queues.RESULTS)
        assert again.delivery_info == {"exchange": "", "routing_key": queues.RESULTS, "redelivered": True}
        taken.ack()
        again.ack()
    assert broker.client.hkeys("unacked:control-1") == [b"another kind of tag"]
    app.close()
