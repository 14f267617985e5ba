"""Calls by their rows: taken once, leased, given up, lost, dropped. A real database and a real server, no processes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from desk import jobs, tasks
from sqlalchemy import delete, update

sys.path.insert(0, str(Path(__file__).parent))

from exchange import Exchange
from odd_server import odd_server

from app.services import calling
from app.services.cancel import cancel
from app.services.hold import pause, resume
from app.services.resolve import resolve


@pytest.fixture
def exchange(tmp_path: Path) -> Iterator[Exchange]:
    with odd_server() as server:
        made = Exchange(tmp_path, server)
        yield made
        made.office.store.close()


def http(path: str, extra: str = "", **given: Any) -> str:
    more = "".join(f", {name}: {value}" for name, value in given.items())
    return f'tasks: [{{name: a, action: core.http{extra}, input: {{url: "URL{path}"{more}}}}}]'


def test_a_call_and_what_follows(exchange: Exchange) -> None:
    execution = exchange.submit("""
tasks:
  - name: a
    action: core.http
    input: {url: "URL/json/good"}
    publish: [{x: "{{ task.a.result.json.a }}"}]
    on_success: b
  - {name: b, action: core.http, input: {url: "URL/echo", method: POST, json: {x: "{{ vars.x }}"}}}
output_map: {body: "{{ task.b.result.json.body }}"}
""")
    assert exchange.job(execution).status == "dispatched"
    exchange.make()
    assert exchange.status(execution) == "completed"
    assert exchange.office.execution(execution).output == {"body": '{"x":[1,2.5,null]}'}
    assert exchange.server.asked == {"GET /json/good": 1, "POST /echo": 1}


def test_a_status_that_is_not_expected_keeps_the_result(exchange: Exchange) -> None:
    execution = exchange.submit(http("/status/503"))
    exchange.make()
    job = exchange.job(execution)
    assert (job.status, job.error["type"], job.error["status"]) == ("failed", "http_status", 503)
    assert job.result["body"] == "as you say"


def test_retries_see_the_status(exchange: Exchange) -> None:
    text = http("/status/503", ", retry: {count: 2, delay: 0, on_error: '{{ task.a.error.status == 503 }}'}")
    execution = exchange.submit(text)
    exchange.make()
    assert exchange.server.asked["GET /status/503"] == 3
    assert exchange.job(execution, attempt=3).status == "failed"


def test_bad_input_fails_the_task(exchange: Exchange) -> None:
    text = """
parameters: {url: {type: string, required: true}}
tasks: [{name: a, action: core.http, input: {url: "{{ parameters.url }}"}}]
"""
    for url in ("", "javascript:1", "http://169.254.169.254/latest", "http://[::1]:80/"):
        execution = exchange.submit(text, url=url)
        exchange.make()
        assert exchange.job(execution).error["type"] in ("input", "refused_address")
        assert exchange.status(execution) == "failed"


def test_a_message_twice_makes_one_call(exchange: Exchange) -> None:
    execution = exchange.submit(http("/plain"))
    exchange.rung *= 3
    exchange.make()
    assert exchange.server.asked == {"GET /plain": 1}
    assert exchange.status(execution) == "completed"


def test_messages_that_nobody_sent(exchange: Exchange) -> None:
    execution = exchange.submit(
        "tasks: [{name: a, action: core.shell, delegate_to: web-1, input: {command: ['true']}}]"
    )
    for job in (f"{execution}.a.0.1", "", "no.such.0.1", "x" * 5000):
        calling.look(exchange.caller, job)
    assert exchange.job(execution).status == "dispatched"


def test_a_worker_that_died_while_it_read_is_lost_and_tried_again(exchange: Exchange) -> None:
    execution = exchange.submit(http("/held", ", retry: {count: 1, delay: 0}"))
    exchange.rung.clear()
    with exchange.held(execution):
        assert exchange.job(execution).order_expires_at > exchange.office.clock.now
        assert calling.inherit(exchange.caller) == 0, "what this life took is its own"
        assert calling.inherit(exchange.life()) == 1
        assert exchange.job(execution).error["type"] == "lost"
        exchange.settle_all()
        assert exchange.job(execution, attempt=2).status == "dispatched"
    assert exchange.job(execution).status == "failed", "what came too late changes nothing"
    exchange.make()
    assert exchange.status(execution) == "completed"


@pytest.mark.parametrize(
    ("extra", "method", "becomes"),
    [
        ("", "GET", "failed"),
        ("", "HEAD", "failed"),
        ("", "POST", "unknown"),
        (", idempotent: true", "POST", "failed"),
    ],
)
def test_a_lease_that_ran_out(exchange: Exchange, extra: str, method: str, becomes: str) -> None:
    execution = exchange.submit(http("/held", extra, method=method, timeout=5))
    with exchange.held(execution):
        exchange.tick(14)
        assert exchange.job(execution).status == "running"
        exchange.tick(2)
        assert exchange.job(execution).status == becomes
        if becomes == "unknown":
            task = exchange.office.statuses(tasks, execution)
            assert (task["a"], exchange.status(execution)) == ("waiting", "waiting")
    assert exchange.status(execution) == ("completed" if becomes == "unknown" else "failed")


def test_a_person_decides_what_nobody_knows(exchange: Exchange) -> None:
    execution = exchange.submit(http("/held", method="POST", timeout=5))
    with exchange.held(execution):
        exchange.tick(16)
        resolve(exchange.office.control, execution, "a", 0, "succeeded", "it is there", "ada")
    assert exchange.job(execution).result["resolved_by"] == "ada"
    assert exchange.status(execution) == "completed"


def test_a_cancel_drops_what_is_on_its_way(exchange: Exchange) -> None:
    execution = exchange.submit(http("/held", method="POST"))
    with exchange.held(execution):
        cancel(exchange.office.control, execution, "ada")
        assert exchange.status(execution) == "cancelled"
        assert "may have had its effect" in exchange.job(execution).error["message"]
    job = exchange.job(execution)
    assert (job.status, job.result) == ("cancelled", None)


def test_the_tasks_timeout_runs_from_dispatch(exchange: Exchange) -> None:
    execution = exchange.submit(http("/plain", ", timeout: 5"))
    exchange.rung.clear()
    exchange.tick(4)
    assert exchange.job(execution).status == "dispatched"
    exchange.tick(2)
    assert (exchange.job(execution).status, exchange.job(execution).effect_unknown) == ("timed_out", False)
    calling.look(exchange.caller, f"{execution}.a.0.1")
    assert not exchange.server.asked


def test_a_call_that_cannot_end_stops_time_for_no_other(
    exchange: Exchange, caplog: pytest.LogCaptureFixture
) -> None:
    broken, sound = (exchange.submit(http("/plain", ", timeout: 5")) for _ in range(2))
    with exchange.office.store.write() as connection:
        connection.execute(delete(tasks).where(tasks.c.execution == broken))
    exchange.tick(6)
    assert exchange.job(sound).status == "timed_out"
    assert broken in caplog.text


def test_the_tasks_timeout_ends_a_request(exchange: Exchange) -> None:
    execution = exchange.submit(http("/drip/body", ", timeout: 0.5"))
    exchange.make()
    assert exchange.job(execution).status == "timed_out"
    execution = exchange.submit(http("/drip/body", timeout=0.5))
    exchange.make()
    job = exchange.job(execution)
    assert (job.status, job.error["type"]) == ("failed", "timeout"), (
        "an argument of the action, not the task's"
    )


def test_a_call_that_nobody_takes_is_rung_for_again_and_given_up(exchange: Exchange) -> None:
    execution = exchange.submit(http("/plain", ", queue_timeout: 60"))
    waits = []
    for second in range(1, 60):
        exchange.rung.clear()
        exchange.tick(1)
        waits += [second] if exchange.rung else []
    assert waits == [5, 15, 35]
    exchange.tick(2)
    assert exchange.job(execution).error["type"] == "node_offline"


def test_a_nudge_that_was_lost(exchange: Exchange) -> None:
    """The API committed and died: the tick hands over."""
    execution = exchange.submit(http("/plain"))
    exchange.rung.clear()
    with exchange.office.store.write() as connection:
        connection.execute(update(jobs).where(jobs.c.execution == execution).values(status="queued"))
    exchange.tick(2)
    assert exchange.rung == [f"{execution}.a.0.1"]


def test_a_pause_holds_calls(exchange: Exchange) -> None:
    execution = exchange.submit("""
tasks:
  - {name: a, action: core.http, input: {url: "URL/held"}, on_success: b}
  - {name: b, action: core.http, input: {url: "URL/plain"}}
""")
    exchange.rung.clear()
    with exchange.held(execution):
        pause(exchange.office.control, execution, "ada")
    exchange.tick(2)
    assert (exchange.status(execution), exchange.rung) == ("paused", [])
    resume(exchange.office.control, execution, "ada")
    exchange.settle_all()
    exchange.make()
    assert exchange.status(execution) == "completed"
    assert exchange.server.asked == {"GET /held": 1, "GET /plain": 1}


def test_a_loop_has_a_window(exchange: Exchange) -> None:
    execution = exchange.submit(http("/status/20{{ item }}", ", with_items: [1, 2, 3, 4, 5], concurrency: 2"))
    assert sorted(exchange.office.statuses(jobs, execution).values()) == ["dispatched"] * 2 + ["queued"] * 3
    exchange.make()
    assert exchange.status(execution) == "completed"
    assert exchange.server.asked == {f"GET /status/20{n}": 1 for n in range(1, 6)}


def test_a_block_of_calls_and_commands(exchange: Exchange) -> None:
    execution = exchange.submit("""
tasks:
  - name: all
    type: parallel
    tasks:
      - {name: a, action: core.http, input: {url: "URL/plain"}}
      - {name: b, action: core.shell, delegate_to: web-1, input: {command: ['true']}}
      - {name: c, action: core.http, input: {url: "URL/plain"}}
""")
    exchange.make()
    (line,) = exchange.office.sent
    exchange.office.take_in(line)
    exchange.settle_all()
    assert exchange.status(execution) == "completed"


def test_a_block_that_fails_fast_gives_up_its_calls(exchange: Exchange) -> None:
    execution = exchange.submit("""
tasks:
  - name: all
    type: parallel
    fail_fast: true
    tasks:
      - {name: a, action: core.http, input: {url: "URL/plain"}}
      - {name: b, action: core.http, input: {url: "URL/status/500"}}
""")
    calling.look(exchange.caller, f"{execution}.b.0.1")
    exchange.settle_all()
    assert exchange.status(execution) == "failed"
    assert exchange.job(execution).status == "cancelled"
    exchange.make()
    assert not exchange.server.asked["GET /plain"]
