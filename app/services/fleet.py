"""The machines: one-time tokens, enrolment, draining, removal. What runs on them is the engine's business."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from app.compiler.plan import LOCAL
from app.engine.status import JOB_OUT, QUEUED
from app.errors import Conflict, InvalidInput, NotAllowed, NotFound
from app.ids import fingerprint, secret
from app.services import audit, host_keys, installation, lost, naming, onetime
from app.services.control import Control
from app.services.run import Run
from app.store.db import Store
from app.store.tables import EnrolmentToken, Job, Node
from app.transport.keys import Public, check_proof

nodes, enrolments, jobs = Node.__table__, EnrolmentToken.__table__, Job.__table__

TOKEN_PREFIX = "mse"
LIFETIME = 900.0
LONGEST_LIFETIME = 86400.0
"""Seconds that an enrolment token is valid, and the most that may be asked for."""
WORKER, SSH = "worker", "ssh"
"""Transports: a machine with a worker of its own, one that the gateway reaches over SSH."""
NEW: Mapping[str, Any] = {
    "state": "active",
    "address": "",
    "epoch": "",
    "left_epochs": [],
    "sequence": 0,
    "slots": 0,
    "free": 0,
    "shells": [],
    "versions": {},
    "last_seen": None,
    "heard_at": None,
    "ssh": {},
    "host_key": "",
    "offered_key": "",
    "breaker": {},
}
"""The columns of a machine that has just come: nothing that its predecessor said counts."""
_UNTRIED = {"state": "closed", "failures": 0, "until": None, "error": ""}
OPEN = (QUEUED, *JOB_OUT)
"""Jobs that are meant to run. One that is unknown waits for a person, not for its node."""


@dataclass(frozen=True, slots=True)
class NewToken:
    """A one-time token, shown once. `control` is the fingerprint of the control keys, to be compared."""

    token: str
    node: str
    expires_at: float
    control: str
    installation: str


@dataclass(frozen=True, slots=True)
class Enrolment:
    """What a machine sends to become a node. `public_keys` must be those that the proof vouches for."""

    node: str
    token: str
    public_keys: Mapping[str, Any]
    proof: str


@dataclass(frozen=True, slots=True)
class Enrolled:
    """What a new node pins."""

    node: str
    installation: str
    control_keys: dict[str, Any]


@dataclass(frozen=True, slots=True)
class OpenJob:
    id: str
    execution: str
    status: str


def create_token(
    control: Control,
    node: str,
    person: str,
    *,
    labels: Mapping[str, str] | None = None,
    lifetime: float = LIFETIME,
    replace: bool = False,
    by_control: bool = False,
) -> NewToken:
    """A one-time token for one node name; `lifetime` in seconds. Only `by_control` itself may it be `local`'s.

    Raises InvalidInput, and Conflict where the name is taken and `replace` is not said.
    """
    check(node, labels or {}, lifetime, by_control=by_control)
    known = installation.read(control.store)
    now = control.clock()
    token = secret(TOKEN_PREFIX)
    values = {
        "sha256": fingerprint(token),
        "node": node,
        "labels": dict(labels or {}),
        "replaces": replace,
        "created_by": person,
        "created_at": now,
        "expires_at": now + lifetime,
    }
    with audit.writing(control, person, "node.token", node, {"replace": replace}) as connection:
        if not replace and state_in(connection, node) in ("active", "draining"):
            raise taken(node)
        connection.execute(delete(EnrolmentToken).where(enrolments.c.expires_at < now - LONGEST_LIFETIME))
        connection.execute(insert(EnrolmentToken), values)
    control_print = Public.from_json(known.public).fingerprint
    return NewToken(token, node, now + lifetime, control_print, known.id)


def check(node: str, labels: Mapping[str, str], lifetime: float, *, by_control: bool = False) -> None:
    """Raises what `create_token` would raise for these without a look at the database."""
    naming.check_node(node)
    if node == LOCAL and not by_control:
        raise Conflict(
            "the name `local` is reserved for the control side", hint="choose another name", code="local-node"
        )
    naming.check_labels(labels)
    if not 1 <= lifetime <= LONGEST_LIFETIME:
        raise InvalidInput(
            f"lifetime must be 1 to {LONGEST_LIFETIME:g} seconds",
            hint="leave it out for 900",
            code="bad-lifetime",
        )


def state_of(control: Control, node: str) -> str | None:
    """`active`, `draining` or `removed`; None for a name that never was a node's."""
    with control.store.read() as connection:
        state: str | None = connection.execute(select(nodes.c.state).where(nodes.c.name == node)).scalar()
    return state


def enroll(control: Control, asked: Enrolment) -> Enrolled:
    """Make a machine a node: the token is used up, its keys become the node's.

    A machine whose answer was lost may ask again with the same token and keys, while the token would be valid.
    The jobs that an earlier machine of that name holds become unknown; those not yet handed over wait for the
    new one. Raises NotAllowed (token or proof), InvalidInput, Conflict (the name is taken, and the token does
    not replace).
    """
    naming.check_node(asked.node)
    known = installation.read(control.store)
    now = control.clock()
    person = f"node:{asked.node}"[:64]
    with control.store.read() as connection:
        if onetime.unused(connection, asked.token, asked.node, now) is None:
            # Nobody vouched for this request, so it leaves no row behind.
            kid = onetime.used_by(connection, asked.token, asked.node, now)
            if kid is None or _proven(asked, known.id, now).kid != kid:
                raise _bad_token()
            return Enrolled(asked.node, known.id, known.public)
    with audit.writing(control, person, "node.enroll", asked.node) as connection:
        public = _proven(asked, known.id, now)
        used = update(EnrolmentToken).where(
            enrolments.c.sha256 == fingerprint(asked.token),
            enrolments.c.used_at.is_(None),
            enrolments.c.expires_at > now,
        )
        row = onetime.unused(connection, asked.token, asked.node, now)
        if row is None or connection.execute(used.values(used_at=now)).rowcount != 1:
            raise _bad_token()
        replaced = _put(connection, asked.node, public, row, now)
    if replaced:
        lose(control, asked.node, queued=False)
    return Enrolled(asked.node, known.id, known.public)


def enrol_local(store: Store, public_keys: Mapping[str, Any], now: float) -> None:
    """Make or renew the node `local`, which only the control side itself may be. Raises InvalidInput."""
    public = Public.from_json(public_keys)
    values = {**_identity(public, now), "labels": {}, "enrolled_by": "control"}
    with store.write() as connection:
        same = (nodes.c.name == LOCAL, nodes.c.sign_kid == public.kid, nodes.c.state != "removed")
        if connection.execute(select(nodes.c.name).where(*same)).first() is None:
            upsert(connection, LOCAL, values)
            audit.record(connection, "control", "node.enroll", LOCAL, at=now)


def _proven(asked: Enrolment, installation_id: str, now: float) -> Public:
    public = Public.from_json(asked.public_keys)
    try:
        proven = check_proof(
            asked.proof, installation=installation_id, token=asked.token, node=asked.node, now=now
        )
    except NotAllowed:
        # A machine that was told only the token does not know the installation's id and leaves it empty; the
        # token is this installation's own secret, so the proof is bound to it all the same.
        proven = check_proof(asked.proof, installation="", token=asked.token, node=asked.node, now=now)
    if proven.to_json() != public.to_json():
        raise NotAllowed(
            "the proof vouches for other keys than `public_keys`",
            hint="send the keys that made the proof",
            code="bad-proof",
        )
    return public


def _put(connection: Connection, node: str, public: Public, token: Any, now: float) -> bool:
    """Write the node's row; True if it replaced a machine that was there."""
    state = state_in(connection, node)
    if state in ("active", "draining") and not token.replaces:
        raise taken(node)
    upsert(
        connection, node, {**_identity(public, now), "labels": token.labels, "enrolled_by": token.created_by}
    )
    return state is not None


def _identity(public: Public, now: float) -> dict[str, Any]:
    return {
        **NEW,
        "transport": WORKER,
        "public_keys": public.to_json(),
        "sign_kid": public.kid,
        "enrolled_at": now,
    }


def upsert(connection: Connection, node: str, values: Mapping[str, Any]) -> None:
    """Write a node's row, over that of a removed one. Raises Conflict for a name that somebody took just now."""
    if connection.execute(update(Node).where(nodes.c.name == node).values(values)).rowcount:
        return
    try:
        with connection.begin_nested():
            connection.execute(insert(Node), {"name": node, **values})
    except IntegrityError:
        raise taken(node) from None


def state_in(connection: Connection, node: str) -> str | None:
    """`state_of` in a write transaction; nobody else changes the row as long as that lasts."""
    query = select(nodes.c.state).where(nodes.c.name == node)
    if connection.dialect.name != "sqlite":
        query = query.with_for_update()
    return connection.execute(query).scalar()


def drain(control: Control, node: str, person: str, *, wanted: bool) -> str:
    """Give a node nothing new (or work again): its state after it. Raises NotFound."""
    state = "draining" if wanted else "active"
    with audit.writing(control, person, "node.drain" if wanted else "node.undrain", node) as connection:
        changed = connection.execute(
            update(Node).where(nodes.c.name == node, nodes.c.state != "removed").values(state=state)
        )
        if not changed.rowcount:
            raise unknown(node)
    return state


def remove(control: Control, node: str, person: str, *, force: bool = False) -> None:
    """Take a node out of the fleet: its keys are not trusted any more.

    With `force` also while it holds jobs: those not yet handed over fail, the others become unknown. Raises
    NotFound, Conflict.
    """
    if node == LOCAL:
        raise Conflict(
            "`local` is the control side itself",
            hint="switch it off with MUSTER_LOCAL_NODE=0",
            code="local-node",
        )
    with audit.writing(control, person, "node.remove", node, {"force": force}) as connection:
        if state_in(connection, node) in (None, "removed"):
            raise unknown(node)
        left = open_jobs_of(connection, node)
        if left and not force:
            raise Conflict(
                f"node {node} holds {len(left)} open jobs, {left[0].id} first",
                hint="drain it and wait, or remove it by force: its jobs become unknown",
                code="node-busy",
            )
        transport = connection.execute(select(nodes.c.transport).where(nodes.c.name == node)).scalar()
        connection.execute(update(Node).where(nodes.c.name == node).values(state="removed", epoch=""))
        connection.execute(
            delete(EnrolmentToken).where(enrolments.c.node == node, enrolments.c.used_at.is_(None))
        )
    lose(control, node, queued=True)
    if transport == SSH:
        control.look([node])


def open_jobs_of(connection: Connection, node: str) -> list[OpenJob]:
    """The jobs of a node that are queued for it or that it holds."""
    query = (
        select(jobs.c.id, jobs.c.execution, jobs.c.status)
        .where(jobs.c.node == node, jobs.c.status.in_(OPEN))
        .order_by(jobs.c.execution, jobs.c.id)
    )
    return [OpenJob(*row) for row in connection.execute(query)]


def lose(control: Control, node: str, *, queued: bool) -> None:
    """Tell the engine, one execution at a time, that nobody will answer for a node's open jobs.

    With `queued` the jobs that were not handed over fail as well.
    """
    with control.store.read() as connection:
        left = [job for job in open_jobs_of(connection, node) if queued or job.status != QUEUED]
    by_execution: dict[str, list[str]] = {}
    for job in left:
        by_execution.setdefault(job.execution, []).append(job.id)
    for execution, open_jobs in by_execution.items():
        with control.store.write() as connection:
            run = Run.lock(control, connection, execution)
            for id_ in open_jobs:
                gone = {
                    "type": "node_removed",
                    "message": f"node {node} was removed before it was handed {id_}",
                }
                if not (queued and lost.fail(run, id_, QUEUED, gone)):
                    lost.lose(run, id_)
    if by_execution:
        control.nudge(by_execution)


def list_nodes(
    control: Control,
    connection: Connection,
    name: str | None = None,
    *,
    within: ColumnElement[bool] | None = None,
) -> list[dict[str, Any]]:
    """Every node that was not removed, or the one named, with `online` and `open_jobs`. Two statements.

    Those for which `within` holds, if that is given.
    """
    query = select(nodes).where(nodes.c.state != "removed").order_by(nodes.c.name)
    if within is not None:
        query = query.where(within)
    count = (
        select(jobs.c.node, func.count().label("number")).where(jobs.c.status.in_(OPEN)).group_by(jobs.c.node)
    )
    if name is not None:
        query, count = query.where(nodes.c.name == name), count.where(jobs.c.node == name)
    open_jobs = {row.node: row.number for row in connection.execute(count)}
    oldest = control.clock() - control.settings.offline_after
    return [
        {
            **row,
            **_reached(row),
            "online": row["last_seen"] is not None and row["last_seen"] > oldest,
            "open_jobs": open_jobs.get(row["name"], 0),
        }
        for row in connection.execute(query).mappings()
    ]


def _reached(row: RowMapping) -> dict[str, Any]:
    """How an SSH node is reached and how that goes, for people; nothing of it for others."""
    if row["transport"] != SSH:
        return {"ssh": None, "breaker": None}
    keys = {name: host_keys.fingerprint(row[name]) for name in ("host_key", "offered_key")}
    return {"ssh": {**row["ssh"], **keys}, "breaker": {**_UNTRIED, **row["breaker"]}}


def get_node(control: Control, connection: Connection, name: str) -> dict[str, Any]:
    """Raises NotFound."""
    found = list_nodes(control, connection, name)
    if not found:
        raise unknown(name)
    return found[0]


def taken(node: str) -> Conflict:
    return Conflict(
        f"there is a node {node} already",
        hint="remove it first, or replace it (`--replace`): its open jobs become unknown",
        code="node-exists",
    )


def unknown(node: str) -> NotFound:
    return NotFound(f"there is no node {node}", hint="list them: `muster node list`", code="unknown-node")


def _bad_token() -> NotAllowed:
    return NotAllowed(
        "the enrolment token is not valid for this node, or not any more",
        hint="ask an administrator for a new one: `muster node token NAME`",
        code="bad-enrolment-token",
    )
