"""`muster doctor` where RabbitMQ is the broker: whether it answers, and what is missing there for this user."""

from __future__ import annotations

from typing import Any

from amqp import exceptions
from amqp.basic_message import Message
from kombu import Connection
from kombu.exceptions import KombuError

from app.cli.finding import Finding
from app.errors import MusterError
from app.transport import queues
from app.transport.celery_app import make_rabbit_queue

NAME = "broker"
SECONDS = 5.0
"""How long the server may take for each answer."""
_SETUP = "docs/operations.md has the rights of every user, under RabbitMQ"


def check(url: str, node: str) -> Finding:
    """Looks at the server behind `url` as the user in it: `node` is the node's name, empty on the control side."""
    options = {"read_timeout": SECONDS, "write_timeout": SECONDS, "confirm_publish": True}
    connection = Connection(url, connect_timeout=SECONDS, transport_options=options)
    try:
        connection.connect()
        return _node(connection, node) if node else _control(connection)
    except exceptions.NotAllowed:
        return _fail(connection, "the user may not enter the virtual host, or there is none", _SETUP)
    except exceptions.AccessRefused as refused:
        return _fail(connection, f"refused: {_words(refused)}", _SETUP)
    except MusterError as error:
        return Finding(NAME, "fail", error.message, error.hint)
    except (exceptions.AMQPError, KombuError, OSError, ValueError) as error:
        hint = "start it, or mend CELERY_BROKER_URL"
        return _fail(connection, f"does not answer: {type(error).__name__}", hint)
    finally:
        connection.release()


def _control(connection: Connection) -> Finding:
    try:
        connection.channel().exchange_declare(queues.FROM_NODES, "direct", passive=True)
    except exceptions.NotFound:
        return _no_exchange(connection)
    for queue in (queues.RESULTS, queues.HEARTBEATS):
        if not _consumers(connection, queue):
            return _warn(connection, f"nobody takes from {queue!r}", "start a control worker")
    return Finding(NAME, "ok", f"{connection.as_uri()} answers; outcomes and heartbeats are taken")


def _node(connection: Connection, node: str) -> Finding:
    for name in (queues.node_queue(node), queues.node_ctl_queue(node)):
        # As the worker does it: what is there already stays as it is.
        make_rabbit_queue(name, is_node=True)(connection.channel()).declare()
    # No queue has this address: the right to write is tried, and nothing is written.
    try:
        connection.channel().basic_publish(Message(""), queues.FROM_NODES, "doctor")
    except exceptions.NotFound:
        return _no_exchange(connection)
    if not _consumers(connection, queues.node_queue(node)):
        return _warn(connection, f"nobody takes the orders of {node}", "start its worker")
    return Finding(
        NAME, "ok", f"{connection.as_uri()} answers; {node} has its queues and may say what it has done"
    )


def _consumers(connection: Connection, queue: str) -> int:
    try:
        return int(connection.channel().queue_declare(queue, passive=True).consumer_count)
    except exceptions.NotFound:
        return 0


def _no_exchange(connection: Connection) -> Finding:
    return _warn(connection, f"no exchange {queues.FROM_NODES!r} yet", "a control worker makes it: start one")


def _words(error: Any) -> str:
    return str(error.reply_text or error)


def _fail(connection: Connection, what: str, hint: str) -> Finding:
    return Finding(NAME, "fail", f"{connection.as_uri()}: {what}", hint)


def _warn(connection: Connection, what: str, hint: str) -> Finding:
    return Finding(NAME, "warn", f"{connection.as_uri()}: {what}", hint)
