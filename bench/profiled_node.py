"""`celery -A bench.profiled_node worker`: workers.node with probes."""

from __future__ import annotations

from app.node import door, station, voice
from app.node.journal import Journal
from app.node.runner_client import RunnerClient
from bench import profiled
from bench.probes import Probes
from workers import node

celery = node.celery
_probes = Probes()

_probes.wrap(station.Station, "run", "station.run")
_probes.wrap(door, "open_order", "crypto: open order")
_probes.wrap(station, "seal_outcome", "crypto: seal outcome")
_probes.wrap(station, "outcome_from", "outcome_from")
for _name in ("accept", "ended", "published", "unpublished"):
    _probes.wrap(Journal, _name, f"journal.{_name}")
_probes.wrap(RunnerClient, "run", "runner: run")
_probes.wrap(
    voice.Sender, "_publish", "sender: publish collect", lambda given, _: f"{given[1][0].job}.collect"
)
_probes.wrap(voice.Reporter, "_send", "reporter: send")
profiled.install(_probes, node.identity.node)
