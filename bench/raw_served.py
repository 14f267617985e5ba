"""The peer of what is served: raw Celery workers whose results are read, a bare Flask application, a relay of lines."""

from __future__ import annotations

import itertools
import json
import sys
import time
from functools import partial
from typing import Any, cast

from celery import group

from bench import raw_wire, spoken, web
from bench.processes import Broken, Processes, wait_for
from bench.raw_wire import COUNT, SHELL, TRUE, shell_queue
from bench.served import ANSWER_WITHIN, NODES, resident, timed

READ_EVERY = 0.005
"""Seconds between two looks at a group's results. Celery's own default is 0.5."""
POSTS = 2000
"""Requests in one run: many, for they are short."""
_BODY = b'{"parameters":{}}'


class RawServed:
    """NODES solo workers, gunicorn with the bare application, and two processes that relay lines."""

    def __init__(self, processes: Processes, socket_path: str) -> None:
        self._processes = processes
        self._url = url = raw_wire.url(socket_path)
        self._app = raw_wire.make_result_app(url)
        self._client = raw_wire.connect(url)
        self._numbers = itertools.count()
        self._ran = 0
        environment = {"RAW_BROKER": url}
        processes.start("raw.shells", [sys.executable, "-m", "bench.raw_shells", str(NODES)], environment)
        for relay in ("quiet", "loud"):
            processes.start(f"raw.{relay}", [sys.executable, "-m", "bench.raw_relay", relay], environment)
        self._web = web.serve(processes, "raw.web", environment, instead="bench.raw_web:app")
        self.shell()

    def shell(self) -> float:
        """Seconds for a group of `true`, one for each worker's queue, to all results."""
        began = time.perf_counter()
        calls = [self._shell(number) for number in range(NODES)]
        found = group(calls, app=self._app).apply_async()
        results = found.get(timeout=ANSWER_WITHIN, interval=READ_EVERY)
        took = time.perf_counter() - began
        if [result["rc"] for result in results] != [0] * NODES:
            raise Broken(f"raw Celery's group ended with {results}")
        found.forget()
        self._ran += NODES
        return took

    def lines(self) -> spoken.Late:
        """How late lines of one relay come to a follower while the other one bursts."""
        key = self._key()
        stream = self._web.open(f"/tail/{key}", {"Accept": "text/event-stream"}, {})
        self._relay("quiet", key, spoken.PRINTER)
        late = spoken.follow(stream, self._burst)
        self._ran += 1
        return late

    def posts(self) -> float:
        """Answers in a second of an application that only reads JSON and writes some."""
        return web.rate(self._web, "/runs", _BODY, requests=POSTS)

    def memory(self) -> float:
        """MiB of a worker of its own with one task behind it."""
        name = f"raw.bare-{next(self._numbers)}"
        key = self._key()
        pid = self._processes.worker(
            name, "bench.raw_app", {"RAW_BROKER": self._url, "RAW_RABBIT": "", "RAW_QUEUE": name}
        )
        try:
            for answers, task in enumerate((TRUE, COUNT), start=1):
                self._app.send_task(task, args=(key,), queue=name, ignore_result=True)
                wait_for(f"{name} works", partial(self._has, key, answers), self._processes)
            self._ran += int(self._client.lindex(key, 1) or 0)
            return resident(pid)
        finally:
            self._processes.end(name)

    def command(self) -> float:
        """Seconds for a fresh process that sends one task and reads its result."""
        took, printed = timed(
            [sys.executable, "-m", "bench.raw_client", shell_queue(0)], {"RAW_BROKER": self._url}
        )
        if json.loads(printed)["rc"] != 0:
            raise Broken(f"raw Celery answered {printed}")
        self._ran += 1
        return took

    def ran(self) -> int:
        """How many scripts have ended with 0 since this was asked before."""
        ran, self._ran = self._ran, 0
        return ran

    def close(self) -> None:
        """Lets go of what the client holds, while Redis still answers."""
        self._app.close()
        self._client.close()

    def _shell(self, number: int) -> Any:
        return self._app.signature(SHELL, args=(["true"],)).set(queue=shell_queue(number))

    def _burst(self) -> None:
        key = self._key()
        self._relay("loud", key, spoken.BURST)
        answer = cast("list[bytes] | None", self._client.blpop([f"{key}:over"], timeout=ANSWER_WITHIN))
        if answer is None or int(answer[1]) != spoken.BURST_BYTES:
            raise Broken(f"the relay's burst was {answer} and should have been {spoken.BURST_BYTES} bytes")
        self._client.delete(key)
        self._ran += 1

    def _relay(self, relay: str, key: str, argv: list[str]) -> None:
        self._client.rpush(f"raw:relay:{relay}", json.dumps({"key": key, "argv": argv}))

    def _has(self, key: str, answers: int) -> bool:
        return self._client.llen(key) == answers

    def _key(self) -> str:
        return f"raw:key:{next(self._numbers)}"
