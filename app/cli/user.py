"""`muster user`: people, and what each may."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from app.cli.client import api
from app.cli.connection import Call, calls_api
from app.cli.plain import safe
from app.cli.terminal import Screen, rows_of
from app.errors import InvalidInput

ROLES = ("viewer", "operator", "approver", "author", "admin")
_LIST = ("login", "may", "enabled", "created_at")
_GRANT = "--grant operator@web,shop:site=north,role=web"

_role = click.option("--role", type=click.Choice(ROLES), help="A role that holds everywhere.")
_grants = click.option(
    "--grant",
    "grants",
    multiple=True,
    metavar="ROLE[@PACK,…][:K=V,…]",
    help="A role for these packs only, on nodes with these labels only; again for more.",
)


@click.group(short_help="Add people, and say what each may.")
def user() -> None:
    """Add people, and say what each may. For administrators."""


@user.command("add")
@click.argument("login")
@_role
@_grants
@calls_api
def add(call: Call, login: str, role: str | None, grants: Sequence[str]) -> None:
    """Add a person, with a role or with grants. `muster token create LOGIN` makes a token for them."""
    body = {"login": login, **_asked(role, grants)}
    if len(body) == 1:
        raise InvalidInput("say what they may", hint=f"--role operator, or {_GRANT}")
    _show(call, call.client.post(api("users"), body))


@user.command("list")
@calls_api
def list_(call: Call) -> None:
    """List everybody with what they may."""
    items = call.client.items(api("users"))
    if call.json:
        call.show({"items": items}, str)
        return
    Screen().table(_LIST, rows_of([{**one, "may": _told(one)} for one in items], _LIST))


@user.command("show")
@click.argument("login")
@calls_api
def show(call: Call, login: str) -> None:
    """Show one person."""
    _show(call, call.client.get(api("users", login)))


@user.command("set")
@click.argument("login")
@_role
@_grants
@calls_api
def set_(call: Call, login: str, role: str | None, grants: Sequence[str]) -> None:
    """Give a person another role, or other grants in place of all that they have. It counts at once."""
    body = _asked(role, grants)
    if not body:
        raise InvalidInput("say what they may", hint=f"--role operator, or {_GRANT}")
    _change(call, login, body)


@user.command("disable")
@click.argument("login")
@calls_api
def disable(call: Call, login: str) -> None:
    """Refuse a person and all their tokens, at once. What they started goes on."""
    _change(call, login, {"enabled": False})


@user.command("enable")
@click.argument("login")
@calls_api
def enable(call: Call, login: str) -> None:
    """Let a person in again; tokens that were not revoked hold again."""
    _change(call, login, {"enabled": True})


def _change(call: Call, login: str, body: Mapping[str, Any]) -> None:
    _show(call, call.client.call("PATCH", api("users", login), body=dict(body)).data)


def _show(call: Call, one: Mapping[str, Any]) -> None:
    if call.json:
        call.show(one, str)
    else:
        Screen().facts({name: {**one, "may": _told(one)}.get(name) for name in _LIST})


def _asked(role: str | None, grants: Sequence[str]) -> dict[str, Any]:
    if role is not None and grants:
        raise InvalidInput("--role and --grant are two ways to say it", hint="give one of them")
    if role is not None:
        return {"role": role}
    return {"grants": [_grant(text) for text in grants]} if grants else {}


def _grant(text: str) -> dict[str, Any]:
    """A grant as it is typed: `ROLE[@PACK,…][:K=V,…]`."""
    what, colon, labels = text.partition(":")
    role, at, packs = what.partition("@")
    found: dict[str, Any] = {"role": role}
    if at:
        found["packs"] = packs.split(",")
    if colon:
        pairs = [pair.partition("=") for pair in labels.split(",")]
        found["labels"] = {name: value for name, _, value in pairs}
        if len(found["labels"]) != len(pairs) or not all(name and equals for name, equals, _ in pairs):
            raise InvalidInput(f"the labels of --grant {text!r} are not K=V,K=V", hint=_GRANT)
    if role not in ROLES or (at and not all(found["packs"])):
        raise InvalidInput(f"--grant {text!r} is not ROLE[@PACK,…][:K=V,…]", hint=_GRANT)
    return found


def _told(one: Mapping[str, Any]) -> str:
    """What somebody may, as it would be typed."""
    return " ".join(_typed(grant) for grant in one.get("grants") or ())


def _typed(grant: Mapping[str, Any]) -> str:
    packs, labels = grant.get("packs"), grant.get("labels")
    text = str(grant.get("role"))
    text += "@" + ",".join(map(str, packs)) if packs else ""
    return safe(
        text + (":" + ",".join(f"{name}={value}" for name, value in labels.items()) if labels else "")
    )
