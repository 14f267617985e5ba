"""Raw Celery's side: its workers, and the canvases that stand for our executions."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from functools import partial
from typing import Any, cast

from celery import chain, chord

from bench import raw_wire
from bench.processes import Broken, Processes, wait_for
from bench.raw_wire import CONTROL, COUNT, HOP, JOIN, TRUE

END_WITHIN = 120
"""Seconds that a canvas may take."""


class Raw:
    """`nodes` node workers and a control worker: `-P threads -c 8`, early ack, no stored results.

    `rabbit` is the URL of a RabbitMQ that is the broker in place of Redis.
    """

    def __init__(self, processes: Processes, socket_path: str, nodes: int, rabbit: str = "") -> None:
        url = raw_wire.url(socket_path)
        self._app = raw_wire.make_app(url, CONTROL, rabbit)
        self._client = raw_wire.connect(url)
        self._numbers = itertools.count()
        self.queues = [f"raw.node-{number}" for number in range(1, nodes + 1)]
        for queue in (*self.queues, CONTROL):
            environment = {"RAW_BROKER": url, "RAW_RABBIT": rabbit, "RAW_QUEUE": queue}
            processes.worker(queue, "bench.raw_app", environment)
        for queue in (*self.queues, CONTROL):
            key = self._key()
            self._signature(COUNT, queue, key).apply_async()
            wait_for(f"{queue} works", partial(self._client.llen, key), processes)

    def two_hops(self, steps: int) -> float:
        """Seconds for a chain of `true` on a node and nothing on control, `steps` times."""
        key, queue = self._key(), self.queues[0]
        links = [
            self._signature(name, at) for _ in range(steps) for name, at in ((TRUE, queue), (HOP, CONTROL))
        ]
        links[-1] = self._signature(HOP, CONTROL, key)
        return self._timed([key], [chain(*links, app=self._app)])

    def one_hop(self, canvases: int, steps: int) -> float:
        """Seconds for `canvases` chains of `steps` times `true`, each chain on one node, sent at once."""
        keys, chains = [], []
        for number in range(canvases):
            key, queue = self._key(), self.queues[number % len(self.queues)]
            links = [self._signature(TRUE, queue) for _ in range(steps - 1)]
            chains.append(chain(*links, self._signature(TRUE, queue, key), app=self._app))
            keys.append(key)
        return self._timed(keys, chains)

    def fan_out(self, members: int) -> float:
        """Seconds for a chord of `members` times `true` over all nodes with its body on control."""
        key = self._key()
        header = [self._signature(TRUE, self.queues[number % len(self.queues)]) for number in range(members)]
        body = self._app.signature(JOIN, args=(key,)).set(queue=CONTROL, ignore_result=True)
        return self._timed([key], [chord(header, body, app=self._app)])

    def close(self) -> None:
        """Lets go of what the client holds, while Redis still answers."""
        self._app.close()
        self._client.close()

    def ran(self) -> int:
        """How many `true` the nodes have ended since this was asked before."""
        total = 0
        for queue in self.queues:
            key = self._key()
            self._signature(COUNT, queue, key).apply_async()
            total += int(self._pop(key))
        return total

    def _timed(self, keys: Sequence[str], canvases: Sequence[Any]) -> float:
        began = time.time()
        for canvas in canvases:
            canvas.apply_async()
        return max(self._pop(key) for key in keys) - began

    def _pop(self, key: str) -> float:
        answer = cast("list[bytes] | None", self._client.blpop([key], timeout=END_WITHIN))
        if answer is None:
            raise Broken(f"raw Celery did not end within {END_WITHIN} s")
        return float(answer[1])

    def _key(self) -> str:
        return f"raw:ended:{next(self._numbers)}"

    def _signature(self, name: str, queue: str, *arguments: str) -> Any:
        return self._app.signature(name, args=arguments, immutable=True).set(queue=queue, ignore_result=True)
