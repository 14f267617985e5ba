"""Whatever lies in a queue: it is buried and counted, does nothing, and ends nobody."""

from __future__ import annotations

import base64
import json
import os
from collections import Counter
from typing import Any

import pytest
from fleet import Fleet
from fleet_items import changed, message, shell
from fleet_queues import at_rest, exists, length, published, purge, push, take
from rabbit import ON_RABBIT
from waiting import wait_until

from app.transport import queues

pytestmark = pytest.mark.fleet

GOOD = message(queues.COLLECT, ["not a token"])


def bearing(body: str, **more: Any) -> dict[str, Any]:
    """The good message with another body."""
    return {**GOOD, "body": base64.b64encode(body.encode()).decode(), **more}


ON_REDIS: dict[str, tuple[Any, str]] = {
    "no json": ("not json", "not-json"),
    "no utf-8": (b"\xff\xfe{}", "not-json"),
    "null": ("null", "not-an-envelope"),
    "deep": ('{"a":' * 50_000 + "1" + "}" * 50_000, "not-json"),
    "no properties": ({key: GOOD[key] for key in GOOD if key != "properties"}, "not-an-envelope"),
    "pickle": ({**GOOD, "content-type": "application/x-python-serialize"}, "bad-content-type"),
    "body no base64": ({**GOOD, "body": "*** no ***"}, "bad-body"),
    "no task": ({**GOOD, "headers": {"id": "j1"}}, "bad-headers"),
    "compressed": (
        {**GOOD, "headers": {**GOOD["headers"], "compression": "application/x-gzip"}},
        "compressed",
    ),
    "args a number": (message("control.nothing", 5), "bad-arguments"),
}
"""Items of lists, and why each is refused."""
IN_RABBIT: dict[str, tuple[Any, str]] = {
    "no json": (bearing("not json"), "bad-body"),
    "null": (bearing("null", headers={**GOOD["headers"], "task": "control.nothing"}), "bad-arguments"),
    "deep": (bearing('{"a":' * 50_000 + "1" + "}" * 50_000), "bad-body"),
    "pickle": (bearing("[]", **{"content-type": "application/x-python-serialize"}), "bad-body"),
    "no task": ({**GOOD, "headers": {"id": "j1"}}, "bad-headers"),
    "no headers": ({**GOOD, "headers": {}}, "bad-headers"),
    "compressed": (
        bearing("no gzip", headers={**GOOD["headers"], "compression": "application/x-gzip"}),
        "bad-body",
    ),
    "args a number": (message("control.nothing", 5), "bad-arguments"),
}
"""Messages of RabbitMQ, and why each is refused: what is no message at all cannot be in it."""
POISON = IN_RABBIT if ON_RABBIT else ON_REDIS
QUEUES = ("results", "control", "heartbeats", "tick", "node.web-1", "node.web-1.ctl")
OF_CONTROL = ("results", "control", "heartbeats", "tick")


def reason_on(queue: str, reason: str) -> str:
    """A name that does not belong on a queue is seen before its arguments are."""
    return "foreign-task" if reason == "bad-arguments" and queue != "control" else reason


def letters_of(fleet: Fleet, queue: str) -> list[Any]:
    """What control itself took off this queue and refused."""
    return [row for row in fleet.letters() if row.queue == queue and row.reason != "refused-by-node"]


def refused_by_nodes(fleet: Fleet) -> int:
    """How many messages the nodes say they refused: their heartbeats are what control has of it."""
    return sum(int(row.item.split()[0]) for row in fleet.letters() if row.reason == "refused-by-node")


class Graves:
    """What is put aside from one queue since this was made: on Redis by counters, on RabbitMQ by what is in `dead`."""

    def __init__(self, fleet: Fleet, queue: str) -> None:
        self._fleet = fleet
        self._queue = queue
        self._found: Counter[str] = Counter()
        if ON_RABBIT:
            purge(fleet, "dead")
        self._before = self._counts()

    def reasons(self) -> Counter[str]:
        if not ON_RABBIT:
            return self._counts() - self._before
        for item in take(self._fleet, "dead"):
            record = json.loads(_body(item))
            assert record["queue"] == self._queue
            self._found[record["reason"]] += 1
        return self._found

    def _counts(self) -> Counter[str]:
        counted = self._fleet.broker.client.hgetall("dead:counts").items()
        told = {tuple(key.decode().split("|")): int(count) for key, count in counted}
        return Counter({reason: count for (queue, reason), count in told.items() if queue == self._queue})


@pytest.mark.parametrize("queue", QUEUES)
def test_poison_is_buried_counted_and_written_down(fleet: Fleet, queue: str) -> None:
    pids = {name: part.pid for name, part in fleet.keeper.parts.items()}
    graves, written = Graves(fleet, queue), len(letters_of(fleet, queue))
    by_node = refused_by_nodes(fleet)
    push(fleet, queue, *(item for item, _ in POISON.values()))
    expected = Counter(reason_on(queue, reason) for _, reason in POISON.values())
    # A node has no right to write to `dead`; RabbitMQ would close the channel of one who tries.
    if queue in OF_CONTROL or not ON_RABBIT:
        wait_until(lambda: graves.reasons() == expected, lambda: f"{graves.reasons()} {expected}")
    if queue in OF_CONTROL:
        wait_until(lambda: len(letters_of(fleet, queue)) == written + len(POISON), "dead_letters rows")
        rows = letters_of(fleet, queue)[written:]
        assert Counter(row.reason for row in rows) == expected
    else:
        wait_until(lambda: refused_by_nodes(fleet) == by_node + len(POISON), "the node's own word")
    assert fleet.wait_for(fleet.submit(shell("echo on"))).status == "completed"
    assert {name: part.pid for name, part in fleet.keeper.parts.items()} == pids


EVIL: dict[str, Any] = {
    "task": queues.SETTLE,
    "args": ["evil"],
    "kwargs": {},
    "options": {"queue": "node.web-9", "task_id": "evil"},
    "subtask_type": None,
    "immutable": True,
}
CHORD = {**EVIL, "chord_size": 1}
PAST = "2020-01-01T00:00:00+00:00"
FORGED: dict[str, dict[str, Any]] = {
    "bad arguments with an errback": message(queues.COLLECT, [1, 2, 3], embed={"errbacks": [EVIL]}),
    "bad keywords with an errback": message(queues.COLLECT, kwargs={"x": 1}, embed={"errbacks": [EVIL]}),
    "a link": message(queues.COLLECT, ["a"], embed={"callbacks": [EVIL]}),
    "a chain": message(queues.COLLECT, ["a"], embed={"chain": [EVIL]}),
    "a chord": message(queues.COLLECT, ["a"], embed={"chord": CHORD}, group="g1", group_index=0),
    "a report with a link": message(queues.REPORT, ["a"], embed={"callbacks": [EVIL]}),
    "an order": message(queues.NODE_ORDER, ["a"]),
    "a nudge": message(queues.SETTLE, ["a"]),
    "a group": message("celery.group", [[EVIL], "x", "g", []]),
    "a chord task": message("celery.chord", [[EVIL], EVIL]),
    "a starmap": message("celery.starmap", [EVIL, [["x"]]]),
    "chunks": message("celery.chunks", [EVIL, [["x"]], 1]),
    "an unlock": message("celery.chord_unlock", ["g", EVIL]),
    "accumulate": message("celery.accumulate", ["x"], embed={"callbacks": [EVIL]}),
    "reply_to": {
        **message(queues.COLLECT, ["a"], ignore_result=False),
        "properties": {**GOOD["properties"], "reply_to": "node.web-9"},
    },
    "an eta": message(queues.COLLECT, ["a"], eta="2999-01-01T00:00:00+00:00"),
    "stamps": message(queues.COLLECT, ["a"], stamped_headers=["x"], stamps={"x": "y"}),
}


def test_control_publishes_nothing_for_what_is_forged(fleet: Fleet) -> None:
    wait_until(lambda: at_rest(fleet), "rest")
    known = set(fleet.broker.client.scan_iter())
    before = len(fleet.letters())
    with published(fleet) as told:
        push(fleet, queues.RESULTS, *FORGED.values())
        wait_until(lambda: len(fleet.letters()) - before >= len(FORGED) - 2, lambda: fleet.letters()[before:])
        wait_until(lambda: at_rest(fleet), "rest")
        # On Redis one command has put them all in.
        wait_until(lambda: told() == [queues.RESULTS] * (len(FORGED) if ON_RABBIT else 1), told)
    new = {key for key in set(fleet.broker.client.scan_iter()) - known if b"unacked" not in key}
    assert new <= {b"dead", b"dead:counts", b"tick", b"heartbeats"}
    assert not exists(fleet, "node.web-9")
    assert fleet.wait_for(fleet.submit(shell("echo on"))).status == "completed"


def test_an_expired_copy_does_not_revoke_the_genuine_one(rough: Fleet) -> None:
    """With the id of another message and an expiry in the past, Celery would drop that other one."""
    execution = _outcome_waits(rough)
    (genuine,) = take(rough, "results")
    push(rough, "results", changed(genuine, args=["x"], expires=PAST), genuine)
    rough.keeper.bring_up("control")
    assert rough.wait_for(execution).status == "completed"


@pytest.mark.parametrize(
    "what",
    [
        "chain",
        *(pytest.param(one, marks=pytest.mark.long) for one in ("chord", "chain and chord", "errback")),
    ],
)
def test_a_genuine_outcome_with_a_foreign_canvas_is_taken_and_cut(rough: Fleet, what: str) -> None:
    execution = _outcome_waits(rough)
    (genuine,) = take(rough, "results")
    embeds: dict[str, dict[str, Any]] = {
        "chain": {"chain": [EVIL]},
        "chord": {"chord": CHORD},
        "chain and chord": {"chain": [EVIL], "chord": CHORD},
        "errback": {"errbacks": [EVIL], "callbacks": [EVIL]},
    }
    more = {"group": "g1", "group_index": 0} if "chord" in what else {}
    push(rough, "results", changed(genuine, embed=embeds[what], **more))
    before = len(rough.letters())
    rough.keeper.bring_up("control")
    assert rough.wait_for(execution).status == "completed"
    assert rough.ran_tasks(execution) == ["a", "b"]
    assert not exists(rough, "node.web-9")
    if what != "errback":
        assert [row.reason for row in rough.letters()[before:]] == ["other-canvas"]


TWO = """\
parameters: {effects: {type: string, required: true}}
tasks:
  - {name: a, action: core.shell, delegate_to: web-1, on_success: b,
     input: {command: 'echo $MUSTER_JOB >> {{ parameters.effects }}'}}
  - {name: b, action: core.shell, delegate_to: web-2, input: {command: 'echo $MUSTER_JOB >> {{ parameters.effects }}'}}
"""


def _outcome_waits(fleet: Fleet) -> str:
    """An execution of `TWO` whose first outcome lies in `results`; control is down."""
    fleet.wait_ready()
    fleet.keeper.take_down("web-1")
    execution = fleet.submit(TWO)
    wait_until(lambda: length(fleet, "node.web-1"), lambda: fleet.story(execution))
    fleet.keeper.take_down("control")
    purge(fleet, "results", "control", "heartbeats", "tick")
    fleet.keeper.bring_up("web-1")

    def outcome() -> bool:
        # An order that was sent again is answered again.
        found = [item for item in take(fleet, "results") if _id(item) == f"{execution}.a.0.1.collect"]
        if found:
            push(fleet, "results", found[0])
        return bool(found)

    wait_until(outcome, lambda: fleet.story(execution))
    return execution


def test_orders_that_are_replayed_changed_or_unsigned_do_nothing(rough: Fleet) -> None:
    rough.wait_ready()
    rough.keeper.take_down("web-1")
    execution = rough.submit(TWO)
    wait_until(lambda: length(rough, "node.web-1"), lambda: rough.story(execution))
    order = next(item for item in take(rough, "node.web-1") if _id(item) == f"{execution}.a.0.1")
    token = json.loads(_body(order))[0][0]
    head, _, tail = token.partition(".")
    bent = f"{head}.{tail[:40]}{'A' if tail[40] != 'A' else 'B'}{tail[41:]}"
    # Before the genuine one arrives: a broken copy, one for another, one that is nothing.
    nothing = message(queues.NODE_ORDER, ["e30.e30.e30"])
    push(rough, "node.web-1", nothing, changed(order, args=[bent]), order)
    push(rough, "node.web-2", order)
    rough.keeper.bring_up("web-1")
    assert rough.wait_for(execution).status == "completed"
    # After it is over: the same again, with its own canvas and with a foreign one, under its id and another.
    for copy in (order, changed(order, embed={"chain": [EVIL]}), changed(order, id="other", embed={})):
        for queue in ("node.web-1", "node.web-2", "node.web-1.ctl"):
            push(rough, queue, copy)
    push(rough, "node.web-1.ctl", message(queues.NODE_CTL, [token]))
    push(rough, "node.web-1.ctl", message(queues.NODE_CTL, [{"a": 1}]))
    push(rough, "node.web-1.ctl", message(queues.NODE_CTL, []))
    after = rough.submit(TWO)
    assert rough.wait_for(after).status == "completed"
    wait_until(
        lambda: not any(length(rough, name) for name in ("node.web-1", "node.web-2", "node.web-1.ctl")),
        "taken",
    )
    wait_until(lambda: at_rest(rough), "rest")
    assert rough.ran_tasks(execution) == ["a", "b"]
    assert rough.ran_tasks(after) == ["a", "b"]
    assert not exists(rough, "node.web-9")
    wait_until(
        lambda: _refused(rough, "web-1") >= 2 and _refused(rough, "web-2") >= 3, "the count in a heartbeat"
    )
    for name in rough.names:
        os.kill(rough.keeper.parts[name].pid, 0)


def _refused(fleet: Fleet, node: str) -> int:
    return next(int(row.versions["refused"]) for row in fleet.nodes() if row.name == node)


def _id(item: bytes) -> str:
    return str(json.loads(item)["headers"]["id"])


def _body(item: bytes) -> bytes:
    return base64.b64decode(json.loads(item)["body"])
