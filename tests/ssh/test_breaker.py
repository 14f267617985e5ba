"""The circuit breaker: pure, so the time is what the test says."""

from __future__ import annotations

from app.ssh.breaker import LONGEST, Breaker


def test_it_opens_after_failures_in_a_row_only() -> None:
    breaker = Breaker(threshold=3, cooldown=30.0)
    for _ in range(5):
        breaker = breaker.failed(0.0, "no").failed(0.0, "no").succeeded()
    assert (breaker.state(0.0), breaker.failures) == ("closed", 0)
    breaker = breaker.failed(1.0, "a").failed(2.0, "b")
    assert breaker.state(2.0) == "closed"
    breaker = breaker.failed(3.0, "c")
    assert (breaker.state(3.0), breaker.until, breaker.error) == ("open", 33.0, "c")
    assert not breaker.admits(32.9)


def test_one_probe_at_a_time() -> None:
    breaker = Breaker(threshold=1, cooldown=10.0).failed(0.0, "no")
    assert breaker.state(10.0) == "half-open"
    assert breaker.admits(10.0)
    probing = breaker.began(10.0, patience=5.0)
    assert not probing.admits(12.0)
    # Whoever probed may have died.
    assert probing.admits(15.0)
    assert probing.succeeded().state(12.0) == "closed"


def test_the_cool_down_grows_to_its_bound() -> None:
    breaker, now, waits = Breaker(threshold=1, cooldown=30.0), 0.0, []
    for _ in range(7):
        breaker = breaker.began(now, 1.0).failed(now, "no")
        waits.append(breaker.until - now)
        now = breaker.until
    assert waits == [30.0, 60.0, 120.0, 240.0, LONGEST, LONGEST, LONGEST]
    assert breaker.succeeded().failed(now, "no").until == now + 30.0


def test_a_failure_that_comes_late_changes_no_time() -> None:
    breaker = Breaker(threshold=1, cooldown=10.0).failed(0.0, "no")
    assert breaker.failed(5.0, "late").until == breaker.until


def test_to_begin_while_closed_is_nothing() -> None:
    breaker = Breaker()
    assert breaker.began(0.0, 5.0) is breaker
