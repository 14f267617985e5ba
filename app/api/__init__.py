"""The HTTP API. `create_app` makes it: `flask --app app.api …`, `gunicorn "app.api:create_app()"`."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import Any

from flask import Flask, Response

from app import settings as environment
from app.api import gate, paths, problems, shown, tracing, wiring
from app.api.approvals import approvals
from app.api.automation import automation
from app.api.blobs import blobs
from app.api.commands import commands
from app.api.deploy_plans import deploy_plans
from app.api.described import DescribedApi
from app.api.executions import executions
from app.api.graphs import graphs
from app.api.history import history
from app.api.kept import kept
from app.api.nodes import nodes
from app.api.notifications import notifications
from app.api.packs import packs
from app.api.people import people
from app.api.schedules import schedules
from app.api.scripts import scripts
from app.api.strict import StrictJson
from app.api.system import documents, system
from app.api.workflows import workflows
from app.api.workspaces import workspaces
from app.cycles import collect_rarely
from app.logs.structured import configure
from app.services.control import Control
from app.settings import Settings

PREFIX = "/api/v1"

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Api(Flask):
    """Flask without coroutines: no view is one, and it asks that of a dozen functions for each request."""

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        return func


def create_app(settings: Settings | None = None, *, control: Control | None = None) -> Flask:
    """The API as a WSGI application; settings come from the environment unless they or a `control` are given. Without
    either this is the API's own process, and its log is set up too.

    Raises BadSetting, and UngatedRoute for a route that does not say who may use it.
    """
    if settings is None and control is None:
        settings = environment.from_environment()
        configure(settings, process="api")
        collect_rarely()
    made = control or wiring.make_control(settings or Settings())
    app = Api("app.api", static_folder=None)
    app.json = StrictJson(app)
    app.config.update(
        API_TITLE="Muster",
        API_VERSION="v1",
        OPENAPI_VERSION="3.1.0",
        MAX_CONTENT_LENGTH=made.settings.body_limit,
        PROPAGATE_EXCEPTIONS=False,
        API_SPEC_OPTIONS={
            "info": {"description": f"Muster {version('muster')}", "license": {"name": "Apache-2.0"}},
            "servers": [{"url": "/"}],
            "security": [{"bearer": []}],
        },
    )
    wiring.register(app, made)
    paths.register(app)
    tracing.register(app)
    gate.register(app)
    app.after_request(_protect)
    _add_routes(app)
    gate.check(app)
    return app


def _add_routes(app: Flask) -> None:
    api = DescribedApi(app)
    problems.register(app)
    paths.document(api)
    shown.document(api)
    api.spec.components.security_scheme("bearer", {"type": "http", "scheme": "bearer"})
    api.spec.components.security_scheme("pass", {"type": "http", "scheme": "pass"})
    api.register_blueprint(system)
    for blueprint in (
        documents,
        packs,
        workflows,
        executions,
        graphs,
        history,
        deploy_plans,
        approvals,
        notifications,
        automation,
        scripts,
        schedules,
        nodes,
        commands,
        blobs,
        workspaces,
        kept,
        people,
    ):
        api.register_blueprint(blueprint, url_prefix=PREFIX)


def _protect(response: Response) -> Response:
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    return response
