"""The gate as a function: what it lets through, what it rebuilds, and what a canvas digest covers."""

from __future__ import annotations

import copy
import json
from types import SimpleNamespace
from typing import Any

import pytest

from app.transport import queues
from app.transport.gate import (
    Canvas,
    Poison,
    admit,
    belongs,
    canvas_digest,
    next_link,
    restore_chord,
    take_canvas,
)
from app.transport.wire import Message

EMBED = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
HEADERS = {"task": queues.COLLECT, "id": "e1.a.0.1.collect", "root_id": "e1.a.0.1"}
NEXT: dict[str, Any] = {
    "task": queues.NODE_ORDER,
    "args": [],
    "kwargs": {},
    "options": {"queue": "node.web-2", "task_id": "e1.b.0.1"},
    "subtask_type": None,
    "immutable": False,
}
BODY = {
    "task": queues.SETTLE,
    "args": ["e1"],
    "kwargs": {},
    "options": {"queue": queues.CONTROL, "task_id": "e1.settle"},
    "subtask_type": None,
    "immutable": True,
    "chord_size": 3,
}


@pytest.mark.parametrize(
    ("queue", "allowed"),
    [
        (queues.RESULTS, {queues.COLLECT, queues.REPORT}),
        (queues.HEARTBEATS, {queues.HEARTBEAT}),
        (queues.TICK, {queues.TICK_TASK}),
        ("node.web-1", {queues.NODE_ORDER}),
        ("node.web-1.ctl", {queues.NODE_CTL}),
    ],
)
def test_each_queue_has_its_names(queue: str, allowed: set[str]) -> None:
    every = {
        queues.COLLECT,
        queues.REPORT,
        queues.HEARTBEAT,
        queues.TICK_TASK,
        queues.NODE_ORDER,
        queues.NODE_CTL,
    }
    every |= {queues.SETTLE, queues.KEEP_OUTPUT, "os.system", "", "celery.group"}
    assert {name for name in every if belongs(queue, name)} == allowed


def test_no_queue_runs_what_celery_brings_along() -> None:
    for name in (
        "chain",
        "group",
        "chord",
        "map",
        "starmap",
        "chunks",
        "chord_unlock",
        "backend_cleanup",
        "accumulate",
    ):
        for queue in (queues.RESULTS, queues.CONTROL, queues.IO, queues.TICK, "node.web-1", "celery"):
            assert not belongs(queue, f"celery.{name}")
    assert belongs(queues.CONTROL, queues.SETTLE)
    assert belongs(queues.IO, queues.CALL)
    assert not belongs(queues.IO, queues.COLLECT)
    assert belongs(queues.SSH, queues.LOOK)
    assert not belongs(queues.SSH, queues.NODE_ORDER)


def test_headers_are_rebuilt_and_the_canvas_is_only_kept() -> None:
    hostile = {
        **HEADERS,
        "eta": "2999-01-01T00:00:00",
        "expires": "2020-01-01T00:00:00",
        "timelimit": [0.1, 0.1],
        "ignore_result": False,
        "argsrepr": "\x1b[31m",
        "shadow": "control.tick",
        "stamps": {"a": 1},
        "stamped_headers": ["a"],
        "replaced_task_nesting": 3,
        "muster_canvas": {"chain": [1]},
        "root_id": "a\nb",
        "group": "g1",
        "group_index": 2,
        "x": 1,
    }
    found = admit(queues.RESULTS, hostile, [["sealed"], {}, {**EMBED, "chain": [NEXT], "callbacks": [NEXT]}])
    assert found.headers == {
        "lang": "py",
        "task": queues.COLLECT,
        "id": HEADERS["id"],
        "root_id": HEADERS["id"],
        "parent_id": None,
        "retries": 0,
        "argsrepr": "-",
        "kwargsrepr": "-",
        "ignore_result": True,
        "muster_canvas": {"chain": [NEXT], "chord": None, "group_id": "g1", "group_index": 2},
    }
    assert (found.args, found.kwargs) == (["sealed"], {})


def test_only_a_queue_of_our_own_says_that_a_message_is_too_late() -> None:
    for queue, name, kept in ((queues.TICK, queues.TICK_TASK, True), (queues.RESULTS, queues.COLLECT, False)):
        found = admit(queue, {"task": name, "id": "t", "expires": "2020-01-01T00:00:00"}, [[], {}, EMBED])
        assert ("expires" in found.headers) is kept


def request(**fields: Any) -> Any:
    empty = {
        "chain": None,
        "chord": None,
        "callbacks": None,
        "errbacks": None,
        "group": None,
        "group_index": None,
    }
    return SimpleNamespace(**{**empty, **fields})


def test_the_canvas_is_taken_from_a_gated_and_from_a_plain_request() -> None:
    canvas = Canvas([NEXT], BODY, "g1", 0)
    gated = request(muster_canvas=json.loads(json.dumps(canvas.to_json())))
    plain = request(chain=[NEXT], chord=BODY, group="g1", group_index=0, callbacks=[NEXT], errbacks=[NEXT])
    for each in (gated, plain):
        assert take_canvas(each) == canvas
        left = (each.chain, each.chord, each.callbacks, each.errbacks, each.group, each.group_index)
        assert left == (None,) * 6
    assert not take_canvas(request())


def test_what_is_put_back_is_rebuilt() -> None:
    added = {**NEXT, "options": {**NEXT["options"], "reply_to": "theirs", "root_id": "r"}}
    target = request(id="now", root_id="first")
    later = {**added, "options": {**added["options"], "task_id": "e1.c.0.1"}}
    link = next_link(target, Canvas([later, added]), "sealed")
    assert link == Message(
        "node.web-2",
        queues.NODE_ORDER,
        "e1.b.0.1",
        ["sealed"],
        chain=[{**NEXT, "options": {**NEXT["options"], "task_id": "e1.c.0.1"}}],
        root_id="first",
        parent_id="now",
    )
    assert next_link(target, Canvas(None, BODY), "sealed") is None
    fixed = next_link(target, Canvas([{**NEXT, "args": ["own"], "immutable": True}]), "sealed")
    assert fixed is not None
    assert fixed.args == ["own"]
    restore_chord(target, Canvas([added], {**BODY}, "g1", 1))
    assert target.chain is None
    assert target.chord == {key: value for key, value in BODY.items() if key != "chord_size"}
    assert (target.group, target.group_index) == ("g1", 1)


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    children = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    return [path, *(deeper for name, child in children for deeper in _paths(child, (*path, name)))]


def test_whatever_is_changed_in_a_canvas_is_seen() -> None:
    last = {
        **NEXT,
        "task": queues.COLLECT,
        "options": {"queue": queues.RESULTS, "task_id": "c", "chord": BODY},
    }
    chain: list[Any] = [last, NEXT]
    right = canvas_digest(chain, BODY, "g1")
    assert right == canvas_digest(json.loads(json.dumps(chain)), json.loads(json.dumps(BODY)), "g1")
    free = {"chord_size"}
    tried = 0
    for path in _paths([chain, BODY]):
        if not path or path[-1] in free:
            continue
        for value in ("x", 5, ["x"], {"x": "x"}, True):
            changed = copy.deepcopy([chain, BODY])
            target: Any = changed
            for step in path[:-1]:
                target = target[step]
            if target[path[-1]] == value or (path[-1] == "immutable" and value):
                continue
            target[path[-1]] = value
            tried += 1
            assert _seen(right, changed[0], changed[1])
    for option in (
        "link",
        "link_error",
        "exchange",
        "routing_key",
        "countdown",
        "eta",
        "headers",
        "priority",
        "chain",
    ):
        tried += 1
        assert _seen(right, [last, {**NEXT, "options": {**NEXT["options"], option: [NEXT]}}], BODY)
    for chained, chord, group in (
        (chain[::-1], BODY, "g1"),
        (chain[:1], BODY, "g1"),
        ([*chain, NEXT], BODY, "g1"),
        (chain, None, "g1"),
        (chain, BODY, "g2"),
        (chain, BODY, None),
        (None, BODY, "g1"),
    ):
        tried += 1
        assert canvas_digest(chained, chord, group) != right
    assert tried > 100


def _seen(right: str, chain: Any, chord: Any) -> bool:
    try:
        return canvas_digest(chain, chord, "g1") != right
    except Poison as poison:
        return poison.code == "bad-canvas"


def test_a_request_keeps_nothing_of_a_canvas_that_is_refused() -> None:
    target = request()
    target.root_id = target.id = "e1"
    for chain in ([{**NEXT, "subtask_type": "group"}], [{**NEXT, "subtask_type": "group"}, NEXT]):
        with pytest.raises(Poison):
            next_link(target, Canvas(chain), "sealed")
    with pytest.raises(Poison):
        restore_chord(target, Canvas([NEXT], {**BODY, "options": {"link": [NEXT]}}))
    assert target == request(id="e1", root_id="e1")
