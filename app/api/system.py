"""How the server does: alive, ready, figures, versions, and the documents that describe it."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import redis
from flask import Response, current_app
from flask_smorest import Blueprint
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from sqlalchemy.exc import SQLAlchemyError

from app.api import shown, within
from app.api.exposition import exposition
from app.api.gate import OPEN, needs
from app.api.wiring import control, reading, wiring
from app.errors import MusterError, Unavailable
from app.language.schema import workflow_schema
from app.services.figures import Gauges, consumed, figures
from app.services.measures import QUEUE_MESSAGES, REDIS_UP
from app.store import migrate
from app.transport import counters, queues, rabbit_ping

system = Blueprint("system", __name__, description="How the server does.")
_QUEUES = (queues.RESULTS, queues.HEARTBEATS, queues.CONTROL, queues.TICK, queues.DEAD)
documents = Blueprint("documents", __name__, description="What describes the API and the language.")


@system.route("/healthz")
@needs(OPEN)
@system.response(200, shown.HealthSchema)
def healthz() -> dict[str, str]:
    """The process answers; nothing else is looked at."""
    return {"status": "ok"}


@system.route("/readyz")
@needs("viewer", within.ANYTHING)
@system.response(200, shown.ReadySchema)
@system.alt_response(503, schema=shown.ReadySchema, description="A part does not answer")
def readyz() -> tuple[dict[str, Any], int]:
    """Whether the database, its schema, Redis and a broker beside it are as they must be; and whether the allowlist can
    be read.

    Without the allowlist stored workflows run as ever, so that alone is no reason to be taken out of service.
    """
    checks = {"database": _database(), "redis": _redis(wiring().redis)}
    if control().settings.broker != control().settings.redis_url:
        checks["broker"] = _broker()
    ready = all(found == "ok" for found in checks.values())
    checks["allowlist"] = control().allowlist.current(control().settings).problem or "ok"
    return {"status": "ok" if ready else "unavailable", "checks": checks}, 200 if ready else 503


def _database() -> str:
    try:
        migrate.require(control().store)
    except MusterError as error:
        return error.message
    except SQLAlchemyError as error:
        return f"does not answer ({type(error).__name__})"
    return "ok"


def _broker() -> str:
    if wiring().broker is not None:
        return _redis(wiring().broker)
    try:
        rabbit_ping.ping(control().settings.broker)
    except Unavailable as error:
        return error.message
    return "ok"


def _redis(client: Any) -> str:
    try:
        client.ping()
    except (redis.RedisError, OSError) as error:
        return f"does not answer ({type(error).__name__})"
    return "ok"


@system.route("/version")
@needs("viewer", within.ANYTHING)
@system.response(200, shown.AboutSchema)
def about() -> dict[str, str]:
    """The versions of Muster, of this API and of Celery."""
    return {"version": version("muster"), "api": "v1", "celery": version("celery")}


@system.route("/metrics")
@needs("viewer")
@system.response(200, {"type": "string"}, content_type="text/plain")
def metrics() -> Response:
    """Figures for Prometheus: what is there is counted now, what has happened is kept in Redis."""
    with reading() as connection:
        gauges = figures(control(), connection)
        nodes = consumed(connection)
    kept = _from_redis(gauges, nodes)
    return Response(exposition(gauges, kept), content_type=CONTENT_TYPE_LATEST)


def _from_redis(gauges: Gauges, nodes: list[str]) -> dict[str, float]:
    """The sums that are kept there; the lengths of queues go into `gauges`. Nothing of it where Redis is away."""
    names = [
        *_QUEUES,
        *(name for node in nodes for name in (queues.node_queue(node), queues.node_ctl_queue(node))),
    ]
    try:
        kept = counters.read(wiring().redis)
        if wiring().broker is not None:
            lengths = counters.lengths(wiring().broker, names)
            gauges[QUEUE_MESSAGES] = {(queue,): length for queue, length in lengths.items()}
    except (redis.RedisError, OSError):
        gauges[REDIS_UP] = {(): 0}
        return {}
    gauges[REDIS_UP] = {(): 1}
    return kept


@documents.route("/schemas/workflow.json")
@needs("viewer", within.ANYTHING)
@documents.response(200, {"type": "object"}, content_type="application/schema+json")
def schema() -> Response:
    """The JSON Schema of a workflow file."""
    return Response(current_app.json.dumps(workflow_schema()), content_type="application/schema+json")


@documents.route("/openapi.json")
@needs("viewer", within.ANYTHING)
@documents.response(200, {"type": "object"})
def openapi() -> Response:
    """This document."""
    api = current_app.extensions["flask-smorest"]["apis"][""]["ext_obj"]
    return Response(current_app.json.dumps(api.spec.to_dict()), content_type="application/json")
