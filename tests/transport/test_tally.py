"""What processes count adds up in Redis, and comes out as Prometheus wants it."""

from __future__ import annotations

from functools import partial

import pytest
from real_fleet import Broker
from waiting import wait_until

from app.api.exposition import exposition
from app.services import measures, tally
from app.services.measures import FINISHED, REFUSED, RESENT, SETTLE_SECONDS, TICK_SECONDS
from app.services.tally import Tally
from app.transport import counters
from app.transport.output import connect


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch, broker: Broker) -> None:
    monkeypatch.setattr(tally, "CARRY_EVERY", 0.05)
    broker.client.flushall()


def lines(broker: Broker) -> dict[str, float]:
    """The samples of /metrics, from what lies in Redis."""
    text = exposition({}, counters.read(connect(broker.url))).decode()
    pairs = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


def test_two_processes_add_up(broker: Broker) -> None:
    both = [Tally(partial(counters.add, connect(broker.url))) for _ in "12"]
    for one in both:
        one.count(FINISHED, "completed")
        one.count(REFUSED, "web-1", by=3)
        for seconds in (0.0005, 0.001, 0.02, 60.0):
            one.observe(SETTLE_SECONDS, seconds, "collect")
        one.close()
    found = lines(broker)
    assert found['muster_executions_finished_total{status="completed"}'] == 2
    assert found['muster_refused_orders_total{node="web-1"}'] == 6
    assert found["muster_resent_orders_total"] == 0
    bucket = 'muster_settle_seconds_bucket{function="collect",le="%s"}'
    assert [found[bucket % le] for le in ("0.001", "0.01", "0.025", "10.0", "+Inf")] == [4, 4, 6, 6, 8]
    assert found['muster_settle_seconds_count{function="collect"}'] == 8
    assert found['muster_settle_seconds_sum{function="collect"}'] == pytest.approx(120.043)


def test_it_is_carried_by_itself_and_what_raises_is_timed_too(broker: Broker) -> None:
    one = Tally(partial(counters.add, connect(broker.url)))
    with pytest.raises(ZeroDivisionError), one.timed(TICK_SECONDS):
        raise ZeroDivisionError
    wait_until(lambda: broker.client.exists(counters.KEY), "the first carrying")
    assert lines(broker)["muster_tick_seconds_count"] == 1
    one.close()


def test_sums_wait_while_redis_is_away(broker: Broker) -> None:
    """A password that nobody gave: Redis answers, and takes nothing."""
    one = Tally(partial(counters.add, connect(broker.url)))
    broker.client.config_set("requirepass", "secret")
    try:
        refused = broker.client.info("errorstats").get("errorstat_NOAUTH", {"count": 0})["count"]
        one.count(RESENT)

        def tried() -> bool:
            return (
                broker.client.info("errorstats").get("errorstat_NOAUTH", {"count": 0})["count"] >= refused + 2
            )

        wait_until(tried, "two tries")
        one.count(RESENT)
    finally:
        broker.client.config_set("requirepass", "")
    wait_until(lambda: broker.client.exists(counters.KEY), "what had waited")
    one.close()
    assert lines(broker)["muster_resent_orders_total"] == 2


def test_what_a_stranger_writes_there_is_left_out(broker: Broker) -> None:
    strange = {
        "muster_nonsense_total": "1",
        "muster_resent_orders_total": "nan",
        "muster_executions_finished_total": "5",
        "muster_executions_finished_total|a|b": "5",
        "muster_tick_seconds|999": "5",
        "muster_tick_seconds|-1": "5",
        b"\xff\xfe": "1",
        "muster_refused_orders_total|web-1": "2",
        'muster_refused_orders_total|a"} 1\nforged 2': "3",
    }
    broker.client.hset(counters.KEY, mapping=strange)
    found = lines(broker)
    assert found['muster_refused_orders_total{node="web-1"}'] == 2
    assert found["muster_resent_orders_total"] == 0
    assert "forged" not in found
    assert not any(name.startswith(("muster_nonsense", "muster_executions_finished")) for name in found)
    assert found["muster_tick_seconds_count"] == 0


def test_sums_have_an_end(monkeypatch: pytest.MonkeyPatch, broker: Broker) -> None:
    monkeypatch.setattr(tally, "MOST", 10)
    one = Tally(partial(counters.add, connect(broker.url)))
    monkeypatch.setattr(tally, "CARRY_EVERY", 60)
    for number in range(1000):
        one.count(REFUSED, f"n{number}")
    one.close()
    assert 0 < broker.client.hlen(counters.KEY) <= 20
    broker.client.hset(counters.KEY, mapping={f"x{number}": 1 for number in range(counters.MOST + 1)})
    assert counters.read(connect(broker.url)) == {}


def test_every_counted_measure_has_a_form(broker: Broker) -> None:
    one = Tally(partial(counters.add, connect(broker.url)))
    for measure in measures.COUNTED.values():
        labels = ["x"] * len(measure.labels)
        if measure.kind == "counter":
            one.count(measure, *labels)
        else:
            one.observe(measure, 0.3, *labels)
    one.close()
    names = {
        name.partition("{")[0].removesuffix("_count") for name, value in lines(broker).items() if value == 1
    }
    assert measures.COUNTED.keys() <= names
