"""A worker's process for tests that kill it: one order, given on standard input, on the station of a directory."""

from __future__ import annotations

import sys

from app.node.station import Station
from app.settings import Settings
from app.transport.celery_app import make_celery
from app.transport.gate import Canvas

NOWHERE = "redis://127.0.0.1:1/0"


def main(directory: str) -> None:
    app = make_celery("node", broker_url=NOWHERE, name="node-web-1", queues=("node.web-1",))
    station = Station(Settings(node="web-1", node_dir=directory, redis_url=NOWHERE, grace=0.5), app)
    station.runner.ensure()
    station.run(sys.stdin.read(), Canvas())


if __name__ == "__main__":
    main(sys.argv[1])
