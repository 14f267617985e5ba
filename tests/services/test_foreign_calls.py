"""Sending foreign tasks where it breaks: a broker that takes the message and hangs up, and files that name nothing."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from waiting import PATIENCE, wait_until

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "fleet"))

from exchange import Exchange
from fleet_processes import Broker
from odd_server import odd_server

from app.errors import InvalidInput
from app.services import calling
from app.transport.foreign import Connection, Foreign, read_connections


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    made = Broker(tmp_path_factory.mktemp("r"))
    made.part.start()
    wait_until(made.answers, "redis-server")
    yield made
    made.close()
    assert made.part.process is not None
    made.part.process.kill()
    made.part.process.wait()


@contextmanager
def hangs_up(server: Path) -> Iterator[int]:
    """The port of a proxy that hands an LPUSH on, and hangs up before its answer."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(client: socket.socket) -> None:
        with suppress(OSError), client, socket.socket(socket.AF_UNIX) as inner:
            inner.connect(str(server))
            while data := client.recv(65536):
                inner.sendall(data)
                answer = inner.recv(65536)
                if b"LPUSH" in data:
                    return
                client.sendall(answer)

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(PATIENCE)


@pytest.mark.parametrize(("extra", "becomes"), [("", "unknown"), (", idempotent: true", "failed")])
def test_a_broker_that_hangs_up(tmp_path: Path, broker: Broker, extra: str, becomes: str) -> None:
    broker.client.flushall()
    with odd_server() as server, hangs_up(broker.socket) as port:
        exchange = Exchange(tmp_path, server)
        url = f"redis://127.0.0.1:{port}/0"
        path = tmp_path / "connections.toml"
        path.write_text(f'[default]\nbroker = "{url}"\nbackend = "{url}"\n')
        exchange.caller = replace(exchange.caller, foreign=Foreign(str(path)))
        execution = exchange.submit(
            f"tasks: [{{name: a, action: core.celery{extra}, input: {{task: sums.add}}}}]"
        )
        exchange.make()
        assert exchange.job(execution).status == becomes
        calling.look(exchange.caller, f"{execution}.a.0.1")
        exchange.tick(100_000)
        assert exchange.rung == ([f"{execution}.a.0.1"] if becomes == "unknown" else [])
        exchange.make()
        assert exchange.job(execution).status == becomes, "no timeout makes known what is not"
        assert broker.client.llen("celery") == 1, "sent once, whatever is known of it"
        if becomes == "unknown":
            broker.client.set(f"celery-task-meta-{execution}.a.0.1", '{"status": "SUCCESS", "result": [7]}')
            exchange.tick(60)
            exchange.make()
            assert exchange.job(execution).result == [7], "the result says that it was sent"
            assert exchange.status(execution) == "completed"
        exchange.caller.foreign.close()
        exchange.office.store.close()


@pytest.mark.parametrize("result", ["1e999", '{"a": [-1e999]}', "NaN", "[" * 5000])
def test_a_result_that_cannot_be_kept(broker: Broker, result: str) -> None:
    broker.client.set("celery-task-meta-odd", f'{{"status": "SUCCESS", "result": {result}}}')
    at = Connection("default", "", f"redis+socket://{broker.socket}")
    foreign = Foreign("")
    ended = foreign.ended(at, "odd", 10_000)
    foreign.close()
    assert ended is not None
    assert ended.error == {"type": "celery", "message": "the result is no JSON"}


def test_a_call_goes_to_the_broker_that_is_named_and_not_to_ours(
    tmp_path: Path, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Celery prefers the broker of its environment, which is where ours is set."""
    broker.client.flushall()
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://127.0.0.1:1/0")
    path = tmp_path / "connections.toml"
    path.write_text(f'[theirs]\nbroker = "redis+socket://{broker.socket}"\n')
    foreign = Foreign(str(path))
    foreign.send(foreign.connection("theirs"), "j1", "sums.add", [1], {}, "")
    assert broker.client.llen("celery") == 1
    foreign.close()


@pytest.mark.parametrize(
    "text",
    [
        "[a]",
        "a = 1",
        "[a]\nbroker = 5",
        "[a]\nbroker = ''",
        "[a]\nbroker = 'memory://'",
        "[a]\nbroker = 'redis://h'\nbackend = 'rpc://'",
        "[a]\nbroker = 'redis://h'\nbackend = 'file:///secret'",
        "[a]\nbroker = 'redis://h'\nserializer = 'pickle'",
        "[a",
        "\udcff",
        "#" * 70_000,
    ],
)
def test_a_file_that_names_nothing(tmp_path: Path, text: str) -> None:
    path = tmp_path / "connections.toml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InvalidInput) as raised:
        read_connections(str(path))
    assert "secret" not in raised.value.message


@pytest.mark.parametrize("path", ["", "/no/such/file", "/"])
def test_no_file(path: str) -> None:
    with pytest.raises(InvalidInput):
        read_connections(path)
