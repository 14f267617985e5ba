"""The one gate that every request passes: who asks, and whether that role may. What is not said is refused."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

from flask import Flask, current_app, g, request

from app.api import within
from app.api.wiring import control, reading
from app.errors import MusterError, NotAllowed, NotAuthenticated, NotFound
from app.services import audit, bearers
from app.services.bearers import Bearer
from app.services.people import Person, authenticate
from app.services.roles import ROLES

log = logging.getLogger(__name__)

OPEN = "open"
"""The role of the two endpoints that need no token: they tell nothing, or check a one-time token themselves."""

MOST_OPEN = frozenset({"system.healthz", "nodes.enroll"})

View = TypeVar("View", bound=Callable[..., Any])


class UngatedRoute(MusterError):
    """A route was written without saying who may use it."""

    code = "ungated-route"


def needs(
    role: str, reach: within.Reach = within.EVERYTHING, *, passes: bool = False, body: str = "body_limit"
) -> Callable[[View], View]:
    """Say which role a view needs; `open` needs none. Goes right below `route`, and is documented with it.

    `reach` says what of packs and nodes it is about: a person whose role is bounded gets no further than their bounds.
    If nothing is said, they get nowhere. With `passes` a node may with the pass of a job; the view then keeps to what
    that lets it, by `bearer`. `body` is the setting that says how many bytes a request may have.
    """

    def decorate(view: View) -> View:
        documented: dict[str, Any] = {"x-role": role, "x-reach": reach.name}
        if passes:
            documented["security"] = [{"bearer": []}, {"pass": []}]
        if role == OPEN:
            documented["security"] = []
        view.muster_role = role  # type: ignore[attr-defined]
        view.muster_reach = reach  # type: ignore[attr-defined]
        view.muster_passes = passes  # type: ignore[attr-defined]
        view.muster_body = body  # type: ignore[attr-defined]
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
    view: Any = current_app.view_functions.get(request.endpoint or "")
    if role is not None and view.muster_passes and (token := _shown_pass()):
        g.bearer = bearers.of_pass(control(), token)
        _take_body(view)
        return
    person = authenticate(control(), _bearer())
    g.person = person
    if request.endpoint is None:
        return  # the path or method does not exist, which is said to those who may know
    if role is None or not (person.may(role) or _is_admitted(person)):
        raise _refused(person, role or "nobody")
    if person.is_scoped:
        _hold(person, role)
    _take_body(view)


def _take_body(view: Any) -> None:
    request.max_content_length = getattr(control().settings, view.muster_body)


def _shown_pass() -> str | None:
    given = request.authorization
    return given.token if given is not None and given.type == "pass" else None


def _bearer() -> str:
    given = request.authorization
    if given is None or given.type != "bearer" or not given.token:
        raise NotAuthenticated(
            "this needs a token", hint="send `Authorization: Bearer <token>`", code="token-required"
        )
    return given.token


def _refused(person: Person, role: str) -> NotAllowed:
    error = NotAllowed(
        f"this needs the role {role}, and {person.login} is {person.described}",
        hint="ask an administrator for a token of that role",
        code="role-required",
    )
    keep(person, error)
    return error


def _reach() -> within.Reach:
    view: Any = current_app.view_functions[request.endpoint or ""]
    reach: within.Reach = view.muster_reach
    return reach


def _is_admitted(person: Person) -> bool:
    """Whether a person may without the role that is needed."""
    admits = _reach().admits
    if admits is None:
        return False
    with reading() as connection:
        return admits(connection, person, request.view_args or {})


def _hold(person: Person, role: str) -> None:
    """Raises what is said of things that are not there, or NotAllowed, for what is outside of a person's bounds."""
    try:
        with reading() as connection:
            _reach().check(connection, person, role, request.view_args or {})
    except (NotAllowed, NotFound) as error:
        keep(person, error)
        raise


def keep(person: Person, error: MusterError) -> None:
    """Keep in the audit trail that somebody was refused to change something."""
    if request.method not in ("GET", "HEAD", "OPTIONS"):
        audit.refuse(control(), person.login, f"api.{request.endpoint}", request.path, error)


def person() -> Person:
    """Who asks, behind the gate."""
    found: Person = g.person
    return found


def bearer() -> Bearer:
    """Who asks for files, behind the gate: a person, or a node with a pass where those are taken."""
    found: Bearer | None = g.get("bearer")
    return found or bearers.of_person(person())
