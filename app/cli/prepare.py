"""What a fleet needs before its processes start: schema; and on one machine keys, a token, enrolled nodes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from sqlalchemy import make_url, select
from sqlalchemy.exc import ArgumentError, DBAPIError

from app.cli import own_node
from app.cli.home import Home
from app.compiler.plan import LOCAL
from app.errors import InvalidInput, NotAllowed, NotAuthenticated, Unavailable
from app.services import fleet, installation, people, rotation
from app.services.control import Control
from app.settings import Settings
from app.store import migrate
from app.store.db import Store
from app.store.tables import Node

nodes = Node.__table__

_LIFETIME = 60.0
CONNECT_WITHIN = 10
"""Seconds that a database server has to take a connection."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """The installation's id and a token that may do everything."""

    installation: str
    token: str = field(repr=False)


def prepare(settings: Settings, home: Home, nodes: Sequence[str]) -> Prepared:
    """Makes whatever of it is not there yet. Raises what the database and the key file raise."""
    with database(settings) as store:
        control = Control(settings, store)
        installed = installation.ensure(store, settings.data_dir, control.clock())
        rotation.ensure(control)
        token = _token(control, home)
        for name in nodes:
            _enrol(control, home, installed, name)
    return Prepared(installed.id, token)


@contextmanager
def database(settings: Settings) -> Iterator[Store]:
    """The database with the schema of this version.

    Raises InvalidInput for a URL that names none, Unavailable where it does not answer, UnknownRevision.
    """
    try:
        store = Store(_with_patience(settings.database))
    except OSError as error:
        raise NotAllowed(
            f"{error.filename}: {error.strerror}", hint="see MUSTER_DATA_DIR", code="data-dir"
        ) from None
    try:
        migrate.upgrade(store)
        yield store
    except DBAPIError as error:
        # The first line tells what the server or the driver said; a password is never in it.
        said = str(error.orig).splitlines()[:1]
        raise Unavailable(
            f"the database {make_url(settings.database).render_as_string()} cannot be used: {''.join(said)}",
            hint="see that it runs and that DATABASE_URL names it, its user and its password",
            code="database-unavailable",
        ) from None
    finally:
        store.close()


def _with_patience(text: str) -> str:
    """The URL, with an end to the wait for a server that says nothing."""
    try:
        url = make_url(text)
        kind = url.get_backend_name()
    except ArgumentError:
        kind = ""
    if kind == "sqlite":
        return text
    if kind != "postgresql":
        raise InvalidInput(
            "DATABASE_URL is not the URL of a database that Muster knows",
            hint="postgresql://USER:PASSWORD@HOST/NAME or sqlite:////ABSOLUTE/PATH",
            code="bad-database-url",
        )
    url = url.update_query_dict({"connect_timeout": str(CONNECT_WITHIN), **url.query})
    return url.render_as_string(hide_password=False)


def _token(control: Control, home: Home) -> str:
    """The token of an earlier start if it still holds, else a new one."""
    made = people.bootstrap_admin(control.store, control.clock())
    if made is not None:
        return made
    known = home.known_token()
    try:
        people.authenticate(control, known)
    except NotAuthenticated:
        return people.create_token(control, people.FIRST_ADMIN, "muster up", None, people.FIRST_ADMIN).token
    return known


def _enrol(control: Control, home: Home, installed: installation.Installed, name: str) -> None:
    """Makes a directory of this machine a node, unless it is one of this installation already."""
    directory = home.node(name)
    pair = own_node.keys(directory)
    now = control.clock()
    if name == LOCAL:
        fleet.enrol_local(control.store, pair.public(), now)
    elif not _is_known(control.store, name, pair.kid):
        token = fleet.create_token(control, name, people.FIRST_ADMIN, lifetime=_LIFETIME, replace=True).token
        proof = pair.prove(installed.id, token, name, now=now)
        fleet.enroll(control, fleet.Enrolment(name, token, pair.public(), proof))
    own_node.write(directory, name, installed.id, installed.public)


def _is_known(store: Store, name: str, kid: str) -> bool:
    query = select(nodes.c.name).where(
        nodes.c.name == name, nodes.c.sign_kid == kid, nodes.c.state != "removed"
    )
    with store.read() as connection:
        return connection.execute(query).first() is not None
