"""What Celery gets to see of a message: name and arguments, and nothing that makes it publish by itself.

Celery acts on more of a message than the task's arguments, and does so before or without the task's own code.
A writer on `results` (every node is one) could otherwise make control, which may write to every queue,
publish what he likes:

- bad arguments with an errback: the task raises before its first line, and `link_error` is sent to any queue;
- a callback (`link`): any task, any arguments, any queue, as soon as the task returns;
- a chain: the next link likewise; a chord: a part is counted in a foreign chord, or its body sent;
- `celery.group`, `celery.chord`, `celery.starmap` and the other built-ins: they publish what their arguments
  say;
- `expires` in the past with the id of another message: Celery notes the id as revoked and drops the genuine
  one;
- `reply_to`, `ignore_result: false`: results under chosen ids; `eta`: parked out of sight; stamps: revoked by
  header.

So `admit` runs before Celery's strategy and tracing. It lets through only the names that belong on a queue,
rebuilds the headers from an allowlist and takes callbacks, chain and chord off. Chain and chord are kept
beside the request as plain data; the task, and only after its own check of signature and digest, may send the
next link (`next_link`) or have the chord counted (`restore_chord`). What remains is a nudge with arguments.
This holds on every queue; on `control` and the like, which no node may write, `expires` is kept, for a tick
that came late is to be dropped.

Pure: nothing here publishes, reads a clock or knows a broker.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.errors import InvalidInput
from app.transport import queues
from app.transport.messages import JOB_ID, canonical
from app.transport.wire import CONTENT_ENCODING, CONTENT_TYPE, HIDDEN, Message

CANVAS = "muster_canvas"
"""The request attribute that holds the canvas which came with a message: data, not yet believed."""

_NAMES: Mapping[str, frozenset[str]] = {
    queues.RESULTS: frozenset({queues.COLLECT, queues.REPORT}),
    queues.HEARTBEATS: frozenset({queues.HEARTBEAT}),
    queues.TICK: frozenset({queues.TICK_TASK}),
    queues.IO: frozenset({queues.CALL}),
    queues.SSH: frozenset({queues.LOOK}),
}
_EMBEDDED = frozenset({"callbacks", "errbacks", "chain", "chord"})
_LINK = frozenset({"task", "args", "kwargs", "options", "subtask_type", "immutable", "chord_size"})
_OPTIONS = frozenset(
    {"queue", "task_id", "reply_to", "group_id", "group_index", "chord", "root_id", "parent_id"}
)
_LONGEST_CHAIN = 200


class Poison(InvalidInput):
    """A message that is not to be run. `code` is the reason, one of a few words: it is counted by."""

    code = "poison"


@dataclass(frozen=True, slots=True)
class Canvas:
    """What a message would have Celery do next: links with the next one last, the chord to count in."""

    chain: list[Any] | None = None
    chord: dict[str, Any] | None = None
    group_id: str | None = None
    group_index: int | None = None

    def __bool__(self) -> bool:
        return bool(self.chain or self.chord)

    def to_json(self) -> dict[str, Any]:
        # Not asdict: it would copy the rest of the chain, link by link, at every hop.
        return {
            "chain": self.chain,
            "chord": self.chord,
            "group_id": self.group_id,
            "group_index": self.group_index,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Canvas:
        """From `to_json`, out of a journal."""
        return cls(data["chain"], data["chord"], data["group_id"], data["group_index"])


@dataclass(frozen=True, slots=True)
class Admitted:
    """A message that may run: headers that we wrote, arguments as they came, the canvas as data."""

    name: str
    id: str
    headers: dict[str, Any]
    args: list[Any]
    kwargs: dict[str, Any]
    canvas: Canvas


def admit(queue: str, headers: Any, payload: Any) -> Admitted:
    """Looks at one decoded message from `queue`: its headers and its (args, kwargs, embed).

    Raises Poison with code `bad-headers`, `bad-arguments`, `bad-canvas` or `foreign-task`.
    """
    if not isinstance(headers, Mapping):
        raise Poison("the headers are no mapping", code="bad-headers")
    name, task_id = headers.get("task"), headers.get("id")
    if not isinstance(name, str) or not isinstance(task_id, str) or not JOB_ID.fullmatch(task_id):
        raise Poison("the headers lack a task's name or a plain id", code="bad-headers")
    if not belongs(queue, name):
        raise Poison(f"{name[:80]!r} has no business on queue {queue!r}", code="foreign-task")
    if not isinstance(payload, list | tuple) or len(payload) != 3:
        raise Poison("the body is not [args, kwargs, embed]", code="bad-arguments")
    args, kwargs, embed = payload
    if not isinstance(args, list | tuple) or not isinstance(kwargs, dict):
        raise Poison("args is no list or kwargs no mapping", code="bad-arguments")
    if not isinstance(embed, dict) or not set(embed) <= _EMBEDDED:
        raise Poison("the body embeds something unknown", code="bad-canvas")
    canvas = _canvas(embed, headers)
    clean: dict[str, Any] = {
        "lang": "py",
        "task": name,
        "id": task_id,
        "root_id": _plain(headers.get("root_id")) or task_id,
        "parent_id": _plain(headers.get("parent_id")),
        "retries": 0,
        "argsrepr": HIDDEN,
        "kwargsrepr": HIDDEN,
        "ignore_result": True,
        CANVAS: canvas.to_json(),
    }
    expires = headers.get("expires")
    if isinstance(expires, str) and _is_ours(queue):
        clean["expires"] = expires
    return Admitted(name, task_id, clean, list(args), kwargs, canvas)


def decode(message: Any) -> Any:
    """What a kombu message's body holds, as plain JSON: Celery's own decoder makes objects of what calls itself so.

    Raises Poison with code `bad-body`.
    """
    if (message.content_type, message.content_encoding) != (CONTENT_TYPE, CONTENT_ENCODING):
        raise Poison("no JSON in UTF-8", code="bad-body")
    body = message.body
    try:
        return json.loads(body if isinstance(body, str) else bytes(body).decode())
    except (TypeError, ValueError, RecursionError):
        raise Poison("the body cannot be decoded", code="bad-body") from None


def belongs(queue: str, name: str) -> bool:
    """Whether a task of this name may come from this queue. Celery's own tasks may come from none."""
    if name.startswith("celery."):
        return False
    node = queues.node_of(queue)
    if node is not None:
        return name == (queues.NODE_CTL if node[1] else queues.NODE_ORDER)
    return queue not in _NAMES or name in _NAMES[queue]


def take_canvas(request: Any) -> Canvas:
    """Takes the canvas off a task's request, so that Celery goes on with nothing, and returns it.

    Works on a request that came through `admit`, and on one from a plain Celery worker.
    """
    kept = getattr(request, CANVAS, None)
    canvas = (
        Canvas.from_json(kept)
        if isinstance(kept, Mapping)
        else Canvas(request.chain, request.chord, request.group, request.group_index)
    )
    request.chain = request.chord = request.callbacks = request.errbacks = None
    request.group = request.group_index = None
    return canvas


def next_link(request: Any, canvas: Canvas, value: Any) -> Message | None:
    """The call of the next link with `value` for its argument, as Celery would make it; None at a chain's end.

    For the task body alone, and only once the sender's signature holds and `canvas_digest` equals the one on
    record. Links are rebuilt from what the digest covers. Raises Poison if there is more in them.
    """
    if not canvas.chain:
        return None
    *rest, link = (_rebuilt(each) for each in canvas.chain)
    options = link["options"]
    return Message(
        options["queue"],
        link["task"],
        options["task_id"],
        link["args"] if link["immutable"] else [value, *link["args"]],
        chain=rest,
        chord=options.get("chord"),
        group_id=options.get("group_id"),
        group_index=options.get("group_index"),
        root_id=request.root_id,
        parent_id=request.id,
    )


def restore_chord(request: Any, canvas: Canvas) -> None:
    """Puts a canvas' chord back on a task's request: after the task Celery counts it.

    Under the conditions of `next_link`. Raises Poison, with the request unchanged, if there is more in the body
    than the digest covers.
    """
    chord = _rebuilt(canvas.chord) if canvas.chord else None
    request.chord, request.group, request.group_index = chord, canvas.group_id, canvas.group_index


def chord_body(request: Any) -> Message:
    """The call of the body of the chord that `restore_chord` has put on a task's request."""
    chord = request.chord
    return Message(
        chord["options"]["queue"],
        chord["task"],
        chord["options"]["task_id"],
        chord["args"],
        root_id=request.root_id,
        parent_id=request.id,
    )


def canvas_digest(chain: Sequence[Any] | None, chord: Any = None, group_id: str | None = None) -> str:
    """sha256 (hex) over name, queue, id and arguments of every link, and of the chord's body.

    `chain` is in a message's order, the next link last. Celery gives a chord's group an id of its own when it
    is sent: leave `group_id` out on both sides unless it is known. Raises Poison for a link that holds
    anything which the digest does not cover and Celery would act on: callbacks, another exchange, a nested
    canvas, a delay.
    """
    if chain is not None and not isinstance(chain, list | tuple):
        raise Poison("a chain is a list of links", code="bad-canvas")
    links = [_covered(link) for link in chain or ()]
    body = _covered(chord) if chord else None
    try:
        return hashlib.sha256(canonical([links, body, group_id])).hexdigest()
    except (TypeError, ValueError, RecursionError):
        raise Poison("a link of the canvas holds what is no JSON", code="bad-canvas") from None


def _canvas(embed: Mapping[str, Any], headers: Mapping[str, Any]) -> Canvas:
    chain, chord = embed.get("chain"), embed.get("chord")
    group, index = headers.get("group"), headers.get("group_index")
    if (
        not (chain is None or (isinstance(chain, list | tuple) and len(chain) <= _LONGEST_CHAIN))
        or not (chord is None or isinstance(chord, dict))
        or not (group is None or isinstance(group, str))
        or not (index is None or type(index) is int)
    ):
        raise Poison("chain, chord or group is no such thing", code="bad-canvas")
    return Canvas(None if chain is None else list(chain), chord, group, index)


def _covered(link: Any) -> list[Any]:
    """What there is to a link; raises Poison where there is more."""
    # `dict`, not Mapping, which takes several times as long: a line's links are looked at in every hop.
    if not isinstance(link, dict) or not link.keys() <= _LINK:
        raise Poison("a link of the canvas is no plain signature", code="bad-canvas")
    options = link.get("options")
    if not isinstance(options, dict) or not options.keys() <= _OPTIONS:
        raise Poison("a link of the canvas has options that it may not have", code="bad-canvas")
    name, queue, task_id, args = (
        link.get("task"),
        options.get("queue"),
        options.get("task_id"),
        link.get("args"),
    )
    if not (isinstance(name, str) and isinstance(queue, str) and isinstance(task_id, str)):
        raise Poison("a link of the canvas lacks its name, queue or id", code="bad-canvas")
    if link.get("kwargs") or link.get("subtask_type") is not None or not isinstance(args, list | tuple):
        raise Poison("a link of the canvas has keyword arguments or a canvas of its own", code="bad-canvas")
    nested = options.get("chord")
    body = _covered(nested) if nested else None
    return [name, queue, task_id, list(args), bool(link.get("immutable")), body]


def _rebuilt(link: Any) -> dict[str, Any]:
    name, queue, task_id, args, immutable, body = _covered(link)
    options = {"queue": queue, "task_id": task_id}
    given = link["options"]
    if len(given) > len(options):
        options |= {kept: given[kept] for kept in ("group_id", "group_index") if given.get(kept) is not None}
        if body:
            options["chord"] = _rebuilt(given["chord"])
    return {
        "task": name,
        "args": args,
        "kwargs": {},
        "options": options,
        "subtask_type": None,
        "immutable": immutable,
    }


def _is_ours(queue: str) -> bool:
    return queue not in (queues.RESULTS, queues.HEARTBEATS) and queues.node_of(queue) is None


def _plain(value: Any) -> str | None:
    return value if isinstance(value, str) and JOB_ID.fullmatch(value) else None
