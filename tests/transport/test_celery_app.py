"""What a role's app is set to, whatever its broker; and that a name is held once."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest

from app.errors import Conflict, InvalidInput, NotAllowed
from app.transport import queues, rabbit
from app.transport.celery_app import Role, make_celery
from app.transport.channel import Transport
from app.transport.restore import hold_name, own_keys

REDIS_URLS = [
    "redis://127.0.0.1:6379/3",
    "rediss://u:p@h:6380/0",
    "redis+socket:///tmp/r.sock?virtual_host=2",
]


@pytest.mark.parametrize("role", get_args(Role))
@pytest.mark.parametrize("url", REDIS_URLS)
def test_every_role_on_every_redis(role: Role, url: str) -> None:
    app = make_celery(role, broker_url=url, name="w1", queues=["control"] if role == "control" else [])
    conf, connection = app.conf, app.connection_for_read()
    assert connection.get_transport_cls() is connection.clone().get_transport_cls() is Transport
    options = conf.broker_transport_options
    keeps = role != "node"
    assert {key: options.get(key) for key in own_keys("w1")} == (
        own_keys("w1") if keeps else dict.fromkeys(own_keys("w1"))
    )
    assert options.get("ack_emulation", True) is keeps
    assert options["priority_steps"] == [0]
    assert (conf.accept_content, conf.task_serializer, conf.timezone) == (["json"], "json", "UTC")
    assert (conf.task_ignore_result, conf.worker_enable_remote_control) == (True, False)
    assert (conf.worker_prefetch_multiplier, conf.worker_send_task_events) == (1, False)
    assert conf.task_acks_late is (role == "control")
    assert conf.task_create_missing_queues is (role in ("control", "sender"))
    assert options.get("visibility_timeout") == (600 if keeps else None)
    assert {queue.exchange.name for queue in app.amqp.queues.values()} == {""}
    app.close()


def test_rabbitmq_gets_none_of_the_options_of_redis() -> None:
    app = make_celery("control", broker_url="amqp://u:p@h:5672/v", name="w1", queues=["control"])
    options = app.conf.broker_transport_options
    assert options == {
        "confirm_publish": True,
        "client_properties": {"connection_name": "muster:control:w1"},
    }
    assert app.conf.broker_heartbeat == 10
    assert app.connection_for_read().get_transport_cls() is rabbit.Transport
    tls = make_celery("node", broker_url="amqps://u:p@h/v", name="n", queues=["node.n"])
    assert tls.connection_for_read().get_transport_cls() is rabbit.SSLTransport
    exchanges = {queue.name: (queue.exchange.name, queue.no_declare) for queue in tls.amqp.queues.values()}
    assert exchanges == {
        "node.n": ("", None),
        queues.RESULTS: (queues.FROM_NODES, True),
        queues.HEARTBEATS: (queues.FROM_NODES, True),
    }
    app.close()
    tls.close()


def test_what_is_no_broker_or_no_node(tmp_path: Path) -> None:
    for url in ("sqs://", "memory://", "filesystem://", "http://x", "x", ""):
        with pytest.raises(InvalidInput, match="not known"):
            make_celery("control", broker_url=url, name="w1")
    for wrong in ({"backend_url": "redis://x"}, {"remote_control": True}):
        with pytest.raises(InvalidInput, match="a node"):
            make_celery("node", broker_url="redis://x", name="w1", **wrong)


def test_no_part_of_arguments_or_results_is_shown() -> None:
    app = make_celery("control", broker_url="redis://x", name="w1")

    @app.task(name="t")
    def secretive() -> str:
        return "secret"

    assert secretive.resultrepr_maxsize == 0
    sent = app.amqp.as_task_v2("i", "t", args=["secret"], kwargs={"a": "secret"}, create_sent_event=True)
    assert "secret" not in str(sent.headers)
    assert "secret" not in str(sent.sent_event)
    app.close()


def test_a_sender_may_name_any_queue_and_consumes_none() -> None:
    sender = make_celery("sender", broker_url="redis://x", name="api")
    assert sender.amqp.queues["node.web-9"].routing_key == "node.web-9"
    node = make_celery("node", broker_url="redis://x", name="n", queues=["node.n"])
    assert set(node.amqp.queues) == {"node.n", queues.RESULTS, queues.HEARTBEATS}
    with pytest.raises(KeyError):
        node.amqp.queues["node.web-9"]
    sender.close()
    node.close()


HOLDER = """
import sys, pathlib
from app.transport.restore import hold_name
held = hold_name("w1", "redis://a", pathlib.Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_a_name_is_held_by_one_process_and_free_when_it_dies(tmp_path: Path) -> None:
    directory = tmp_path / "state"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(directory)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(Conflict, match=f"process {other.pid}"):
            hold_name("w1", "redis://a", directory)
        hold_name("w1", "redis://b", directory).close()
        hold_name("w2", "redis://a", directory).close()
        other.kill()
        other.wait()
    held = hold_name("w1", "redis://a", directory)
    path = next(path for path in directory.iterdir() if path.read_text() == f"{os.getpid()}\n")
    assert path.stat().st_mode & 0o777 == 0o600
    fcntl.lockf(held, fcntl.LOCK_UN)
    held.close()


def test_a_directory_that_others_may_write_is_none(tmp_path: Path) -> None:
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    (tmp_path / "link").symlink_to(tmp_path)
    wrong: list[Any] = [open_to_all, tmp_path / "link"]
    for directory in wrong:
        with pytest.raises(NotAllowed, match="not a directory of ours"):
            hold_name("w1", "redis://a", directory)
