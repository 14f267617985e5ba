"""`muster doctor` where RabbitMQ is the broker: what it finds in one, as control and as a node."""

from __future__ import annotations

import json
from collections.abc import Iterator

import kombu
import pytest
from rabbit import Rabbit

from app.cli.main import main
from app.transport import queues
from app.transport.celery_app import make_rabbit_queue

OWN = r"^node\.web-1(\.ctl)?$"


def found(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, url: str, node: str = ""
) -> str:
    """What it says of the broker: status, detail, hint."""
    monkeypatch.setenv("CELERY_BROKER_URL", url)
    monkeypatch.setenv("MUSTER_NODE", node)
    assert main(["doctor", "--json", "--url", "http://127.0.0.1:1"]) == 1, "there is no API"
    (told,) = (one for one in json.loads(capsys.readouterr().out)["checks"] if one["name"] == "broker")
    return f"{told['status']}: {told['detail']} ({told['hint']})"


@pytest.fixture(autouse=True)
def _clean(rabbit: Rabbit) -> Iterator[None]:
    yield
    rabbit.wipe()


def test_as_control(
    rabbit: Rabbit, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = found(capsys, monkeypatch, rabbit.url)
    assert told.startswith("warn: amqp://guest:**@127.0.0.1:5672/")
    assert "no exchange 'from-nodes' yet" in told
    with kombu.Connection(rabbit.url) as connection:
        taken = [make_rabbit_queue(name) for name in (queues.RESULTS, queues.HEARTBEATS)]
        consumer = kombu.Consumer(connection.default_channel, taken)
        consumer.declare()
        assert "nobody takes from 'results'" in found(capsys, monkeypatch, rabbit.url)
        consumer.consume()
        assert "ok: " in found(capsys, monkeypatch, rabbit.url)
        consumer.cancel_by_queue(queues.HEARTBEATS)
        assert "nobody takes from 'heartbeats'" in found(capsys, monkeypatch, rabbit.url)


def test_as_a_node(
    rabbit: Rabbit, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    right = rabbit.add_user("right", OWN, "^from-nodes$", OWN)
    assert "no exchange 'from-nodes' yet" in found(capsys, monkeypatch, right, "web-1")
    with rabbit.channel() as channel:
        channel.exchange_declare(queues.FROM_NODES, "direct", durable=True, auto_delete=False)
    assert "nobody takes the orders of web-1" in found(capsys, monkeypatch, right, "web-1")
    own = [make_rabbit_queue("node.web-1")]
    with kombu.Connection(right) as connection, kombu.Consumer(connection.default_channel, own):
        assert "ok: " in found(capsys, monkeypatch, right, "web-1")
    for name, rights in {"mute": (OWN, "^$", OWN), "fixed": ("^$", "^from-nodes$", OWN)}.items():
        told = found(capsys, monkeypatch, rabbit.add_user(name, *rights), "web-1")
        assert told.startswith("fail: "), told
        assert "refused: " in told
        assert "docs/operations.md" in told


def test_who_may_not_enter(
    rabbit: Rabbit, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = found(capsys, monkeypatch, rabbit.url + "x")
    assert elsewhere.startswith("fail: ")
    assert "virtual host" in elsewhere
    stranger = found(capsys, monkeypatch, rabbit.url.replace("guest:guest", "guest:wrong-password"))
    assert "refused: " in stranger
    assert "wrong-password" not in stranger
    nobody = found(capsys, monkeypatch, "amqp://guest:hidden@127.0.0.1:1/x")
    assert "does not answer" in nobody
    assert "hidden" not in nobody
