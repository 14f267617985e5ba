"""The configuration of packs: values for the keys that config.yaml declares, checked when they are set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, select, update

from app.compiler.plan import Plan
from app.errors import Conflict, InvalidInput, NotFound
from app.language.known import Setting, setting_from_json
from app.language.names import INLINE_REF
from app.language.parameters import bind
from app.services import audit
from app.services.control import Control
from app.services.packs import no_pack
from app.store.tables import Pack, Secret, table

packs, secrets = table(Pack), table(Secret)


def get(connection: Connection, ref: str) -> dict[str, Any]:
    """The keys of a pack's configuration and the values that were set. Raises NotFound."""
    row = connection.execute(_OF.where(packs.c.ref == ref)).first()
    if row is None:
        raise no_pack(ref)
    keys = [_shown(one) for one in row.config_schema or ()]
    return {"ref": ref, "keys": keys, "config": dict(row.config)}


_OF = select(packs.c.id, packs.c.config_schema, packs.c.config)


def _shown(data: Mapping[str, Any]) -> dict[str, Any]:
    shown = {name: data[name] for name in ("name", "type", "required", "secret", "description")}
    if data["has_default"] and not data["secret"]:
        shown["default"] = data["default"]
    if data["enum"] is not None and not data["secret"]:
        shown["enum"] = data["enum"]
    return shown


def put(
    control: Control, ref: str, given: Mapping[str, Any], person: str, *, expected: Mapping[str, Any]
) -> None:
    """Set the whole configuration; a key that is not given has its default from then on. Executions keep theirs.

    `expected` are the values that this replaces. Raises NotFound; Conflict where they are others by now; InvalidInput
    for a key that is not declared, a value that does not fit, and what is no name of a secret under a secret key.
    """
    # What is written down is which keys were set: a value may be nobody's business.
    detail = {"keys": sorted(str(name)[:64] for name in given)[:100]}
    with audit.writing(control, person, "pack.configure", ref, detail) as connection:
        row = connection.execute(_OF.where(packs.c.ref == ref).with_for_update()).first()
        if row is None:
            raise no_pack(ref)
        if row.config != expected:
            hint = "read it again and repeat the change"
            raise Conflict(f"the configuration of {ref} has changed", hint=hint, code="revision-conflict")
        keys = tuple(setting_from_json(one) for one in row.config_schema or ())
        _check_secrets(connection, ref, keys, given)
        values = _checked(ref, keys, given)
        connection.execute(
            update(packs).where(packs.c.id == row.id).values(config=values, updated_at=control.clock())
        )


def _checked(ref: str, keys: tuple[Setting, ...], given: Mapping[str, Any]) -> dict[str, Any]:
    """The values as they are kept. Raises InvalidInput with a pointer for each that is wrong."""
    named = {key.name for key in keys}
    try:
        bound = bind(tuple(_optional(key) for key in keys), given)
    except InvalidInput as error:
        errors = [{name: _of_config(value) for name, value in one.items()} for one in error.detail["errors"]]
        raise InvalidInput(
            _of_config(error.message), hint=_of_config(error.hint), code="invalid-config", errors=errors
        ) from None
    return {
        name: value for name, value in bound.items() if name in given and name in named and value is not None
    }


def _check_secrets(
    connection: Connection, ref: str, keys: tuple[Setting, ...], values: Mapping[str, Any]
) -> None:
    """What a secret key holds is the name of a secret that there is: a value would lie here in clear."""
    for key in keys:
        name = values.get(key.name)
        if not key.secret or name is None:
            continue
        found = isinstance(name, str) and connection.execute(
            select(secrets.c.name).where(secrets.c.name == name)
        )
        if not found or found.first() is None:
            # What was given may be the secret itself: it is not said again.
            detail = f"`{key.name}` of {ref} is secret: it holds the name of a secret, and there is none of that name"
            hint = f"`muster secret set {ref}/{key.name}`, then `muster pack config {ref} {key.name}={ref}/{key.name}`"
            errors = [{"pointer": f"/config/{key.name}", "detail": detail, "hint": hint}]
            raise InvalidInput(detail, hint=hint, code="secret-config", errors=errors)


def _optional(key: Setting) -> Setting:
    """What is required is asked for when it is read: whoever sets one key need not know the others."""
    if key.secret:
        return Setting(key.name, "string", description=key.description)
    return Setting(key.name, key.type, enum=key.enum, description=key.description)


def _of_config(text: str) -> str:
    return (
        text.replace("/parameters/", "/config/")
        .replace("the parameter", "the key")
        .replace("no parameter", "no key")
        .replace("this workflow takes no parameters", "its pack declares no keys")
    )


def for_execution(connection: Connection, plan: Plan) -> dict[str, Any]:
    """What a workflow reads of its pack's configuration, as it is now: only the keys that its templates name.

    Raises Conflict where a required one has no value.
    """
    if not plan.config_refs or plan.ref == INLINE_REF:
        return {}
    ref = plan.ref.partition(".")[0]
    row = connection.execute(_OF.where(packs.c.ref == ref)).first()
    if row is None:
        raise NotFound(
            f"{plan.ref} reads the configuration of the pack {ref}, which is not there",
            hint=f"register it: `muster pack register {ref}`",
            code="unknown-pack",
        )
    found = {}
    for key in (setting_from_json(one) for one in row.config_schema or ()):
        if key.name in plan.config_refs or "*" in plan.config_refs:
            value = row.config.get(key.name, key.default if key.has_default else None)
            if value is None and key.required:
                raise Conflict(
                    f"{plan.ref} reads `pack.config.{key.name}`, which has no value",
                    hint=f"set it: `muster pack config {ref} {key.name}=…`",
                    code="pack-not-configured",
                )
            found[key.name] = value
    return found
