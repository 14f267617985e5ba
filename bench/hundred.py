"""A saved script on a hundred nodes: how long its request takes, and until the last of its orders is in a queue.

The hundred nodes are rows that say they are online, with keys of their own, and nobody consumes their queues: a hundred
workers on one machine would measure the machine. Everything up to the broker is as it is with real ones.
"""

from __future__ import annotations

import json
import time
from typing import Any

from sqlalchemy import insert, text

from app.cli.client import api
from app.ids import ulid
from app.services import people
from app.store.tables import Execution, Job, Node, Script, ScriptVersion, Task, table
from app.transport.keys import KeyPair
from app.transport.queues import node_queue
from bench import raw_wire, web
from bench.ours import Ours
from bench.processes import Broken, Processes

NODES = 100
POSTS = 5
"""Requests in one run, one after the other."""
WITHIN = 60

_HOSTS = [f"host-{number:03d}" for number in range(NODES)]
_STORED = "ref: bench.plain\ntasks:\n  - {name: one, action: core.noop}\n"
_PATH = api("automation", "scripts", "hundred", "execute")
_BODY = json.dumps({"host_ids": _HOSTS, "parameter_values": {"target": "/srv/www"}}).encode()
_COUNT = "local n = 0 for _, key in ipairs(KEYS) do n = n + redis.call('LLEN', key) end return n"
_AWAY = 3600
"""Seconds for which rows count as online, and nothing is sent twice."""


class Hundred:
    """A control worker and an API, with NODES rows of nodes and one saved script."""

    def __init__(self, processes: Processes, socket_path: str) -> None:
        self._processes = processes
        settings = {"MUSTER_OFFLINE_AFTER": str(_AWAY), "MUSTER_RESEND_AFTER": str(_AWAY)}
        self.fleet = Ours(processes, socket_path, 1, extra=settings)
        self._redis = raw_wire.connect(f"redis+socket://{socket_path}", database=0)
        self._queues = [node_queue(name) for name in _HOSTS]
        self._enrol()
        token = people.bootstrap_admin(self.fleet.store, time.time()) or ""
        self._client = web.serve(processes, "api", self.fleet.environment, token=token)
        self._client.call("POST", api("packs", "bench", "workflows"), body={"definition": _STORED})

    def request(self) -> float:
        """Milliseconds for an answer to `execute` on all the nodes. Control stands still meanwhile."""
        with self.fleet.control_stopped():
            found = web.rate(self._client, _PATH, _BODY, connections=1, requests=POSTS)
        self._wait_for(POSTS * NODES)
        self._clear()
        return 1e3 / found

    def plain(self) -> float:
        """Milliseconds for an answer to a plain POST: a stored workflow of one task that needs no node."""
        path = api("workflows", "bench.plain", "execute")
        with self.fleet.control_stopped():
            found = web.rate(self._client, path, b'{"parameters":{}}', connections=1, requests=POSTS)
        return 1e3 / found

    def published(self) -> float:
        """Milliseconds from the request until the last order is in its queue."""
        began = time.perf_counter()
        web.rate(self._client, _PATH, _BODY, connections=1, requests=1)
        self._wait_for(NODES)
        took = time.perf_counter() - began
        if any(self._redis.llen(queue) != 1 for queue in self._queues):
            raise Broken("not every node has exactly one order")
        self._clear()
        return took * 1e3

    def _wait_for(self, orders: int) -> None:
        deadline = time.monotonic() + WITHIN
        while self._count() < orders:
            if time.monotonic() > deadline:
                raise Broken(f"{self._count()} of {orders} orders are in their queues")

    def _count(self) -> int:
        found: Any = self._redis.eval(_COUNT, NODES, *self._queues)
        return int(found)

    def _clear(self) -> None:
        """Nobody runs these orders: they are taken out of the queues, and their executions deleted."""
        self._redis.delete(*self._queues)
        with self.fleet.store.write() as connection:
            for one in (Job, Task, Execution):
                column = "id" if one is Execution else "execution"
                mine = "SELECT id FROM executions WHERE kind = 'script'"
                connection.execute(text(f"DELETE FROM {one.__tablename__} WHERE {column} IN ({mine})"))

    def _enrol(self) -> None:
        now = time.time()
        with self.fleet.store.write() as connection:
            for name in _HOSTS:
                keys = KeyPair.generate()
                row: dict[str, object] = {
                    "name": name,
                    "public_keys": keys.public(),
                    "sign_kid": keys.kid,
                    "epoch": ulid(now),
                }
                row |= {"slots": 1000, "free": 1000, "shells": ["sh"], "last_seen": now, "enrolled_at": now}
                connection.execute(insert(table(Node)).values(row))
            script = {"id": ulid(now), "name": "hundred", "timeout": 60.0, "updated_by": "bench"}
            connection.execute(insert(table(Script)).values({**script, "created_at": now, "updated_at": now}))
            body = {"shell": "sh", "body": 'test -d "${target}"\n', "digest": "", "created_at": now}
            declared = [{"name": "target", "type": "string", "required": True}]
            version = {"script_id": script["id"], "version": 1, "parameters": declared, **body}
            connection.execute(insert(table(ScriptVersion)).values(version))


class RawHundred:
    """The peers: a plain POST to the same API, and raw Celery publishing as many messages to as many queues."""

    def __init__(self, served: Hundred, socket_path: str) -> None:
        self._served = served
        broker = raw_wire.url(socket_path)
        self._app = raw_wire.make_app(broker, "raw.hundred")
        self._redis = raw_wire.connect(broker)

    def plain(self) -> float:
        """Milliseconds for an answer to a plain POST."""
        return self._served.plain()

    def published(self) -> float:
        """Milliseconds for NODES messages, each to a queue of its own."""
        queues = [f"raw.{name}" for name in _HOSTS]
        began = time.perf_counter()
        for queue in queues:
            self._app.send_task(raw_wire.TRUE, args=("key",), queue=queue, ignore_result=True)
        took = time.perf_counter() - began
        if any(self._redis.llen(queue) != 1 for queue in queues):
            raise Broken("raw Celery did not publish every message")
        self._redis.delete(*queues)
        return took * 1e3

    def ran(self) -> int:
        """How many scripts have ended: none is ever started here."""
        return 0

    def close(self) -> None:
        self._app.close()
        self._redis.close()
