"""The names of queues and of Celery tasks: the only place where they are spelled."""

from __future__ import annotations

from app.errors import InvalidInput
from app.transport.messages import NODE_NAME

RESULTS = "results"
HEARTBEATS = "heartbeats"
CONTROL = "control"
TICK = "tick"
IO = "io"
SSH = "ssh"
DEAD = "dead"

FROM_NODES = "from-nodes"
"""RabbitMQ's exchange for `results` and `heartbeats`: the only one that a node's user may write to."""

NODE_ORDER = "node.order"
NODE_CTL = "node.ctl"
COLLECT = "control.collect"
REPORT = "control.report"
HEARTBEAT = "control.heartbeat"
SETTLE = "control.settle"
TICK_TASK = "control.tick"
KEEP_OUTPUT = "control.keep_output"
CALL = "control.io"
LOOK = "remote.look"

_PREFIX = "node."
_CTL = ".ctl"


def node_queue(node: str) -> str:
    """The queue that only the worker of `node` consumes: its orders.

    A node's name may not hold a dot, so no node's queue can be another's `.ctl`. Raises InvalidInput for
    what is no name.
    """
    return _PREFIX + _checked(node)


def node_ctl_queue(node: str) -> str:
    """The queue of signed cancels and questions to `node`. Raises InvalidInput like `node_queue`."""
    return _PREFIX + _checked(node) + _CTL


def node_of(queue: str) -> tuple[str, bool] | None:
    """The node that a queue belongs to and whether it is its `.ctl`; None for any other queue."""
    if not queue.startswith(_PREFIX):
        return None
    node, is_ctl = queue[len(_PREFIX) :], queue.endswith(_CTL)
    node = node.removesuffix(_CTL)
    return (node, is_ctl) if NODE_NAME.fullmatch(node) else None


def _checked(node: str) -> str:
    # fullmatch: `$` alone would let a trailing newline into a Redis key and an ACL pattern.
    if not isinstance(node, str) or not NODE_NAME.fullmatch(node):
        raise InvalidInput(
            f"{node!r} is not a node's name",
            hint="use lower-case letters, digits and `-`, starting with a letter or digit, 63 at the most",
            code="bad-node-name",
        )
    return node
