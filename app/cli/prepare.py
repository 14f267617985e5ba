"""What a fleet on one machine needs before its processes start: schema, keys, a token, enrolled nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import select

from app.cli import own_node
from app.cli.home import Home
from app.compiler.plan import LOCAL
from app.errors import NotAuthenticated
from app.services import fleet, installation, people
from app.services.control import Control
from app.settings import Settings
from app.store import migrate
from app.store.db import Store
from app.store.tables import Node

nodes = Node.__table__

_LIFETIME = 60.0


@dataclass(frozen=True, slots=True)
class Prepared:
    """The installation's id and a token that may do everything."""

    installation: str
    token: str = field(repr=False)


def prepare(settings: Settings, home: Home, nodes: Sequence[str]) -> Prepared:
    """Makes whatever of it is not there yet. Raises what the database and the key file raise."""
    store = Store(settings.database)
    try:
        migrate.upgrade(store)
        control = Control(settings, store)
        installed = installation.ensure(store, settings.data_dir, control.clock())
        token = _token(control, home)
        for name in nodes:
            _enrol(control, home, installed, name)
    finally:
        store.close()
    return Prepared(installed.id, token)


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
