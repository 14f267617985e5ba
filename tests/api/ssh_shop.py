"""An SSH node as an administrator adds one, and the host keys that it may show."""

from __future__ import annotations

from typing import Any

from api_world import World

from app.services import ssh_nodes

NAME = "far-1"
HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAID0SDJz5wnQf3zEe8b+LzzlcuvMdwpdNbBQRQR1InqKl"
FINGERPRINT = "SHA256:0o+XEA1ROQlKLW+ogg8oaH3QpB2O0O9cyKw/Qa+ovGc"
"""What ssh-keygen says of HOST_KEY; and of another one."""
OTHER_KEY = (
    "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBGfdYvIySa7uwTehHsI8IQX1B1dBYw90uODc"
    "iQKfL03RzqTqVsZWJVUCdpniIX4nBJKjLJyOJEyOSmYyyl3FFt0="
)
OTHER_FINGERPRINT = "SHA256:DqDUmoJ1GgmiXP5bj+OyaRSL8Km7XCGvvm6qo7Tetqk"


def with_key(world: World, name: str = "ssh/web", **more: Any) -> str:
    """A secret that an SSH node may name."""
    answer = world.ask("PUT", f"/api/v1/secrets/{name}", json={"value": "not a key at all", **more})
    assert answer.status_code in (200, 201), answer.text
    return name


def body(**more: Any) -> dict[str, Any]:
    """What is posted to add a node."""
    given = {"name": NAME, "transport": "ssh", "address": "deploy@far-1.example.org", "key": "ssh/web"}
    return {**given, **more}


def added(world: World, **more: Any) -> str:
    """The node, with its key; the path of it."""
    with_key(world)
    answer = world.post("/nodes", body(**more))
    assert answer.status_code == 201, answer.text
    return f"/nodes/{more.get('name', NAME)}"


def offered(world: World) -> str:
    """A node that the gateway has seen; the path of it."""
    path = added(world)
    ssh_nodes.offer(world.control, NAME, HOST_KEY)
    return path
