"""Values of secrets on their way: encrypted at the submission, opened when an order is sealed or a call is made.

In between there are marks only (`app.marks`). Opening is done in the transaction that hands the job over: a job whose
secret cannot be had fails there, before anything is sent, and each use is in the audit trail with what it allowed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, insert, select

from app import marks
from app.errors import InvalidInput, Unavailable
from app.masking import Masker
from app.services import audit, roles
from app.services import secrets as service
from app.services.control import Control
from app.store.tables import Execution, Secret, SecretParameter, User, table
from app.transport.messages import Job

secrets, parameters, users = table(Secret), table(SecretParameter), table(User)
executions = table(Execution)

_LEAST_ROLE = "operator"


class SecretRefused(InvalidInput):
    """A job cannot have a secret that it names; the message says which, and why."""

    code = "secret"


@dataclass(frozen=True, slots=True)
class Asked:
    """Which job of which execution asks, on whose behalf. `allowed` are the references that its task names."""

    execution: str
    task: str
    job: str
    requester: str
    allowed: Collection[str]


@dataclass(frozen=True, slots=True)
class Opened:
    """Values by reference, for one job."""

    values: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def size(self) -> int:
        """Bytes, about."""
        return sum(len(name) + len(value.encode()) + 8 for name, value in self.values.items())

    def masker(self) -> Masker | None:
        """What the values are masked with; None where there are none."""
        return Masker(self.values.values()) if self.values else None


# submissions


@dataclass(frozen=True, slots=True)
class Bound:
    """Parameters as they are stored, marks for secrets, and the rows that hold those."""

    parameters: dict[str, Any]
    rows: list[dict[str, Any]] = field(repr=False)


def seal(
    control: Control,
    execution: str,
    secret: Collection[str],
    bound: Mapping[str, Any],
    given_on: Mapping[str, Mapping[str, Any]],
) -> Bound:
    """Take the values of the secret parameters out of `bound`. `given_on` are rows of those that a parent gives on.

    Raises InvalidInput for a value that cannot be a secret, Unavailable without keys.
    """
    rows: list[dict[str, Any]] = []
    kept = dict(bound)
    for name in secret:
        value = bound.get(name)
        if value is None:
            continue
        kept[name] = marks.mark(f"{marks.PARAMETER}:{name}")
        if name in given_on:
            rows.append({**given_on[name], "execution": execution, "name": name})
            continue
        _check(name, value)
        sealed = control.keyring.current(control.settings).seal(about_parameter(execution, name), value)
        rows.append(
            {
                "execution": execution,
                "name": name,
                "ciphertext": sealed.ciphertext,
                "key_id": sealed.key_id,
                "secret": "",
            }
        )
    return Bound(kept, rows)


def _check(name: str, value: str) -> None:
    try:
        service.check_value(value, f"the parameter `{name}`")
    except InvalidInput as problem:
        error = {"pointer": f"/parameters/{name}", "detail": problem.message, "hint": problem.hint}
        raise InvalidInput(
            problem.message, hint=problem.hint, code="invalid-parameters", errors=[error]
        ) from None


def about_parameter(execution: str, name: str) -> str:
    """What the value of a secret parameter is encrypted with."""
    return f"{marks.PARAMETER}:{execution}:{name}"


def keep(connection: Connection, bound: Bound) -> None:
    """Write the rows of a new execution."""
    if bound.rows:
        connection.execute(insert(SecretParameter), bound.rows)


def give_on(
    control: Control, connection: Connection, parent: str, child: str, wanted: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    """The rows by which a child has what its parent gave on: references by the child's parameters.

    A secret stays the name of the secret; a parameter is encrypted anew, as the child's own. Raises SecretRefused.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, reference in wanted.items():
        kind, _, of = reference.partition(":")
        stored = of if kind == marks.SECRET else ""
        if kind == marks.CONFIG:
            stored = _configured(connection, parent, of)
        row = {"ciphertext": "", "key_id": "", "secret": stored}
        if kind == marks.PARAMETER:
            held = _held(connection, parent, of)
            row["secret"] = held.secret
            if not held.secret:
                value = opened(control, about_parameter(parent, of), held.ciphertext, reference)
                sealed = control.keyring.current(control.settings).seal(about_parameter(child, name), value)
                row |= {"ciphertext": sealed.ciphertext, "key_id": sealed.key_id}
        found[name] = row
    return found


# jobs


def for_order(control: Control, connection: Connection, asked: Asked, message: Job) -> Opened:
    """The values of the marks in what a node is to run, audited. Raises SecretRefused."""
    named = marks.references([message.env, message.stdin, message.input])
    return open_each(control, connection, asked, named)


def open_each(control: Control, connection: Connection, asked: Asked, references: Iterable[str]) -> Opened:
    """The values of these references, each use noted in the audit trail. Raises SecretRefused."""
    values: dict[str, str] = {}
    for reference in dict.fromkeys(references):
        if reference not in asked.allowed:
            raise SecretRefused(
                f"{marks.shown_reference(reference)} is not named by any template of {asked.task}"
            )
        kind, _, name = reference.partition(":")
        values[reference] = _value(control, connection, asked, kind, name)
    return Opened(values)


def _value(control: Control, connection: Connection, asked: Asked, kind: str, name: str) -> str:
    if kind == marks.PARAMETER:
        held = _held(connection, asked.execution, name)
        if not held.secret:
            about = about_parameter(asked.execution, name)
            return opened(control, about, held.ciphertext, f"{kind}:{name}")
        name = held.secret
    elif kind == marks.CONFIG:
        name = _configured(connection, asked.execution, name)
    row = connection.execute(
        select(secrets.c.ciphertext, secrets.c.version, secrets.c.users).where(secrets.c.name == name)
    ).first()
    if row is None:
        raise SecretRefused(f"there is no secret {name}", hint="`muster secret set` makes one")
    if not may_use(connection, asked.requester, row.users):
        raise SecretRefused(
            f"{asked.requester} may not use the secret {name}", hint="`muster secret list` tells who may"
        )
    value = opened(control, service.about(name), row.ciphertext, f"{marks.SECRET}:{name}")
    detail = {
        "version": row.version,
        "execution": asked.execution,
        "task": asked.task,
        "job": asked.job,
    }
    audit.record(connection, asked.requester, "secret.use", name, audit.ACCEPTED, detail, at=control.clock())
    return value


def _configured(connection: Connection, execution: str, key: str) -> str:
    """The name of the secret that the pack's configuration had under a key when the execution was submitted."""
    config = connection.execute(select(executions.c.config).where(executions.c.id == execution)).scalar_one()
    name = config.get(key)
    if not isinstance(name, str):
        raise SecretRefused(f"`pack.config.{key}` names no secret", hint="`muster pack config` sets it")
    return name


def _held(connection: Connection, execution: str, name: str) -> Any:
    query = select(parameters.c.ciphertext, parameters.c.secret)
    row = connection.execute(
        query.where(parameters.c.execution == execution, parameters.c.name == name)
    ).first()
    if row is None:
        raise SecretRefused(f"the value of the secret parameter {name} is not there any more")
    return row


def may_use(connection: Connection, login: str, allowed: Collection[str]) -> bool:
    """Whether a secret whose `users` are `allowed` is for a person: by login, or by a role that holds everywhere.

    A role for some packs would reach every secret by a workflow of one of them.
    """
    query = select(users.c.role, users.c.grants).where(users.c.login == login, users.c.enabled.is_(True))
    row = connection.execute(query).first()
    if row is None:
        return False
    grants = roles.kept(row.role, row.grants)
    named = [one for one in allowed if one in roles.ROLES] if allowed else [_LEAST_ROLE]
    return login in allowed or any(roles.may_everywhere(grants, one) for one in named)


def opened(control: Control, about: str, ciphertext: str, reference: str) -> str:
    """The value that was sealed under `about`. Raises SecretRefused, which names the reference."""
    try:
        value = control.keyring.current(control.settings).open(about, ciphertext)
    except Unavailable as problem:
        raise SecretRefused(problem.message, hint=problem.hint) from None
    if value is None:
        raise SecretRefused(
            f"{marks.shown_reference(reference)} cannot be decrypted here",
            hint="the key that it was encrypted with must be in the file of secret keys",
        )
    return value


def refuse(control: Control, connection: Connection, asked: Asked, error: SecretRefused) -> None:
    """Keep that a job did not get a secret, with the change that fails it."""
    detail = {"code": error.code, "message": error.message, "task": asked.task}
    audit.record(
        connection, asked.requester, "secret.use", asked.job, audit.REFUSED, detail, at=control.clock()
    )
