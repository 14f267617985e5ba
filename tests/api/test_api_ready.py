"""Ready only where the broker is: RabbitMQ or a second Redis, there, away, silent, or closed to us."""

from __future__ import annotations

import socket
import time
from dataclasses import replace
from urllib.parse import urlsplit

import pytest
from api_world import World
from rabbit import Rabbit

from app.api import create_app
from app.errors import Unavailable
from app.transport import rabbit_ping


def checks(world: World, redis_url: str, broker: str) -> tuple[int, dict[str, str]]:
    """What /readyz answers with this broker: its status and what it found."""
    settings = replace(world.control.settings, redis_url=redis_url, broker_url=broker)
    control = replace(world.control, settings=settings)
    answer = World(control, create_app(control=control), world.tokens).ask("GET", "/readyz", "viewer")
    return answer.status_code, answer.get_json()["checks"]


@pytest.mark.parametrize("url", ["amqp://u:secret@127.0.0.1:1/v", "redis://u:secret@127.0.0.1:1/0"])
def test_a_broker_that_is_away_is_told(world: World, redis_url: str, url: str) -> None:
    status, found = checks(world, redis_url, url)
    assert (status, found["redis"]) == (503, "ok")
    assert found["broker"].startswith("does not answer")
    assert "secret" not in str(found)


def test_another_redis_that_answers(world: World, redis_url: str) -> None:
    status, found = checks(world, redis_url, f"{redis_url}?virtual_host=1")
    assert (status, found["broker"]) == (200, "ok")


def test_rabbitmq_that_answers_and_one_that_lets_nobody_in(
    world: World, redis_url: str, rabbit: Rabbit
) -> None:
    assert checks(world, redis_url, rabbit.url) == (
        200,
        {"database": "ok", "redis": "ok", "broker": "ok", "allowlist": "ok"},
    )
    status, found = checks(world, redis_url, f"{rabbit.url}_none")
    assert (status, found["broker"]) == (503, "does not let the user into the virtual host, or there is none")
    parts = urlsplit(rabbit.url)
    stranger = parts._replace(netloc=f"nobody:secret@{parts.hostname}:{parts.port or 5672}").geturl()
    assert checks(world, redis_url, stranger)[1]["broker"] == "refuses the user or the password"


def test_one_that_takes_the_connection_and_says_nothing_is_not_waited_for() -> None:
    """As RabbitMQ does when it is stopped in the middle, or has no memory left for anything."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        begun = time.monotonic()
        with pytest.raises(Unavailable, match="does not answer"):
            rabbit_ping.ping(f"amqp://u:p@127.0.0.1:{silent.getsockname()[1]}/v", seconds=0.2)
        assert time.monotonic() - begun < 30
