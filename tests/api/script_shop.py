"""Saved scripts as rows, for tests of what is done with them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from api_world import World
from sqlalchemy import insert, update

from app.services.run import Run
from app.store.tables import Script, ScriptVersion, table

scripts, versions = table(Script), table(ScriptVersion)

BODY = 'echo "deploying ${target} {{ not.a.template }}"\n'
TARGET = {"name": "target", "type": "string", "required": True}
EXECUTE = "/automation/scripts/deploy/execute"
GOOD = {"host_ids": ["web-1", "web-2", "web-3"], "parameter_values": {"target": "/srv"}}


def stock(world: World) -> World:
    """Three nodes, of which web-3 has no zsh, and the script `deploy`."""
    for number in (1, 2, 3):
        shells = ["sh", "bash", "zsh"] if number < 3 else ["sh"]
        world.add_node(f"web-{number}", labels={"role": "web"}, shells=shells)
    put(world, "deploy", BODY, [TARGET])
    return world


def put(world: World, name: str, body: str, parameters: Sequence[Any] = (), **more: Any) -> str:
    """A version more of a script, which is made where there is none; its id."""
    number = int(more.pop("version", 1))
    script = ("01J0000000000000000000" + hashlib.sha256(name.encode()).hexdigest()[:4]).upper()
    version = {
        "script_id": script,
        "version": number,
        "shell": more.pop("shell", "sh"),
        "body": body,
        "parameters": list(parameters),
        "substitution": more.pop("substitution", "bound"),
        "digest": hashlib.sha256(body.encode()).hexdigest(),
        "author": "author",
        "created_at": 1_700_000_000.0,
    }
    row = {
        "id": script,
        "name": name,
        "timeout": 60.0,
        "updated_by": "author",
        "created_at": 1_700_000_000.0,
        "updated_at": 1_700_000_000.0,
        "version": number,
        **more,
    }
    with world.control.store.write() as connection:
        if number == 1:
            connection.execute(insert(scripts).values(row))
        else:
            connection.execute(update(scripts).where(scripts.c.id == script).values(version=number))
        connection.execute(insert(versions).values(version))
    return script


def begin(world: World, execution: str) -> None:
    """As if a control worker had been nudged: what the request put off is done."""
    with world.control.store.write() as connection:
        Run.lock(world.control, connection, execution).begin()
