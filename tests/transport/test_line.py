"""One connection that several threads share: each gets his own answers, whatever was sent without waiting for one."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing

import pytest
import redis
from real_fleet import Broker

from app.transport.line import Line


@pytest.fixture
def line(broker: Broker) -> Iterator[Line]:
    broker.client.flushall()
    with closing(redis.ConnectionPool.from_url(f"unix://{broker.socket}", client_name="line")) as pool:
        yield Line(lambda: pool.get_connection())


def test_what_is_posted_is_done_before_the_next_call_and_its_answer_is_nobody_elses(
    broker: Broker, line: Line
) -> None:
    line.post([("RPUSH", "list", "a"), ("RPUSH", "list", "b")])
    line.post([("RPUSH", "list", "c")])
    assert line.call([("LLEN", "list"), ("LINDEX", "list", "2")]) == [3, b"c"]
    line.post([("DEL", "list")])
    line.call([])
    assert broker.client.exists("list") == 0


def test_a_post_that_redis_refuses_is_told_in_the_log_and_spoils_nothing(
    line: Line, caplog: pytest.LogCaptureFixture
) -> None:
    line.call([("SET", "text", "a")])
    with caplog.at_level(logging.WARNING, "app.transport.line"):
        line.post([("RPUSH", "text", "b"), ("SET", "other", "c")])
        assert line.call([("GET", "other")]) == [b"c"]
    assert "Redis refused" in caplog.text
    with pytest.raises(redis.ResponseError):
        line.call([("RPUSH", "text", "b")])
    assert line.call([("GET", "text")]) == [b"a"]


@pytest.mark.parametrize("how", ["call", "post"])
def test_a_connection_that_breaks_under_a_post_is_opened_anew(broker: Broker, line: Line, how: str) -> None:
    line.post([("SET", "first", "a")])
    broken = next(each for each in broker.client.client_list() if each["name"] == "line")
    broker.client.client_kill_filter(_id=broken["id"])
    getattr(line, how)([("SET", "second", "b")])
    assert line.call([("MGET", "first", "second")]) == [[b"a", b"b"]]
