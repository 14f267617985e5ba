"""Machines that have only an SSH server: added, trusted, and what the gateway reads and writes of their rows.

Such a node is a node like any other, but its keys and its journal are with the gateway (`app.gateway`), which logs in
with a private key from the secrets. Nothing is sent to a machine whose host key nobody has trusted.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, select, update

from app.errors import Conflict, InvalidInput, NotFound
from app.services import audit, fleet, host_keys, vault
from app.services import secrets as secret_service
from app.services.control import Control
from app.services.fleet import SSH
from app.services.ssh_address import Address, parse
from app.store.tables import Node, Secret, table
from app.transport.keys import Public

nodes, secrets = table(Node), table(Secret)

BACKENDS: Final = ("asyncssh", "openssh")
SLOTS: Final = 4
"""Scripts that run at once unless somebody says otherwise: sshd lets ten sessions into one connection."""
MOST_SLOTS: Final = 64
MOST_WORKDIR: Final = 1024
_KEPT: Final = ("active", "draining")


@dataclass(frozen=True, slots=True)
class NewNode:
    """A machine to be reached. `key` names the secret that holds the private key, `workdir` where jobs have their
    directories there (empty: below the user's home)."""

    name: str
    address: str
    key: str
    labels: Mapping[str, str]
    slots: int = SLOTS
    backend: str = BACKENDS[0]
    workdir: str = ""


@dataclass(frozen=True, slots=True)
class SshNode:
    """A row as the gateway sees it. `key_version` is that of the secret, None where there is none of that name."""

    name: str
    is_removed: bool
    ssh: Mapping[str, Any]
    host_key: str
    offered_key: str
    sign_kid: str
    breaker: Mapping[str, Any]
    added_by: str
    key_version: int | None

    @property
    def address(self) -> Address:
        return Address(self.ssh["user"], self.ssh["host"], self.ssh["port"])


# what people ask for


def add(control: Control, asked: NewNode, person: str, *, replace: bool = False) -> None:
    """Make a node of a machine, or reach a known one in another way (`replace`).

    Its host key is then fetched by the gateway and waits for `trust`. A node that is `replace`d and stays on its host
    keeps the trust, and, with its user and directory too, its jobs; else those that it holds become unknown. Raises
    InvalidInput, and Conflict where the name is taken.
    """
    address = _checked(asked)
    place = {"user": address.user, "host": address.host, "port": address.port, "workdir": asked.workdir}
    written = {
        "ssh": {**place, "key": asked.key, "backend": asked.backend, "slots": asked.slots},
        # As workflows may call it, which do not tell small letters from capital ones.
        "address": address.place.lower(),
        "labels": dict(asked.labels),
        "enrolled_by": person,
        "breaker": {},
    }
    told = {"address": str(address), "key": asked.key, "backend": asked.backend, "replace": replace}
    with audit.writing(control, person, "node.add", asked.name, told) as connection:
        _check_key(connection, asked.key, person)
        before = _before(connection, asked.name, replace=replace)
        # Where the jobs of the node are where they were, its journal still tells the truth.
        stays = _is_there(before, place)
        fleet.upsert(
            connection, asked.name, written if stays else {**_as_new(control, before, address), **written}
        )
    if before is not None and not stays:
        fleet.lose(control, asked.name, queued=False)
    control.look([asked.name])


def _checked(asked: NewNode) -> Address:
    fleet.check(asked.name, asked.labels, fleet.LIFETIME)
    if asked.backend not in BACKENDS:
        raise InvalidInput(f"backend must be one of {', '.join(BACKENDS)}", code="bad-ssh-node")
    if not 1 <= asked.slots <= MOST_SLOTS:
        raise InvalidInput(f"slots must be 1 to {MOST_SLOTS}", code="bad-ssh-node")
    workdir = asked.workdir
    if workdir and (
        not workdir.startswith("/") or not workdir.isprintable() or len(workdir.encode()) > MOST_WORKDIR
    ):
        raise InvalidInput(
            f"workdir must be an absolute path of {MOST_WORKDIR} bytes at the most",
            hint="leave it out for a directory below the user's home",
            code="bad-ssh-node",
        )
    return parse(asked.address)


def _check_key(connection: Connection, key: str, person: str) -> None:
    row = connection.execute(select(secrets.c.users).where(secrets.c.name == key)).first()
    if row is None or not vault.may_use(connection, person, row.users):
        why = f"there is no secret {key[:80]}" if row is None else f"{person} may not use the secret {key}"
        error = {"pointer": "/key", "detail": why}
        hint = f"`muster secret set {key[:80]} --file PRIVATE-KEY --user {person}`"
        raise InvalidInput(why, hint=hint, code="bad-ssh-key", errors=[error])


def _before(connection: Connection, name: str, *, replace: bool) -> Any:
    """The row of the node that is there; None for a new one, and for the name of one that was removed."""
    if fleet.state_in(connection, name) not in _KEPT:
        return None
    if not replace:
        raise fleet.taken(name)
    return connection.execute(select(nodes).where(nodes.c.name == name)).one()


def _is_there(before: Any, place: Mapping[str, Any]) -> bool:
    """Whether the row is of an SSH node with these values."""
    return (
        before is not None
        and before.transport == SSH
        and all(before.ssh.get(name) == value for name, value in place.items())
    )


def _as_new(control: Control, before: Any, address: Address) -> dict[str, Any]:
    """The columns of a machine of which the gateway knows nothing yet: it makes keys, and a journal."""
    stays = _is_there(before, {"host": address.host, "port": address.port})
    fresh = {"transport": SSH, "public_keys": {}, "sign_kid": "", "enrolled_at": control.clock()}
    return {**fleet.NEW, **fresh, "host_key": before.host_key if stays else ""}


def trust(control: Control, name: str, fingerprint: str, person: str) -> str:
    """Trust the host key that was seen, from now on; the fingerprint must be that key's. Returns the fingerprint.

    Raises NotFound (no such node, or none of its keys was seen yet), Conflict (another key, or no SSH node).
    """
    with audit.writing(control, person, "node.trust", name, {"fingerprint": fingerprint}) as connection:
        state = fleet.state_in(connection, name)
        row = connection.execute(select(nodes).where(nodes.c.name == name)).first()
        if row is None or state not in _KEPT:
            raise fleet.unknown(name)
        if row.transport != SSH:
            raise Conflict(
                f"node {name} has a worker: no host key is asked of it",
                hint="`muster node list` tells the transport of each",
                code="not-ssh",
            )
        offered = host_keys.fingerprint(row.offered_key)
        if not offered:
            why = (row.breaker or {}).get("error") or "the gateway has not reached it yet"
            raise NotFound(
                f"no host key of {name} was seen: {why}",
                hint="is the gateway running (`celery -A workers.remote worker`)? then see `muster node show`",
                code="no-host-key",
            )
        if not hmac.compare_digest(offered.encode(), fingerprint.encode()):
            raise Conflict(
                f"{name} offers the host key {offered}, not {fingerprint[:80]}",
                hint="compare it with what `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` prints there",
                code="other-host-key",
            )
        connection.execute(
            update(Node).where(nodes.c.name == name).values(host_key=row.offered_key, breaker={})
        )
    control.look([name])
    return offered


# what the gateway asks for


def known(connection: Connection) -> list[SshNode]:
    """Every SSH node, the removed ones too. Two statements."""
    columns = ("name", "state", "ssh", "host_key", "offered_key", "sign_kid", "breaker", "enrolled_by")
    query = select(*(nodes.c[name] for name in columns)).where(nodes.c.transport == SSH)
    rows = connection.execute(query.order_by(nodes.c.name)).all()
    named = {row.ssh.get("key", "") for row in rows}
    asked = select(secrets.c.name, secrets.c.version).where(secrets.c.name.in_(named))
    versions = {row.name: row.version for row in connection.execute(asked)} if rows else {}
    return [
        SshNode(
            row.name,
            row.state not in _KEPT,
            row.ssh,
            row.host_key,
            row.offered_key,
            row.sign_kid,
            row.breaker or {},
            row.enrolled_by,
            versions.get(row.ssh.get("key", "")),
        )
        for row in rows
    ]


def take(control: Control, name: str, public_keys: Mapping[str, Any]) -> bool:
    """Make these the keys of a node that has none; False where another gateway was first, or the node is gone."""
    public = Public.from_json(public_keys)
    mine = (nodes.c.name == name, nodes.c.transport == SSH, nodes.c.state.in_(_KEPT), nodes.c.sign_kid == "")
    with control.store.write() as connection:
        changed = connection.execute(
            update(Node).where(*mine).values(public_keys=public.to_json(), sign_kid=public.kid)
        )
        return changed.rowcount == 1


def offer(control: Control, name: str, key: str) -> None:
    """Keep the host key that a machine shows. Raises InvalidInput for what is none."""
    shown = host_keys.check(key)
    other = (nodes.c.name == name, nodes.c.transport == SSH, nodes.c.offered_key != shown)
    with control.store.write() as connection:
        if connection.execute(update(Node).where(*other).values(offered_key=shown)).rowcount:
            told = {"fingerprint": host_keys.fingerprint(shown)}
            audit.record(connection, _person(name), "node.host_key", name, detail=told, at=control.clock())


def put_breaker(control: Control, name: str, breaker: Mapping[str, Any]) -> None:
    """Keep the state of a node's connection, for people."""
    mine = (nodes.c.name == name, nodes.c.transport == SSH, nodes.c.state.in_(_KEPT))
    with control.store.write() as connection:
        connection.execute(update(Node).where(*mine).values(breaker=dict(breaker)))


def private_key(control: Control, node: SshNode) -> str:
    """The private key of a node, with its use in the audit trail. Raises SecretRefused, with what to do."""
    name = str(node.ssh.get("key"))
    query = select(secrets.c.ciphertext, secrets.c.version, secrets.c.users).where(secrets.c.name == name)
    with control.store.write() as connection:
        row = connection.execute(query).first()
        if row is None:
            raise vault.SecretRefused(f"there is no secret {name}", hint=f"`muster secret set {name}`")
        if not vault.may_use(connection, node.added_by, row.users):
            raise vault.SecretRefused(
                f"{node.added_by}, who added the node, may not use the secret {name} any more",
                hint="add the node anew with --replace, or let them use it",
            )
        value = vault.opened(control, secret_service.about(name), row.ciphertext, f"secret:{name}")
        told = {"version": row.version, "node": node.name}
        audit.record(
            connection, _person(node.name), "secret.use", name, audit.ACCEPTED, told, at=control.clock()
        )
    return value


def _person(node: str) -> str:
    """As whom the gateway acts for a node, in the audit trail."""
    return f"node:{node}"[:64]
