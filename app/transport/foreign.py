"""Tasks of Celery apps that know nothing of Muster: sent by name, their results looked for where those apps keep them.

A file names the connections; what is in it (it holds passwords) is told to nobody. Results are read as the JSON that
they are: nothing of a foreign app is imported, and no exception of it is built here.
"""

from __future__ import annotations

import json
import threading
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from celery import Celery
from redis import Redis
from redis.exceptions import RedisError

from app.errors import InvalidInput, Unavailable
from app.transport.celery_app import LOADER, keep_own_settings

SECONDS: Final = 5.0
"""How long a broker or a backend of others may take for one thing."""

_FILE_BYTES = 65_536
_KEYS = frozenset({"broker", "backend", "queue"})
_BROKERS = ("redis://", "rediss://", "redis+socket://", "amqp://", "amqps://", "pyamqp://")
_BACKENDS = ("redis://", "rediss://", "redis+socket://")
_PREFIX = "celery-task-meta-"
_FAILURES = frozenset({"FAILURE", "REVOKED"})


class Doubtful(Exception):
    """The message was on its way when something broke: it may have been taken."""


@dataclass(frozen=True, slots=True)
class Connection:
    """Another app's broker, where it keeps results ("" for none), and its queue where a call names none."""

    name: str
    broker: str = field(repr=False)
    backend: str = field(default="", repr=False)
    queue: str = "celery"


@dataclass(frozen=True, slots=True)
class Ended:
    """What became of a foreign task: `error` is None where it succeeded."""

    result: Any = None
    error: Mapping[str, Any] | None = None


def read_connections(path: str) -> dict[str, Connection]:
    """The connections of a TOML file, a table each. Raises InvalidInput, which never tells what a URL is."""
    if not path:
        raise InvalidInput("there are no connections: MUSTER_CELERY_CONNECTIONS names no file")
    try:
        with Path(path).open("rb") as file:
            text = file.read(_FILE_BYTES + 1)
        if len(text) > _FILE_BYTES:
            raise InvalidInput(f"{path} has more than {_FILE_BYTES} bytes")
        data = tomllib.loads(text.decode())
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} cannot be read: {type(error).__name__}") from None
    except tomllib.TOMLDecodeError:
        raise InvalidInput(f"{path} is no TOML") from None
    return {name: _connection(path, name, table) for name, table in data.items()}


def _connection(path: str, name: str, table: Any) -> Connection:
    if not isinstance(table, dict) or not table.keys() <= _KEYS or "broker" not in table:
        raise InvalidInput(f"{path}: [{name}] must have `broker`, and may have `backend` and `queue`")
    if not all(isinstance(value, str) and value for value in table.values()):
        raise InvalidInput(f"{path}: the values of [{name}] must be texts")
    if not table["broker"].startswith(_BROKERS):
        raise InvalidInput(f"{path}: the broker of [{name}] must be Redis or RabbitMQ")
    if not table.get("backend", _BACKENDS[0]).startswith(_BACKENDS):
        raise InvalidInput(f"{path}: the backend of [{name}] must be Redis")
    return Connection(name, **table)


class Foreign:
    """Sends to foreign apps and asks for results. Thread safe; keeps one client for each connection it has used."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._apps: dict[Connection, Celery] = {}
        self._backends: dict[Connection, Redis] = {}

    def connection(self, name: str) -> Connection:
        """Raises InvalidInput where the file has no such connection, or cannot be read."""
        found = read_connections(self._path)
        if name not in found:
            known = ", ".join(sorted(found)) or "none"
            raise InvalidInput(f"no connection named {name[:64]!r} in {self._path}; it has {known}")
        return found[name]

    def send(
        self,
        to: Connection,
        job: str,
        task: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        queue: str,
        *,
        traceparent: str = "",
    ) -> None:
        """Publish one call under the job's id.

        Raises Unavailable where nothing was sent, Doubtful where it may have been.
        """
        app = self._app(to)
        # Named, for Celery prefers the broker of its environment, which is ours.
        with app.connection_for_write(url=to.broker) as broker:
            try:
                broker.ensure_connection(max_retries=1, interval_start=0, timeout=SECONDS)
            except Exception as error:  # noqa: BLE001 - the edge to the broker's client: kombu raises anything
                raise Unavailable(
                    f"the broker of {to.name} does not answer: {type(error).__name__}"
                ) from None
            try:
                app.send_task(
                    task,
                    args=list(args),
                    kwargs=dict(kwargs),
                    task_id=job,
                    queue=queue or to.queue,
                    headers={"traceparent": traceparent} if traceparent else None,
                    connection=broker,
                    retry=False,
                )
            except Exception as error:  # noqa: BLE001 - the same edge
                raise Doubtful(f"the broker of {to.name} broke off: {type(error).__name__}") from None

    def ended(self, at: Connection, job: str, limit: int) -> Ended | None:
        """What became of a call, None while nothing is known. Raises Unavailable where the backend does not answer.

        A result of more than `limit` bytes, or one that is no JSON, is an error of the call.
        """
        if not at.backend:
            raise InvalidInput(f"connection {at.name} has no `backend`, so no result can come back")
        client = self._backend(at)
        try:
            size = client.strlen(_PREFIX + job)
            text = client.getrange(_PREFIX + job, 0, limit) if size else b""
        except RedisError as error:
            raise Unavailable(f"the backend of {at.name} does not answer: {type(error).__name__}") from None
        if not text:
            return None
        if len(text) > limit:
            return Ended(error=_error(f"the result has more than {limit} bytes", kind="too_large"))
        try:
            found = json.loads(text, parse_constant=_refused)
            # A number such as 1e999 can be written as JSON and read, but not be kept.
            json.dumps(found, allow_nan=False)
        except (ValueError, RecursionError):
            return Ended(error=_error("the result is no JSON"))
        return (
            _ended(found)
            if isinstance(found, dict)
            else Ended(error=_error("the result is none of Celery's"))
        )

    def close(self) -> None:
        for app in self._apps.values():
            app.close()
        for client in self._backends.values():
            client.close()

    def _app(self, to: Connection) -> Celery:
        with self._lock:
            if to not in self._apps:
                app = Celery(loader=LOADER, set_as_current=False, broker=to.broker, backend="disabled://")
                keep_own_settings(app)
                app.conf.update(
                    task_serializer="json",
                    accept_content=["json"],
                    broker_connection_timeout=SECONDS,
                    broker_transport_options={
                        "socket_connect_timeout": SECONDS,
                        "socket_timeout": SECONDS,
                        "max_retries": 1,
                    }
                    if to.broker.startswith("redis")
                    else {"confirm_publish": True},
                )
                self._apps[to] = app
            return self._apps[to]

    def _backend(self, at: Connection) -> Redis:
        with self._lock:
            if at not in self._backends:
                url = at.backend.replace("redis+socket://", "unix://")
                self._backends[at] = Redis.from_url(
                    url, socket_connect_timeout=SECONDS, socket_timeout=SECONDS
                )
            return self._backends[at]


def _ended(found: Mapping[str, Any]) -> Ended | None:
    """From what Celery wrote. A task that merely started, or that its app tries again, is not over."""
    status, result = found.get("status"), found.get("result")
    if status == "SUCCESS":
        return Ended(result)
    if status not in _FAILURES:
        return None
    told = result if isinstance(result, Mapping) else {}
    message = told.get("exc_message", "")
    if isinstance(message, list | tuple):
        message = ", ".join(str(part) for part in message)
    name = str(told.get("exc_type") or str(status).capitalize())
    return Ended(error=_error(f"{name}: {message}"[:2000], exception=name[:200]))


def _error(message: str, *, kind: str = "celery", **more: Any) -> dict[str, Any]:
    return {"type": kind, "message": message, **more}


def _refused(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")
