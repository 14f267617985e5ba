"""One factory for every Celery app of the fleet: what a role may do is settled here and nowhere else.

control   late ack, own queues, chord counters in Redis; may send to any queue
node      early ack (its journal answers for the job), own queues only; sends to `results`, `heartbeats`
sender    the API and the command line: send, never consume
beat      only ticks
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from celery import Celery, Task
from celery.app.amqp import AMQP, Queues
from celery.app.utils import Settings
from kombu import Exchange, Queue

from app.errors import InvalidInput
from app.transport import queues as names
from app.transport import restore, wire
from app.transport.channel import Connection
from app.transport.events import QuietEvents
from app.transport.publisher import Publisher

Role = Literal["control", "node", "beat", "sender"]

LOADER = "celery.loaders.app:AppLoader"
"""Celery's own, which CELERY_LOADER would replace if it were not named."""

_DAY = 86_400
_VISIBILITY = 600
_REDIS = ("redis", "rediss")
_AMQP = ("amqp", "amqps", "pyamqp")
_LIFETIMES = {names.TICK: 2.0, names.HEARTBEATS: 60.0}
"""Seconds after which RabbitMQ drops a message of these: a late one says nothing, and where nobody takes them they
would pile up."""


@dataclass(frozen=True, slots=True)
class Place:
    """What an app is for: its role, the worker's name, the queues that it consumes, where its name's lock
    lies, and whether its broker is RabbitMQ."""

    role: Role
    name: str
    queues: tuple[str, ...]
    state_dir: Path | None
    is_rabbit: bool


class QuietTask(Task):
    """No part of a result in logs or events, and nothing decoded twice."""

    abstract = True
    resultrepr_maxsize = 0
    Request = "app.transport.request:Request"


class PlainQueues(Queues):
    """Queues on the default exchange: a queue's name is its address, so Redis holds no bindings that could be
    lost."""

    def _add(self, queue: Queue) -> Queue:
        self[queue.name] = queue
        return queue

    def new_missing(self, name: str) -> Queue:
        return make_queue(name)


class RabbitQueues(PlainQueues):
    """The same on RabbitMQ, but for what nodes write to."""

    def new_missing(self, name: str) -> Queue:
        return make_rabbit_queue(name)


class QuietAMQP(AMQP):
    """Sends over our channel, and no part of the arguments in headers."""

    Connection = Connection

    @property
    def queues_cls(self) -> type[PlainQueues]:
        return RabbitQueues if self.app.muster.is_rabbit else PlainQueues

    def as_task_v2(self, *args: Any, **options: Any) -> Any:
        options.update(argsrepr=wire.HIDDEN, kwargsrepr=wire.HIDDEN)
        return super().as_task_v2(*args, **options)


class OwnSettings(Settings):
    """Celery's settings as they were given. Its own prefer variables (CELERY_RESULT_BACKEND, CELERY_BROKER_READ_URL)
    that may be meant for another app, and what `celery -b`, BROKER_URL and RESULT_BACKEND put there."""

    @property
    def broker_url(self) -> Any:
        return self.get("broker_url")

    @property
    def broker_read_url(self) -> Any:
        return self.broker_url

    @property
    def broker_write_url(self) -> Any:
        return self.broker_url

    @property
    def result_backend(self) -> Any:
        return self.get("result_backend")


def keep_own_settings(app: Celery) -> None:
    """Has nothing from the environment take the place of what `app` is set to."""
    app.conf.finalize()
    # Settings' own way of setting an attribute makes it a setting.
    object.__setattr__(app.conf, "__class__", OwnSettings)


class Muster(Celery):
    """A Celery app with our transport, worker and manners. `muster` says what it is for, `publisher` sends."""

    amqp_cls = QuietAMQP
    events_cls = QuietEvents
    task_cls = QuietTask
    muster: Place

    @cached_property
    def Worker(self) -> Any:
        return self.subclass_with_self("app.transport.worker:Worker")

    @cached_property
    def publisher(self) -> Publisher:
        return Publisher(self)

    def close(self) -> None:
        self.publisher.close()
        super().close()


def make_queue(name: str) -> Queue:
    """The declaration of a queue, for a consumer of one's own."""
    return Queue(name, Exchange(""), routing_key=name)


def make_rabbit_queue(name: str, *, is_node: bool = False) -> Queue:
    """The declaration of a queue on RabbitMQ. What nodes write to has an exchange of its own, for whoever may write to
    the default one may write to every queue. A node declares its own queues only: it has no right to more."""
    lifetime = _LIFETIMES.get(name)
    if name not in (names.RESULTS, names.HEARTBEATS):
        return Queue(name, Exchange(""), routing_key=name, message_ttl=lifetime)
    exchange = Exchange(names.FROM_NODES, type="direct")
    return Queue(name, exchange, routing_key=name, message_ttl=lifetime, no_declare=is_node)


def make_celery(
    role: Role,
    *,
    broker_url: str,
    name: str,
    backend_url: str | None = None,
    queues: Sequence[str] = (),
    concurrency: int = 1,
    pool: str = "threads",
    state_dir: Path | None = None,
    remote_control: bool = False,
) -> Muster:
    """The app of one process.

    `name` is the worker's stable name: its unacknowledged messages are filed under it, and one process on a
    machine may use it. `queues` are those that a worker consumes, `concurrency` and `pool` its size and kind,
    so that `celery worker` needs no flags. `backend_url` (Redis) counts chords, for control and sender; a
    node has none. `state_dir` is where the name's lock lies. `remote_control` is refused on nodes: it is an
    unsigned way in.

    Raises InvalidInput for a broker that is neither Redis nor RabbitMQ, or for a node with a backend.
    """
    scheme = broker_url.partition("://")[0].split("+")[0]
    if scheme not in (*_REDIS, *_AMQP):
        raise InvalidInput(f"a broker of kind {scheme!r} is not known", hint="use redis:// or amqp://")
    if role == "node" and (backend_url or remote_control):
        raise InvalidInput("a node has no result backend and takes no remote control")
    app = Muster(name, loader=LOADER, set_as_current=False)
    keep_own_settings(app)
    is_rabbit = scheme in _AMQP
    app.muster = Place(role, name, tuple(queues), state_dir, is_rabbit)
    app.loader.override_backends = dict.fromkeys(_REDIS, "app.transport.chords:ChordBackend")
    app.conf.update(
        broker_url=broker_url,
        result_backend=backend_url,
        broker_transport_options=_transport(scheme, role, name),
        task_queues=[
            make_rabbit_queue(queue, is_node=role == "node") if is_rabbit else make_queue(queue)
            for queue in _known(role, queues)
        ],
        task_default_queue=names.RESULTS if role == "node" else names.CONTROL,
        task_create_missing_queues=role in ("control", "sender"),
        task_acks_late=role == "control",
        worker_concurrency=concurrency,
        worker_pool=pool,
        worker_enable_remote_control=remote_control,
        result_expires=7 * _DAY if role in ("control", "sender") else None,
        # redis-py's unix sockets do not know the option.
        redis_socket_keepalive=bool(backend_url) and "+socket" not in str(backend_url),
        broker_heartbeat=10 if is_rabbit else 0,
        **_SETTINGS,
    )
    return app


_SETTINGS: dict[str, Any] = {
    "task_serializer": "json",
    "result_serializer": "json",
    "event_serializer": "json",
    "accept_content": ["json"],
    "result_accept_content": ["json"],
    "enable_utc": True,
    "timezone": "UTC",
    "task_ignore_result": True,
    "task_store_errors_even_if_ignored": False,
    "task_reject_on_worker_lost": False,
    "task_send_sent_event": False,
    "task_publish_retry": True,
    "task_publish_retry_policy": {
        "max_retries": 5,
        "interval_start": 0,
        "interval_step": 0.2,
        "interval_max": 2,
    },
    "result_chord_expires": 30 * _DAY,
    # One backend for all threads of a process: it has nothing but a line, which they may share.
    "result_backend_thread_safe": True,
    "redis_socket_connect_timeout": 5.0,
    # They wait for each other there.
    "redis_socket_timeout": 5.0,
    "worker_consumer": "app.transport.worker:Consumer",
    "worker_prefetch_multiplier": 1,
    # With it a thread of the pool talks on the loop's connection to RabbitMQ after a reconnect, and both may hang.
    "worker_enable_prefetch_count_reduction": False,
    "worker_send_task_events": False,
    "worker_disable_rate_limits": True,
    "worker_hijack_root_logger": False,
    "worker_redirect_stdouts": False,
    "worker_cancel_long_running_tasks_on_connection_loss": False,
    "broker_connection_retry": True,
    "broker_connection_retry_on_startup": True,
    "broker_connection_max_retries": None,
    "broker_channel_error_retry": True,
    "broker_pool_limit": 4,
}


def _known(role: Role, queues: Sequence[str]) -> list[str]:
    # A node may send to these two and nowhere else: another queue is an error here, before the broker's.
    extra = (names.RESULTS, names.HEARTBEATS) if role == "node" else (names.CONTROL,)
    return list(dict.fromkeys((*queues, *extra)))


def _transport(scheme: str, role: Role, name: str) -> dict[str, Any]:
    if scheme in _AMQP:
        client = {"connection_name": f"muster:{role}:{name}"}
        return {"confirm_publish": True, "client_properties": client}
    # A node's journal answers for what it took: what is lost on the way there is sent again by control.
    kept: dict[str, Any] = {"ack_emulation": False}
    if role != "node":
        kept = {**restore.own_keys(name), "visibility_timeout": _VISIBILITY, "unacked_restore_interval": 5}
    return {
        **kept,
        "priority_steps": [0],
        "health_check_interval": 25,
        "socket_keepalive": True,
        "socket_connect_timeout": 5,
        "socket_timeout": 30,
        "client_name": f"muster:{role}:{name}",
    }
