"""The one gate that every request passes: who asks, and whether that role may. What is not said is refused."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

from flask import Flask, current_app, g, request

from app.api.wiring import control
from app.errors import MusterError, NotAllowed, NotAuthenticated
from app.services import audit
from app.services.people import ROLES, Person, authenticate

log = logging.getLogger(__name__)

OPEN = "open"
"""The role of the two endpoints that need no token: they tell nothing, or check a one-time token themselves."""

MOST_OPEN = frozenset({"system.healthz", "nodes.enroll"})

View = TypeVar("View", bound=Callable[..., Any])


class UngatedRoute(MusterError):
    """A route was written without saying who may use it."""

    code = "ungated-route"


def needs(role: str) -> Callable[[View], View]:
    """Say which role a view needs; `open` needs none. Goes right below `route`, and is documented with it."""

    def decorate(view: View) -> View:
        documented: dict[str, Any] = {"x-role": role}
        if role == OPEN:
            documented["security"] = []
        view.muster_role = role  # type: ignore[attr-defined]
        info = dict(getattr(view, "_apidoc", {}))
        info["manual_doc"] = {**info.get("manual_doc", {}), **documented}
        view._apidoc = info  # type: ignore[attr-defined]
        return view

    return decorate


def register(app: Flask) -> None:
    """Put the gate before every request of `app`. Its routes must be there already: see `check`."""
    app.before_request(_pass)


def check(app: Flask) -> None:
    """Raises UngatedRoute for a route without a role, or one that is open and should not be."""
    for rule in app.url_map.iter_rules():
        role = _role(app, rule.endpoint)
        if role is None or (role == OPEN and rule.endpoint not in MOST_OPEN):
            raise UngatedRoute(
                f"{rule.rule} ({rule.endpoint}) has no role", hint="add @needs(role) below its route"
            )


def _role(app: Flask, endpoint: str) -> str | None:
    role = getattr(app.view_functions.get(endpoint), "muster_role", None)
    return role if role in (*ROLES, OPEN) else None


def _pass() -> None:
    role = _role(current_app, request.endpoint) if request.endpoint else None
    if role == OPEN:
        return
    person = authenticate(control(), _bearer())
    g.person = person
    if request.endpoint is None:
        return  # the path or method does not exist, which is said to those who may know
    if role is None or not person.may(role):
        raise _refused(person, role or "nobody")


def _bearer() -> str:
    given = request.authorization
    if given is None or given.type != "bearer" or not given.token:
        raise NotAuthenticated(
            "this needs a token", hint="send `Authorization: Bearer <token>`", code="token-required"
        )
    return given.token


def _refused(person: Person, role: str) -> NotAllowed:
    error = NotAllowed(
        f"this needs the role {role}, and {person.login} is {person.role}",
        hint="ask an administrator for a token of that role",
        code="role-required",
    )
    if request.method not in ("GET", "HEAD", "OPTIONS"):
        audit.refuse(control(), person.login, f"api.{request.endpoint}", request.path, error)
    return error


def person() -> Person:
    """Who asks, behind the gate."""
    found: Person = g.person
    return found
