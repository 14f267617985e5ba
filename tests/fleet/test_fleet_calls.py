"""`core.http` and `core.celery` with a real worker of calls, a real server, and an app that knows nothing of Muster."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fleet import Fleet
from fleet_processes import BIN, Broker, Part
from waiting import wait_until

sys.path.insert(0, str(Path(__file__).parents[1] / "services"))

from odd_server import OddServer, odd_server

from app.services.resolve import resolve

pytestmark = pytest.mark.fleet


@pytest.fixture(scope="module")
def server() -> Iterator[OddServer]:
    with odd_server() as running:
        yield running


@pytest.fixture(scope="module")
def calling(tmp_path_factory: pytest.TempPathFactory, server: OddServer) -> Iterator[Fleet]:
    """A fleet with `io`, and beside it `foreign`: another team's worker on another team's Redis."""
    connections = tmp_path_factory.mktemp("connections") / "connections.toml"
    with Fleet(
        ("local",), MUSTER_HTTP_ALLOW="127.0.0.1/32", MUSTER_CELERY_CONNECTIONS=str(connections)
    ) as fleet:
        theirs = fleet.directory / "theirs"
        theirs.mkdir()
        broker = Broker(theirs, 0)
        fleet.keeper.add(Part("theirs", broker.part.command, broker.part.environment, theirs / "redis.log"))
        wait_until(broker.answers, "the other team's Redis")
        url = f"redis+socket://{broker.socket}"
        connections.write_text(
            f'[billing]\nbroker = "{url}"\nbackend = "{url}"\n'
            f'[mute]\nbroker = "{url}"\n'
            '[gone]\nbroker = "redis://:hidden@127.0.0.1:1/0"\nbackend = "redis://:hidden@127.0.0.1:1/0"\n'
        )
        environment = fleet.environment(FOREIGN_REDIS=url, PYTHONPATH=str(Path(__file__).parent))
        environment.pop("CELERY_BROKER_URL", None)
        command = [
            str(BIN / "celery"),
            "-A",
            "foreign_app",
            "worker",
            "-P",
            "threads",
            "-Q",
            "celery,sums",
            "-l",
            "INFO",
        ]
        fleet.keeper.add(Part("foreign", command, environment, fleet.directory / "foreign.log"))
        fleet.worker_of_calls()
        wait_until(
            lambda: all(" ready." in fleet.log(name, 100_000) for name in ("io", "foreign")),
            lambda: fleet.log("io") + fleet.log("foreign"),
        )
        yield fleet
        broker.close()


def celery(task: str, extra: str = "", **given: Any) -> str:
    more = "".join(f", {name}: {value}" for name, value in given.items())
    connection = "" if "connection" in given else ", connection: billing"
    return (
        f"tasks: [{{name: a, action: core.celery{extra}, input: {{task: {task}{connection}{more}}}}}]\n"
        "output_map: {result: '{{ task.a.result }}'}\n"
    )


def test_a_request(calling: Fleet, server: OddServer) -> None:
    url = f"http://localhost:{server.port}/json/good"
    execution = calling.submit(
        f'tasks: [{{name: a, action: core.http, input: {{url: "{url}"}}}}]\n'
        "output_map: {json: '{{ task.a.result.json }}'}\n"
    )
    assert calling.wait_for(execution).output == {"json": {"a": [1, 2.5, None]}}


@pytest.mark.parametrize(("method", "becomes"), [("GET", "failed"), ("POST", "unknown")])
def test_the_worker_is_killed_in_a_call(calling: Fleet, server: OddServer, method: str, becomes: str) -> None:
    server.gate.clear()
    server.asked.clear()
    execution = calling.submit(
        f"tasks: [{{name: a, action: core.http, retry: {{count: 1, delay: 0}}, "
        f'input: {{url: "http://127.0.0.1:{server.port}/held", method: {method}}}}}]'
    )
    wait_until(lambda: server.asked.total(), "the request")
    calling.kill("io")
    first = wait_until(
        lambda: next((job for job in calling.jobs(execution) if job.status == becomes), None),
        lambda: calling.story(execution),
    )
    assert first.error["type"] == ("lost" if becomes == "failed" else "unknown")
    server.gate.set()
    if becomes == "unknown":
        assert server.asked.total() == 1
        resolve(calling.control, execution, "a", 0, "again", "the server has not got it", "ada")
    assert calling.wait_for(execution).status == "completed", calling.story(execution)
    assert server.asked.total() == 2


def test_a_cancel_in_a_call(calling: Fleet, server: OddServer) -> None:
    server.gate.clear()
    server.asked.clear()
    execution = calling.submit(
        f'tasks: [{{name: a, action: core.http, input: {{url: "http://127.0.0.1:{server.port}/held"}}}}]'
    )
    wait_until(lambda: server.asked.total(), "the request")
    calling.cancel(execution)
    assert calling.wait_for(execution).status == "cancelled"
    server.gate.set()
    wait_until(lambda: "too late" in calling.log("io", 100_000), "the late answer")
    assert calling.job(execution, "a").status == "cancelled"


def test_a_foreign_task_gives_its_result(calling: Fleet) -> None:
    execution = calling.submit(celery("sums.add", args="[1, 2, 3.5]", kwargs="{times: 2}"))
    assert calling.wait_for(execution).output == {"result": 13}


def test_a_foreign_task_has_the_jobs_id_and_its_queue(calling: Fleet, tmp_path: Path) -> None:
    execution = calling.submit(celery("sums.whoami", args=f"['{tmp_path / 'ids'}']", queue="sums"))
    assert calling.wait_for(execution).output == {"result": {"id": f"{execution}.a.0.1", "queue": "sums"}}
    assert (tmp_path / "ids").read_text() == f"{execution}.a.0.1\n"


@pytest.mark.parametrize(
    ("text", "kind", "contains"),
    [
        (celery("sums.fail", args="[no apples]"), "celery", "OutOfStock: no apples"),
        (celery("sums.large", args="[1100000]"), "too_large", "1000000 bytes"),
        (celery("sums.add", args="[1]", queue="nobody", timeout="1"), "timeout", "may still run"),
        (celery("sums.add", connection="nobody"), "input", "it has billing, gone, mute"),
        (celery("sums.add", connection="mute"), "input", "backend"),
        (celery("sums.add", connection="gone"), "connect", "the broker of gone"),
        (celery("sums.add", args="[a]"), "celery", "TypeError"),
    ],
)
def test_a_foreign_task_that_comes_to_nothing(calling: Fleet, text: str, kind: str, contains: str) -> None:
    execution = calling.submit(text)
    assert calling.wait_for(execution).status == "failed"
    error = calling.job(execution, "a").error
    assert error["type"] == kind
    assert contains in error["message"]
    assert "hidden" not in calling.log("io", 1_000_000) + str(error)


def test_a_foreign_task_that_nobody_waits_for(calling: Fleet, tmp_path: Path) -> None:
    path = tmp_path / "ids"
    execution = calling.submit(
        celery("sums.whoami", args=f"['{path}']", connection="mute", ignore_result="true")
    )
    assert calling.wait_for(execution).output == {"result": {"id": f"{execution}.a.0.1"}}
    wait_until(path.exists, "the foreign task")


def test_foreign_tasks_in_a_loop(calling: Fleet) -> None:
    text = celery("sums.add", ", with_items: [1, 2, 3, 4]", args='["{{ item }}", 1]')
    assert calling.wait_for(calling.submit(text)).output == {"result": [2, 3, 4, 5]}


def test_a_worker_that_is_killed_while_a_foreign_task_runs_sends_it_once(
    calling: Fleet, tmp_path: Path
) -> None:
    """No thread waits for it, and another life of the worker asks about what an earlier one has sent."""
    path = tmp_path / "there"
    execution = calling.submit(celery("sums.wait", args=f"['{path}']"))
    wait_until(lambda: is_sent(calling.job(execution, "a")), "the foreign task is sent")
    calling.kill("io")
    path.touch()
    assert calling.wait_for(execution).output == {"result": "it is there"}
    assert calling.log("foreign", 1_000_000).count(f"[{execution}.a.0.1] received") == 1


def is_sent(job: Any) -> bool:
    """Whether it was sent, and its worker has let it go."""
    return bool(job and job.status == "running" and job.order_expires_at is None)


def test_a_task_that_outlives_its_timeout(calling: Fleet, tmp_path: Path) -> None:
    path = tmp_path / "there"
    execution = calling.submit(celery("sums.wait", ", timeout: 2", args=f"['{path}']"))
    assert calling.wait_for(execution).status == "failed"
    job = calling.job(execution, "a")
    assert (job.status, job.effect_unknown) == ("timed_out", True)
    path.touch()


def test_nobody_consumes_calls(calling: Fleet, server: OddServer) -> None:
    calling.keeper.take_down("io", signal.SIGTERM)
    text = f'tasks: [{{name: a, action: core.http, queue_timeout: 2, input: {{url: "http://127.0.0.1:{server.port}/plain"}}}}]'
    execution = calling.submit(text)
    assert calling.wait_for(execution).status == "failed"
    assert calling.job(execution, "a").error["type"] == "node_offline"
    calling.keeper.bring_up("io")


@pytest.mark.long
@pytest.mark.postgres
def test_calls_with_their_rows_in_postgresql(database_url: str, server: OddServer) -> None:
    """What a server may say and PostgreSQL may not store; a loop wider than its window; a worker that is killed."""
    base = f"http://127.0.0.1:{server.port}"
    with Fleet(("local",), postgres=database_url, MUSTER_HTTP_ALLOW="127.0.0.1/32") as fleet:
        fleet.worker_of_calls()
        execution = fleet.submit(
            f"tasks: [{{name: a, action: core.http, with_items: [bytes, json/surrogate, json/nan, plain], "
            f'concurrency: 2, input: {{url: "{base}/{{{{ item }}}}"}}}}]\n'
            "output_map: {all: \"{{ task.a.result | map(attribute='body') | list }}\"}\n"
        )
        row = fleet.wait_for(execution)
        assert row.output["all"][0] == "a\ufffdb\ufffd", fleet.story(execution)
        assert row.output["all"][3] == "hello"
        server.gate.clear()
        server.asked.clear()
        execution = fleet.submit(f'tasks: [{{name: a, action: core.http, input: {{url: "{base}/held"}}}}]')
        wait_until(lambda: server.asked.total(), "the request")
        fleet.kill("io")
        assert fleet.wait_for(execution).status == "failed"
        assert fleet.job(execution, "a").error["type"] == "lost"
        server.gate.set()
