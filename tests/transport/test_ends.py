"""The word that an execution is over: heard by whoever waits, before or after it is said, and never twice."""

from __future__ import annotations

import threading
import time

import pytest
from real_fleet import Broker

from app.transport.ends import Ends, key
from app.transport.output import connect


@pytest.fixture
def ends(broker: Broker) -> Ends:
    broker.client.flushall()
    return Ends(broker.client)


def test_who_waits_hears_it_at_once(ends: Ends) -> None:
    telling = threading.Timer(0.1, ends.tell, ["A"])
    telling.start()
    began = time.monotonic()
    assert ends.wait("A", 20.0) != "0"
    assert 0.05 < time.monotonic() - began < 10
    telling.join()


def test_who_comes_late_hears_it_too_and_then_no_more(ends: Ends) -> None:
    ends.tell("A")
    heard = ends.wait("A", 20.0)
    assert heard != "0"
    assert ends.wait("A", 0.01, heard) == heard
    assert ends.wait("B", 0.01) == "0"


def test_the_word_goes_by_itself(ends: Ends, broker: Broker) -> None:
    for _ in range(3):
        ends.tell("A")
    assert 0 < broker.client.ttl(key("A")) <= 60
    assert broker.client.xlen(key("A")) == 1


def test_without_redis_the_time_passes_and_nothing_is_raised() -> None:
    ends = Ends(connect("redis://127.0.0.1:1/0"))
    began = time.monotonic()
    ends.tell("A")
    assert ends.wait("A", 0.2) == "0"
    assert time.monotonic() - began >= 0.2
