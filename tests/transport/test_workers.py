"""Real workers on a real Redis: as typed they are quiet, and nothing that lies in a queue ends them."""

from __future__ import annotations

import base64
import json
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from rabbit import Rabbit
from real_fleet import ROOT, Broker, Workers
from real_messages import GOOD, dead, message, notes, push
from waiting import PATIENCE, wait_until

from app.transport import queues
from app.transport.celery_app import make_celery
from app.transport.gate import canvas_digest

pytestmark = pytest.mark.fleet


def test_a_worker_as_typed_is_quiet_and_on_its_own_queues(broker: Broker, workers: Workers) -> None:
    control, log = workers.ready("control", "control-1", "results,control")
    node, node_log = workers.ready("node", "web-1", "node.web-1")
    assert (broker.client.pubsub_channels(), broker.client.pubsub_numpat()) == ([], 0)
    for text, name, queue in ((log, "control-1@", "results"), (node_log, "web-1@", "node.web-1")):
        banner = text.read_text()
        assert f"{name}" in banner
        assert "concurrency: 3 (thread)" in banner
        assert f".> {queue}" in banner
        assert "mingle" not in banner
    assert ".> results  " not in node_log.read_text()
    assert {client["name"].split("@")[0] for client in broker.client.client_list() if client["name"]} == {
        "muster:control:control-1",
        "muster:node:web-1",
    }
    # Not one binding that could be evicted, and nothing shared.
    assert [key for key in broker.client.scan_iter() if key.startswith(b"_kombu")] == []
    second = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "fleet_app", "worker"],
        env=_environment(control),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert second.returncode != 0
    assert f"running already (process {control.pid})" in second.stderr
    for process in (control, node):
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0


def _environment(process: subprocess.Popen[bytes]) -> dict[str, str]:
    text = Path(f"/proc/{process.pid}/environ").read_bytes().decode()
    return dict(line.split("=", 1) for line in text.split("\0") if line)


POISON: dict[str, tuple[Any, str]] = {
    "no json": ("not json", "not-json"),
    "no utf-8": (b"\xff\xfe{}", "not-json"),
    "a list": ("[]", "not-an-envelope"),
    "null": ("null", "not-an-envelope"),
    "a number": ("7", "not-an-envelope"),
    "empty": ("", "not-json"),
    "deep": ("[" * 100_000, "not-json"),
    "deep object": ('{"a":' * 50_000 + "1" + "}" * 50_000, "not-json"),
    "long number": ("9" * 5000, "not-json"),
    "a hostile type": ('{"__type__": "datetime", "__value__": "x"}', "not-an-envelope"),
    "no properties": ({key: GOOD[key] for key in GOOD if key != "properties"}, "not-an-envelope"),
    "no headers": ({key: GOOD[key] for key in GOOD if key != "headers"}, "not-an-envelope"),
    "headers a list": ({**GOOD, "headers": []}, "not-an-envelope"),
    "body a number": ({**GOOD, "body": 5}, "not-an-envelope"),
    "body no base64": ({**GOOD, "body": "*** no ***"}, "bad-body"),
    "body half base64": ({**GOOD, "body": GOOD["body"] + "A"}, "bad-body"),
    "encoding unknown": (
        {**GOOD, "properties": {**GOOD["properties"], "body_encoding": "rot13"}},
        "bad-body",
    ),
    "pickle": ({**GOOD, "content-type": "application/x-python-serialize"}, "bad-content-type"),
    "yaml": ({**GOOD, "content-type": "application/x-yaml"}, "bad-content-type"),
    "no type": ({**GOOD, "content-type": None}, "bad-content-type"),
    "a strange charset": ({**GOOD, "content-encoding": "utf-7"}, "bad-content-type"),
    "compressed": (
        {**GOOD, "headers": {**GOOD["headers"], "compression": "application/x-gzip"}},
        "compressed",
    ),
    "no task": ({**GOOD, "headers": {"id": "j1"}}, "bad-headers"),
    "no id": ({**GOOD, "headers": {"task": queues.COLLECT}}, "bad-headers"),
    "id a list": (message(queues.COLLECT, id=["x"]), "bad-headers"),  # type: ignore[arg-type]
    "id too much": (message(queues.COLLECT, id="a b\n"), "bad-headers"),
    "protocol 1": ({**GOOD, "headers": {}}, "bad-headers"),
    "body no json": ({**GOOD, "body": base64.b64encode(b"{{{").decode()}, "bad-body"),
    "body deep": ({**GOOD, "body": base64.b64encode(b"[" * 100_000).decode()}, "bad-body"),
    "body empty": ({**GOOD, "body": ""}, "bad-body"),
    "body a mapping": ({**GOOD, "body": base64.b64encode(b"{}").decode()}, "bad-arguments"),
    "body a pair": ({**GOOD, "body": base64.b64encode(b"[[],{}]").decode()}, "bad-arguments"),
    "args a number": (message(queues.COLLECT, 5), "bad-arguments"),
    "kwargs a list": (message(queues.COLLECT, kwargs=[1]), "bad-arguments"),
    "embed a list": (message(queues.COLLECT, embed=[1]), "bad-canvas"),
    "embed unknown": (message(queues.COLLECT, embed={"args": 1}), "bad-canvas"),
    "chain a number": (message(queues.COLLECT, embed={"chain": 1}), "bad-canvas"),
    "group a list": (message(queues.COLLECT, group=[1]), "bad-canvas"),
    "not registered": (message(queues.REPORT), "unknown-task"),
    "a strange task": (message("os.system", ["id"]), "foreign-task"),
}


def test_nothing_in_a_queue_ends_a_worker(broker: Broker, workers: Workers) -> None:
    control, log = workers.ready("control", "control-1", "results")
    for item, _ in POISON.values():
        push(broker, queues.RESULTS, item)
    push(broker, queues.RESULTS, GOOD)
    wait_until(lambda: notes(workers.directory, "collect"), "the good one")
    wait_until(lambda: len(dead(broker)) == len(POISON), "all of the dead")
    assert [each["reason"] for each in reversed(dead(broker))] == [reason for _, reason in POISON.values()]
    assert {each["queue"] for each in dead(broker)} == {queues.RESULTS}
    assert control.poll() is None
    assert "Unrecoverable" not in log.read_text()
    assert "Connection to broker lost" not in log.read_text()
    assert wait_until(lambda: broker.client.hlen("unacked:control-1") == 0, "all acknowledged")
    counts = broker.client.hgetall("dead:counts")
    assert sum(int(count) for count in counts.values()) == len(POISON)
    # A node's worker stands behind the same door, and the dead are bounded.
    node, _ = workers.ready("node", "web-1", "node.web-1")
    for item, _ in POISON.values():
        push(broker, "node.web-1", item)
    for number in range(1200):
        push(broker, "node.web-1", f"junk {number}")
    push(broker, "node.web-1", message(queues.NODE_ORDER, ["run"]))
    wait_until(lambda: notes(workers.directory, "order"), "the good order")
    assert node.poll() is None
    assert broker.client.llen("dead") == 1000


EVIL: dict[str, Any] = {
    "task": queues.SETTLE,
    "args": ["evil"],
    "kwargs": {},
    "options": {"queue": "node.web-9", "task_id": "evil"},
    "subtask_type": None,
    "immutable": True,
}
GROUP = {**EVIL, "task": "celery.group", "kwargs": {"tasks": [EVIL]}, "subtask_type": "group"}
PAST = "2020-01-01T00:00:00+00:00"
FORGED: dict[str, tuple[dict[str, Any], bool]] = {
    "bad args with an errback": (message(queues.COLLECT, [1, 2, 3], embed={"errbacks": [EVIL]}), True),
    "bad kwargs with an errback": (
        message(queues.COLLECT, kwargs={"x": 1}, embed={"errbacks": [EVIL]}),
        True,
    ),
    "a link": (message(queues.COLLECT, ["a"], embed={"callbacks": [EVIL]}), True),
    "links": (message(queues.COLLECT, ["a"], embed={"callbacks": [EVIL, GROUP]}), True),
    "a chain": (message(queues.COLLECT, ["a"], embed={"chain": [EVIL]}), True),
    "a foreign chord": (
        message(queues.COLLECT, ["a"], embed={"chord": {**EVIL, "chord_size": 1}}, group="g1", group_index=0),
        True,
    ),
    "a failing part of a chord": (
        message(queues.COLLECT, [], embed={"chord": {**EVIL, "chord_size": 1}}, group="g2", group_index=0),
        True,
    ),
    "all at once": (
        message(queues.COLLECT, [1, 2], embed={key: [EVIL] for key in ("callbacks", "errbacks", "chain")}),
        True,
    ),
    "reply_to and a result": (
        {
            **message(queues.COLLECT, ["a"], ignore_result=False),
            "properties": {**GOOD["properties"], "reply_to": "node.web-9"},
        },
        True,
    ),
    "an eta": (message(queues.COLLECT, ["eta"], eta="2999-01-01T00:00:00+00:00"), True),
    "expired, with another's id": (message(queues.COLLECT, ["a"], id="theirs", expires=PAST), True),
    "stamps": (message(queues.COLLECT, ["a"], stamped_headers=["x"], stamps={"x": "y"}), True),
    "time limits": (message(queues.COLLECT, ["a"], timelimit=[0.001, 0.001]), True),
    "a replaced task": (message(queues.COLLECT, ["a"], replaced_task_nesting=9, shadow="x"), True),
    "a group": (message("celery.group", [[EVIL], "x", "g", []]), False),
    "a chord": (message("celery.chord", [[EVIL], EVIL]), False),
    "a starmap": (message("celery.starmap", [EVIL, [["x"]]]), False),
    "a map": (message("celery.map", [EVIL, ["x"]]), False),
    "chunks": (message("celery.chunks", [EVIL, [["x"]], 1]), False),
    "a chain task": (message("celery.chain", [EVIL]), False),
    "an unlock": (message("celery.chord_unlock", ["g", EVIL]), False),
    "accumulate": (message("celery.accumulate", ["x"], embed={"callbacks": [EVIL]}), False),
    "a cleanup": (message("celery.backend_cleanup"), False),
    "a nudge of control's": (message(queues.SETTLE, ["x"]), False),
    "an order": (message(queues.NODE_ORDER, ["x"]), False),
}


def test_control_publishes_nothing_for_a_forged_message(broker: Broker, workers: Workers) -> None:
    control, log = workers.ready("control", "control-1", "results")
    before = broker.contents()
    for item, _ in FORGED.values():
        push(broker, queues.RESULTS, item)
    push(broker, queues.RESULTS, message(queues.COLLECT, ["genuine"], id="theirs"))
    refused = [name for name, (_, runs) in FORGED.items() if not runs]
    wait_until(lambda: len(dead(broker)) == len(refused), "the refused")
    wait_until(
        lambda: [n for n in notes(workers.directory) if n.get("value") == "genuine"], "the genuine one"
    )
    wait_until(
        lambda: broker.client.llen("results") + broker.client.hlen("unacked:control-1") == 0, "all taken"
    )
    assert {each["reason"] for each in dead(broker)} == {"foreign-task"}
    assert broker.contents() == {**before, b"dead": len(refused)}
    left = {key for key in broker.client.scan_iter() if b"unacked" not in key} - {b"dead", b"dead:counts"}
    assert left == set()
    assert control.poll() is None
    # Those that may run did run, once each, with the canvas as data and never as an action.
    ran = [each["value"] for each in notes(workers.directory, "collect")]
    assert len(ran) == 11
    assert ran.count("eta") == 1
    for secret in ("genuine", "evil"):
        assert secret not in log.read_text()


def test_what_is_restored_goes_on(broker: Broker, workers: Workers) -> None:
    workers.ready("control", "control-1", "results,control")
    follow: dict[str, Any] = {
        **EVIL,
        "args": ["chained"],
        "options": {"queue": queues.CONTROL, "task_id": "s1"},
    }
    body: dict[str, Any] = {
        **EVIL,
        "args": ["counted"],
        "options": {"queue": queues.CONTROL, "task_id": "s2"},
    }
    broker.client.set("celery-taskset-meta-g1.s", 1)
    digests = [canvas_digest([follow]), canvas_digest(None, body)]
    (workers.directory / "digest").write_text("\n".join(digests))
    push(broker, queues.RESULTS, message(queues.COLLECT, ["a"], embed={"chain": [follow]}))
    # As the message has it: with what Celery adds on the way.
    carried = {**body, "options": {**body["options"], "reply_to": "x", "group_id": "g1"}, "chord_size": 1}
    push(
        broker, queues.RESULTS, message(queues.COLLECT, ["b"], embed={"chord": carried}, group="g1", id="j2")
    )
    other = {**follow, "options": {**follow["options"], "queue": "node.web-9"}}
    push(broker, queues.RESULTS, message(queues.COLLECT, ["c"], embed={"chain": [other]}, id="j3"))
    wait_until(lambda: len(notes(workers.directory, "settle")) == 2, "both nudges")
    assert sorted(each["values"][0] for each in notes(workers.directory, "settle")) == ["chained", "counted"]
    wait_until(lambda: len(notes(workers.directory, "collect")) == 3, "all collected")
    assert b"node.web-9" not in broker.contents()


def test_a_chord_over_nodes_ends_with_one_nudge(broker: Broker, workers: Workers) -> None:
    """Sent by a sender's app and collected by control; the sender keeps no subscription."""
    workers.ready("control", "control-1", "results,control")
    sender = make_celery("sender", broker_url=broker.url, backend_url=broker.url, name="api")
    nudge = sender.signature(queues.SETTLE, ["e1"], immutable=True, queue=queues.CONTROL, task_id="e1.settle")
    (workers.directory / "digest").write_text(canvas_digest(None, json.loads(json.dumps(nudge))))
    parts = [
        sender.signature(queues.COLLECT, [n], queue=queues.RESULTS, task_id=f"e1.{n}.collect") for n in "abc"
    ]
    from_celery = sender.signature(
        {
            "task": "celery.chord",
            "args": [],
            "kwargs": {
                "header": {
                    "task": "celery.group",
                    "args": [],
                    "kwargs": {"tasks": parts},
                    "options": {},
                    "subtask_type": "group",
                },
                "body": nudge,
                "kwargs": {},
                "args": [],
            },
            "options": {},
            "subtask_type": "chord",
            "immutable": False,
        }
    )
    from_celery.apply_async()
    wait_until(lambda: notes(workers.directory, "settle"), "the nudge")
    assert notes(workers.directory, "settle") == [{"what": "settle", "values": ["e1"]}]
    assert broker.client.pubsub_channels() == []
    sender.close()


@pytest.mark.parametrize(
    ("role", "queue", "task"),
    [("control", queues.RESULTS, queues.COLLECT), ("node", "node.web-1", queues.NODE_ORDER)],
)
def test_flower_sees_a_task_from_its_start_to_its_end(
    broker: Broker, workers: Workers, role: str, queue: str, task: str
) -> None:
    seen: list[dict[str, Any]] = []
    watcher = make_celery("sender", broker_url=broker.url, name="watcher")
    with watcher.connection_for_read() as connection:
        receiver = watcher.events.Receiver(connection, handlers={"*": seen.append})
        with receiver.consumer_context() as (consuming, _, _):

            def told() -> bool:
                with suppress(TimeoutError):
                    consuming.drain_events(timeout=0.2)
                return any(event["type"] == "task-succeeded" for event in seen)

            # The first look is what subscribes.
            assert not told()
            workers.ready(role, "w1", queue, FLEET_EVENTS="1")
            push(broker, queue, message(task, ["secret"], id="e1.a.0.1"))
            wait_until(told, "the events")
    about = [event for event in seen if event.get("uuid") == "e1.a.0.1"]
    assert [event["type"] for event in about] == ["task-received", "task-started", "task-succeeded"]
    assert (about[0]["name"], about[0]["args"], about[0]["kwargs"]) == (task, "-", "-")
    assert "secret" not in str(seen)
    watcher.close()


def test_rabbitmq_is_no_way_around(rabbit: Rabbit, workers: Workers) -> None:
    worker, log = workers.ready("control", "control-1", "results", FLEET_BROKER=rabbit.url)
    good = json.dumps([["good"], {}, {}])
    right = {"task": queues.COLLECT, "id": "j1"}
    wrong: list[tuple[str, str, dict[str, Any]]] = [
        ("not json", "application/json", right),
        ("[" * 100_000, "application/json", right),
        ("[]", "application/json", right),
        ("null", "application/json", right),
        (good, "application/x-python-serialize", right),
        (good, "application/json", {}),
        (good, "application/json", {"task": queues.COLLECT}),
        (good, "application/json", {**right, "compression": "application/x-gzip"}),
        (good, "application/json", {**right, "task": "celery.group"}),
        (good, "application/json", {**right, "task": queues.SETTLE}),
        (json.dumps([["good"], {}, {"callbacks": [EVIL], "chain": 5}]), "application/json", right),
    ]
    with rabbit.channel() as channel:
        for body, kind, headers in [*wrong, (good, "application/json", right)]:
            made = channel.prepare_message(body, content_type=kind, content_encoding="utf-8", headers=headers)
            channel.basic_publish(made, exchange="", routing_key=queues.RESULTS)
        wait_until(lambda: notes(workers.directory, "collect"), "the good one")
        assert wait_until(lambda: channel.queue_declare("dead", passive=True).message_count == len(wrong))
        found = [json.loads(channel.basic_get("dead", no_ack=True).body)["queue"] for _ in wrong]
        assert set(found) == {queues.RESULTS}
    assert "Unrecoverable" not in log.read_text()
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(PATIENCE) == 0
