"""Who asks for files: a person by their token, or a node by the pass that came with an order."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, select

from app.engine.status import JOB_OVER
from app.errors import NotAllowed, NotAuthenticated
from app.services import installation
from app.services.control import Control
from app.services.people import Person
from app.store.prepared import Query
from app.store.tables import Job, Node, table
from app.transport.keys import Public
from app.transport.passes import Pass, open_pass
from app.transport.sealing import Refused

log = logging.getLogger(__name__)
jobs, nodes = table(Job), table(Node)

_state = Query(
    select(jobs.c.execution, jobs.c.status, nodes.c.state)
    .join(nodes, nodes.c.name == jobs.c.node)
    .where(jobs.c.id == bindparam("job"), jobs.c.node == bindparam("node")),
    lambda execution, status, state: (execution, status, state),
)


@dataclass(frozen=True, slots=True)
class Bearer:
    """`person` or `given` (a pass) is there, never both. `name` is for the audit trail and logs.

    `owner` is whose uploads and blobs are meant: nobody else's are theirs, unless they are shown everything.
    """

    name: str
    owner: str
    person: Person | None = None
    given: Pass | None = None

    @property
    def sees_all(self) -> bool:
        """Whether every execution may be seen, and so every file."""
        return self.person is not None and self.person.may_everywhere("viewer")


def of_person(person: Person) -> Bearer:
    return Bearer(person.login, f"person:{person.login}", person=person)


def of_pass(control: Control, token: str) -> Bearer:
    """The node's side of one job. Raises NotAuthenticated, with the same words whatever was wrong with the pass;
    NotAllowed once its job is over."""
    installed = installation.read(control.store)
    try:
        found = open_pass(
            token, [Public.from_json(installed.public)], installation=installed.id, now=control.clock()
        )
    except Refused as error:
        log.info("a pass was refused: %s (%s)", error.code, error.message)
        raise _no_pass() from None
    with control.store.read() as connection:
        _check(connection, found)
    return Bearer(f"node:{found.node}", f"job:{found.job}", given=found)


def _check(connection: Connection, found: Pass) -> None:
    row = _state.first(connection, job=found.job, node=found.node)
    if row is None or row[0] != found.execution or row[2] == "removed":
        raise _no_pass()
    if row[1] in JOB_OVER:
        raise NotAllowed(
            f"job {found.job} is over, and so is its pass",
            hint="nothing to do: what it changed was told, or is not waited for any more",
            code="pass-over",
        )


def _no_pass() -> NotAuthenticated:
    return NotAuthenticated(
        "the pass is not valid, or not any more",
        hint="passes come with orders; people send `Authorization: Bearer <token>`",
        code="bad-pass",
    )
