"""`muster token`: who may ask the API."""

from __future__ import annotations

import click

from app.cli.client import api
from app.cli.connection import Call, calls_api
from app.cli.failures import ApiProblem
from app.cli.plain import safe
from app.cli.terminal import Screen, rows_of
from app.cli.user import ROLES

_LIST = ("id", "login", "role", "name", "created_at", "expires_at", "used_at", "revoked_at")
_CONFLICT = 409

_mine = click.option("--mine", is_flag=True, help="Your own only: that needs no administrator.")


def _path(mine: bool, *parts: str) -> str:
    return api(*(["me"] if mine else []), "tokens", *parts)


@click.group(short_help="Create, list and revoke the tokens of people.")
def token() -> None:
    """Create, list and revoke the tokens of people."""


@token.command("create")
@click.argument("login")
@click.option("--role", type=click.Choice(ROLES), help="Make the person first, with this role.")
@click.option("--name", default="", help="What the token is for.")
@click.option("--expires-in", type=click.IntRange(1), help="Seconds until it ends; never if not given.")
@calls_api
def create(call: Call, login: str, role: str | None, name: str, expires_in: int | None) -> None:
    """Create a token for a person; it is shown once. With --role the person is made first, if need be."""
    if role is not None:
        _make_person(call, login, role)
    body = {"login": login, "name": name} | ({} if expires_in is None else {"expires_in": expires_in})
    call.show(call.client.post(api("tokens"), body), lambda one: safe(str(one.get("token"))))


def _make_person(call: Call, login: str, role: str) -> None:
    try:
        call.client.post(api("users"), {"login": login, "role": role})
    except ApiProblem as error:
        if error.status != _CONFLICT:
            raise
        known = {one["login"]: one for one in call.client.items(api("users"))}
        if known.get(login, {}).get("role") != role:
            raise


@token.command("list")
@_mine
@calls_api
def list_(call: Call, mine: bool) -> None:
    """List tokens; never the secrets themselves."""
    items = call.client.items(_path(mine))
    if call.json:
        call.show({"items": items}, str)
        return
    Screen().table(_LIST, rows_of(items, _LIST))


@token.command("revoke")
@click.argument("id_", metavar="ID")
@_mine
@calls_api
def revoke(call: Call, id_: str, mine: bool) -> None:
    """Revoke a token, at once."""
    call.client.call("DELETE", _path(mine, id_))
    call.show({"id": id_, "revoked": True}, lambda one: f"revoked: {safe(id_)}")
