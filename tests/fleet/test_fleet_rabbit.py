"""What only a fleet on RabbitMQ has: rights for each user, and a server that loses connections and queues."""

from __future__ import annotations

import re
import shlex
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from amqp import Message
from amqp.exceptions import AccessRefused
from fleet import Fleet
from fleet_items import shell
from fleet_mixed import MIXED, all_ran_once, until_ran
from fleet_processes import ROOT
from rabbit import rabbit_only, rabbitmqctl
from sshd import Sshd
from waiting import wait_until

from app.services import host_keys, people, secrets, ssh_nodes
from app.transport import queues

pytestmark = [pytest.mark.fleet, rabbit_only]

GUIDE = (ROOT / "docs" / "operations.md").read_text()
RECIPE: dict[str, list[str]] = {
    words[4]: words[5:]
    for words in map(shlex.split, re.findall(r"^rabbitmqctl set_permissions .*$", GUIDE, re.M))
}
"""User -> what it may configure, write and read, as the guide to operations has it."""
(ACL,) = re.findall(r"^user web-7 on >ANOTHER (.* \+expire ~muster:log:web-7:\*)$", GUIDE, re.M)
NODES = ("local", "web-1", "web-2", "web-3")
CALL = "tasks: [{name: a, action: core.http, input: {url: 'http://127.0.0.1:1/'}}]"


class Users:
    """A user for each process, with the rights of the guide and no more."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._urls: dict[str, str] = {}

    def url(self, name: str) -> str:
        if name not in self._urls:
            assert self._fleet.rabbit is not None
            rights = RECIPE["web-7" if name in NODES else name]
            self._urls[name] = self._fleet.rabbit.add_user(
                name, *(right.replace("web-7", name) for right in rights)
            )
        return self._urls[name]

    def environment(self, name: str) -> dict[str, str]:
        found = {"CELERY_BROKER_URL": self.url(name)}
        if name in NODES:
            rules = ACL.replace("web-7", name).split()
            self._fleet.broker.client.execute_command("ACL", "SETUSER", name, "on", ">another", *rules)
            found["REDIS_URL"] = self._fleet.environment()["REDIS_URL"].replace(
                "redis://", f"redis://{name}:another@"
            )
        return found


@pytest.fixture(scope="module")
def restricted() -> Iterator[tuple[Fleet, Users]]:
    fleet = Fleet(NODES, tcp=True, MUSTER_HTTP_ALLOW="127.0.0.1/32")
    users = Users(fleet)
    fleet.own = users.environment
    with fleet:
        yield fleet, users


def test_a_fleet_works_with_the_rights_of_the_guide(restricted: tuple[Fleet, Users]) -> None:
    fleet, _ = restricted
    execution = fleet.submit(MIXED)
    assert fleet.wait_for(execution).status == "completed", fleet.story(execution)
    all_ran_once(fleet, [execution])
    stopped = fleet.submit(shell("echo begun; sleep 60"))
    job = fleet.job_is(stopped, "a", "running").id
    fleet.cancel(stopped)
    assert fleet.wait_for(stopped).status == "cancelled"
    assert fleet.broker.client.exists(f"muster:log:web-1:{job}"), "its live output"
    fleet.worker_of_calls()
    called = fleet.submit(CALL)
    assert fleet.wait_for(called).status == "failed"
    assert fleet.tasks(called)["a"].error["type"] == "connect", "it was tried"
    for name in fleet.keeper.parts:
        assert "ACCESS_REFUSED" not in fleet.log(name, 1_000_000), name
        assert "NOPERM" not in fleet.log(name, 1_000_000), name


def test_the_gateway_works_with_the_rights_of_the_guide(restricted: tuple[Fleet, Users], sshd: Sshd) -> None:
    fleet, _ = restricted
    people.bootstrap_admin(fleet.store, time.time())
    secrets.put(fleet.control, "ssh/far", sshd.private_key, ["admin"], "admin")
    place = f"{sshd.user}@{sshd.address}:{sshd.port}"
    ssh_nodes.add(fleet.control, ssh_nodes.NewNode("far-1", place, "ssh/far", {}), "admin")
    ssh_nodes.offer(fleet.control, "far-1", sshd.host_key)
    ssh_nodes.trust(fleet.control, "far-1", host_keys.fingerprint(sshd.host_key), "admin")
    fleet.gateway()
    fleet.sender.look(["far-1"])
    wait_until(lambda: "far-1" not in fleet.offline(), lambda: fleet.log("ssh"))
    execution = fleet.submit(shell("echo begun", "far-1"))
    assert fleet.wait_for(execution).status == "completed", fleet.story(execution)
    stopped = fleet.submit(shell("echo begun; sleep 300", "far-1"))
    fleet.job_is(stopped, "a", "running")
    fleet.cancel(stopped)
    assert fleet.wait_for(stopped).status == "cancelled", fleet.story(stopped)
    for name in ("ssh", "control"):
        assert "ACCESS_REFUSED" not in fleet.log(name, 1_000_000), name


def attempts() -> dict[str, Callable[[Any], Any]]:
    """What a node may not do; each on a channel of its own, as web-1."""
    mine, other = "node.web-1", "node.web-2"

    def publish(exchange: str, key: str) -> Callable[[Any], Any]:
        return lambda channel: channel.basic_publish_confirm(Message("x"), exchange, key, confirm_timeout=5)

    def declare(queue: str, **arguments: Any) -> Callable[[Any], Any]:
        return lambda channel: channel.queue_declare(
            queue, durable=True, auto_delete=False, arguments=arguments
        )

    def dead_letters_elsewhere(exchange: str) -> Callable[[Any], Any]:
        name = "node.web-1.ctl"

        def attempt(channel: Any) -> None:
            channel.queue_delete(name)
            more = {"x-dead-letter-exchange": exchange, "x-dead-letter-routing-key": other}
            channel.queue_declare(name, durable=True, auto_delete=False, arguments=more)

        return attempt

    return {
        **{f"send to {key}": publish("", key) for key in (other, "control", "tick", "io", "dead", mine)},
        "send to all": publish("amq.fanout", ""),
        "send events": publish("celeryev", ""),
        **{
            f"take from {queue}": lambda channel, queue=queue: channel.basic_get(queue)
            for queue in (other, f"{other}.ctl", "results", "heartbeats", "control", "dead")
        },
        "consume results": lambda channel: channel.basic_consume("results"),
        "purge results": lambda channel: channel.queue_purge("results"),
        "delete results": lambda channel: channel.queue_delete("results"),
        "delete another's queue": lambda channel: channel.queue_delete(other),
        "delete the exchange": lambda channel: channel.exchange_delete(queues.FROM_NODES),
        "make a queue": declare("mine"),
        "make another's queue": declare("node.web-9"),
        "a name that begins alike": declare("node.web-1.ctl.more"),
        "a name that ends alike": declare("x.node.web-1"),
        "make an exchange": lambda channel: channel.exchange_declare("mine", "fanout"),
        "hear what others say": lambda channel: channel.queue_bind(mine, queues.FROM_NODES, "results"),
        "lead its own queue on": dead_letters_elsewhere(""),
        "lead its own queue on to control": dead_letters_elsewhere("amq.direct"),
    }


@pytest.mark.parametrize("what", attempts())
def test_a_node_may_do_nothing_else(restricted: tuple[Fleet, Users], what: str) -> None:
    fleet, users = restricted
    assert fleet.rabbit is not None
    with fleet.rabbit.channel() as channel:
        for queue in ("dead", "io"):
            channel.queue_declare(queue, durable=True, auto_delete=False, arguments=_arguments(queue))
        channel.exchange_declare("celeryev", "topic", durable=True, auto_delete=False)
    with fleet.rabbit.channel(users.url("web-1")) as channel:
        channel.confirm_select()
        with pytest.raises(AccessRefused):
            attempts()[what](channel)


def _arguments(queue: str) -> dict[str, int]:
    return {"x-max-length": 1000} if queue == "dead" else {}


def test_what_a_node_says_leads_to_two_queues(restricted: tuple[Fleet, Users]) -> None:
    fleet, users = restricted
    assert fleet.rabbit is not None
    before = len(fleet.letters())
    with fleet.rabbit.channel(users.url("web-1")) as channel:
        for key in ("results", "heartbeats", "control", "tick", "dead", "node.web-2", "#"):
            channel.basic_publish(Message("x"), queues.FROM_NODES, key)
    wait_until(lambda: len(fleet.letters()) >= before + 2, "two are refused")
    assert {row.queue for row in fleet.letters()[before:]} == {"results", "heartbeats"}
    bindings = rabbitmqctl("list_bindings", "-p", fleet.rabbit.vhost, "source_name", "destination_name")
    from_nodes = [line.split("\t")[1] for line in bindings.splitlines() if line.startswith(queues.FROM_NODES)]
    assert sorted(from_nodes) == ["heartbeats", "results"]


def test_rabbitmq_closes_every_connection_again_and_again(rough: Fleet) -> None:
    assert rough.rabbit is not None
    ids = [rough.submit(MIXED) for _ in range(8)]
    for done in (5, 25, 45):
        until_ran(rough, ids, done)
        rough.rabbit.cut()
    assert Counter(rough.wait_all(ids).values()) == {"completed": 8}
    all_ran_once(rough, ids)


def test_every_queue_of_rabbitmq_is_lost_under_twenty_executions(rough: Fleet) -> None:
    assert rough.rabbit is not None
    ids = [rough.submit(MIXED) for _ in range(20)]
    for done in (15, 60, 110):
        until_ran(rough, ids, done)
        rough.rabbit.wipe()
    assert Counter(rough.wait_all(ids).values()) == {"completed": 20}
    all_ran_once(rough, ids)
