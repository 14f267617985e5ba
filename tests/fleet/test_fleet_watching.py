"""A run as those see it who watch: Flower with its pages, the logs of every process, the figures."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from fleet import Fleet, free_port
from fleet_items import message, shell
from fleet_processes import Part
from fleet_queues import length, purge, push
from flower.urls import handlers
from rabbit import ON_RABBIT
from waiting import wait_until

from app.services import tally
from app.services.figures import figures
from app.services.measures import (
    DEAD_LETTERS,
    EXECUTION_SECONDS,
    FINISHED,
    OUTCOMES,
    QUEUE_JOBS,
    QUEUE_OLDEST,
    REFUSED,
    RESENT,
    SETTLE_SECONDS,
    TASK_SECONDS,
)
from app.transport import counters, queues

pytestmark = pytest.mark.fleet

NODES = ("web-1", "web-2", "web-3")
CANARY = "canary-5ecret"
SECONDS = 0.7
THREE = f"""
parameters: {{password: {{type: secret, required: true}}}}
tasks:
  - name: a
    action: core.shell
    delegate_to: web-1
    on_success: b
    input: {{command: 'sleep {SECONDS}; echo {{{{ parameters.password }}}}'}}
  - name: b
    action: core.shell
    delegate_to: web-2
    on_success: c
    input: {{command: 'echo {CANARY}-in-output; echo {CANARY} >&2', env: {{KEY: {CANARY}}}}}
  - name: c
    action: core.shell
    delegate_to: web-3
    input: {{command: 'exit 3'}}
"""


@dataclass
class Watched:
    """A fleet after one run, with Flower looking on."""

    fleet: Fleet
    bind: str
    execution: str

    @property
    def auth(self) -> str:
        return (self.fleet.directory / "flower.auth").read_text().strip()

    @property
    def jobs(self) -> list[str]:
        return [f"{self.execution}.{task}.0.1" for task in "abc"]

    def ask(self, path: str, auth: str | None = None, method: str = "GET", body: str = "") -> tuple[int, str]:
        """Status and text; with Flower's own user and password if no other is given, "" for none."""
        given = self.auth if auth is None else auth
        header = {"Authorization": f"Basic {base64.b64encode(given.encode()).decode()}"} if given else {}
        return self.send(path, header, method, body)

    def send(
        self, path: str, headers: dict[str, str], method: str = "GET", body: str = ""
    ) -> tuple[int, str]:
        connection = HTTPConnection(self.bind, timeout=10)
        try:
            kind = {"Content-Type": "application/x-www-form-urlencoded"}
            connection.request(method, path, body or None, {**kind, **headers})
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def tasks(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.ask("/api/tasks")[1])
        return {id_: task for id_, task in found.items() if id_ in self.jobs and task["state"] == "SUCCESS"}


@pytest.fixture(scope="module")
def watched() -> Iterator[Watched]:
    bind = f"127.0.0.1:{free_port()}"
    with Fleet(NODES, MUSTER_TASK_EVENTS="1", MUSTER_LOG_FORMAT="json") as fleet:
        command = [sys.executable, "-m", "workers.flower"]
        environment = fleet.environment(MUSTER_FLOWER_BIND=bind)
        fleet.keeper.add(Part("flower", command, environment, fleet.directory / "flower.log"))
        one = Watched(fleet, bind, "")
        wait_until(lambda: _online(one) >= len(NODES), lambda: fleet.log("flower"))
        one.execution = fleet.submit(THREE, password=CANARY)
        assert fleet.wait_for(one.execution).status == "failed"
        yield one


def _online(one: Watched) -> int:
    try:
        status, text = one.ask("/api/workers?status=1")
    except OSError:
        return 0
    assert status == 200
    alive = [re.sub("@.*", "", name) for name, online in json.loads(text).items() if online]
    return len(set(alive) & {f"node-{name}" for name in NODES})


# Flower's answers


def test_flower_shows_three_nodes_and_each_job_for_as_long_as_its_script_ran(watched: Watched) -> None:
    found = wait_until(lambda: len(watched.tasks()) == 3 and watched.tasks(), "three jobs")
    for job, node in zip(watched.jobs, NODES, strict=True):
        task, row = found[job], watched.fleet.job(watched.execution, job.split(".")[1])
        assert (task["name"], task["worker"].partition("@")[0]) == ("node.order", f"node-{node}")
        assert row.ended_at - row.started_at - 0.1 <= task["runtime"] <= row.ended_at - row.created_at + 30
        assert {task["args"], task["kwargs"], task["result"]} == {"-"}
    assert found[watched.jobs[0]]["runtime"] >= SECONDS


def test_what_flower_knows_holds_no_value_and_few_names(watched: Watched) -> None:
    wait_until(lambda: len(watched.tasks()) == 3, "three jobs")
    text = watched.ask("/api/tasks")[1]
    assert CANARY not in text
    assert "eyJ" not in text, "a token"
    names = {task["name"] for task in json.loads(text).values()}
    assert names <= {"node.order", "control.collect", "control.settle", "control.keep_output"}
    pages = [
        "/",
        "/workers",
        "/tasks",
        "/broker",
        "/metrics",
        f"/task/{watched.jobs[0]}",
        "/worker/node-web-1",
    ]
    for page in pages:
        assert CANARY not in watched.ask(page)[1], page


def paths() -> list[str]:
    """Every path that Flower has, with something in its places."""
    patterns = [getattr(one, "regex", None) for one in handlers]
    texts = [
        regex.pattern.rstrip("$") if regex else one[0] for regex, one in zip(patterns, handlers, strict=True)
    ]
    found = {re.sub(r"\(\.[+*]\)", "node-web-1", text).removesuffix("/?") for text in texts}
    return [*sorted(found - {".*"}), "/nowhere"]


@pytest.mark.parametrize("path", paths())
def test_every_path_asks_for_the_password_and_lets_nobody_act(watched: Watched, path: str) -> None:
    for auth in ("", "muster:wrong-password", "é:ö", watched.auth + "x", watched.auth[:-1]):
        assert watched.ask(path, auth)[0] == 401, auth
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        assert watched.ask(path, "", method)[0] == 401
        if (method, path) != ("POST", "/tasks/datatable"):
            status, text = watched.ask(path, None, method, "args=[]&n=1&terminate=true")
            assert (status, "looking only" in text) == (405, True)
    if path not in ("/api/queues/length", "/api/task/result/node-web-1"):
        assert watched.ask(path)[0] in (200, 302, 400, 404, 405)


@pytest.mark.parametrize("given", ["", "Basic", "Basic ***", "Bearer abc", "Basic bXVzdGVy", "basic Og=="])
def test_a_header_that_is_no_password(watched: Watched, given: str) -> None:
    assert watched.send("/", {"Authorization": given})[0] == 401


def test_its_password_is_made_once_and_private(watched: Watched) -> None:
    path = watched.fleet.directory / "flower.auth"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before, pid = watched.auth, watched.fleet.keeper.parts["flower"].pid
    watched.fleet.kill("flower")
    wait_until(lambda: watched.fleet.keeper.parts["flower"].pid != pid, "another process")
    wait_until(lambda: _online(watched) == len(NODES), lambda: watched.fleet.log("flower"))
    assert watched.auth == before


# Flower's pages


@pytest.fixture(scope="module")
def chromium() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or ""
    if not found and os.environ.get("CI") == "true":
        pytest.fail("there is no chromium; .ci/run installs it")
    if not found:
        pytest.skip("there is no chromium to look at pages with")
    return found


def test_the_pages_in_a_browser(watched: Watched, chromium: str, tmp_path: Path) -> None:
    # Flower began anew above and keeps nothing: something to see.
    watched.execution = watched.fleet.submit(THREE, password=CANARY)
    watched.fleet.wait_for(watched.execution)
    wait_until(lambda: len(watched.tasks()) == 3, "three jobs")
    seen = {page: _dom(watched, chromium, page, tmp_path) for page in ("workers", "tasks")}
    for node in NODES:
        for page in seen.values():
            assert f'aria-label="Worker node-{node}@' in page
    for job, node in zip(watched.jobs, NODES, strict=True):
        row = re.search(f'<tr id="{re.escape(job)}".*?</tr>', seen["tasks"], re.S)
        assert row is not None, job
        assert all(text in row[0] for text in (">node.order</a>", "SUCCESS", f"Worker node-{node}@"))
    assert not [page for page, text in seen.items() if CANARY in text]


def _dom(watched: Watched, chromium: str, page: str, directory: Path) -> str:
    """The page as the browser has it once its scripts have run."""
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=10000", "--dump-dom"]
    url = f"http://{watched.auth}@{watched.bind}/{page}"
    profile = f"--user-data-dir={directory / page}"
    command = [chromium, *options, profile, url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


# logs


def log_lines(watched: Watched, name: str) -> list[dict[str, Any]]:
    """Every line is JSON, but for Celery's banner, which is no line of a log."""
    lines = (watched.fleet.directory / f"{name}.log").read_text().splitlines()
    others = [line for line in lines if not line.startswith("{")]
    assert not [line for line in others if re.search(r"Traceback|Warning:|(INFO|WARNING|ERROR)/", line)]
    return [json.loads(line) for line in lines if line.startswith("{")]


def test_every_process_writes_lines_with_ids_and_without_values(watched: Watched) -> None:
    execution = watched.fleet.execution(watched.execution)
    for number, node in enumerate(NODES):
        job = watched.jobs[number]
        ends = [line for line in log_lines(watched, node) if line.get("job") == job]
        assert [(one["event"], one["node"], one["process"]) for one in ends] == [("job over", node, "node")]
        assert ends[0]["execution"] == execution.id
        assert ends[0]["trace_id"] == execution.trace_id
        assert (ends[0]["task"], ends[0]["exit_code"]) == ("abc"[number], 3 if number == 2 else 0)
    over = [line for line in log_lines(watched, "control") if line["event"] == "execution over"]
    last = over[-1]
    assert (last["execution"], last["trace_id"]) == (execution.id, execution.trace_id)
    assert (last["status"], last["job"], last["node"]) == ("failed", watched.jobs[-1], "web-3")
    told = [line for line in log_lines(watched, "control") if line.get("execution") == execution.id]
    ended = {line["task"]: line["status"] for line in told if line["event"] == "task over"}
    assert ended == {"a": "succeeded", "b": "succeeded", "c": "failed"}
    assert [line["tasks"] for line in told if line["event"] == "tasks scheduled"][-2:] == ["b", "c"]
    for name in (*NODES, "control", "beat", "flower"):
        lines = log_lines(watched, name)
        assert lines
        assert all({"timestamp", "level", "logger", "event", "process"} <= line.keys() for line in lines)
        assert CANARY not in (watched.fleet.directory / f"{name}.log").read_text()


# figures


def kept(watched: Watched) -> Any:
    """Counters and histograms, as they lie in Redis."""
    return tally.read(counters.read(watched.fleet.broker.client))


def test_what_happened_is_counted(watched: Watched) -> None:
    fleet = watched.fleet
    ran = [row for row in fleet.all_jobs() if row.settled]
    expected = {(status,): float(number) for status, number in Counter(row.status for row in ran).items()}

    wait_until(lambda: kept(watched)[0].get(OUTCOMES.name) == expected, lambda: f"{kept(watched)} {expected}")
    found, distributions = kept(watched)
    executions = len({row.execution for row in ran})
    assert found[FINISHED.name] == {("failed",): float(executions)}
    assert sum(distributions[EXECUTION_SECONDS.name][("failed",)][0]) == executions
    slow, total = distributions[TASK_SECONDS.name][("succeeded",)]
    assert sum(slow) == 2 * executions
    assert total >= SECONDS * executions
    assert sum(distributions[SETTLE_SECONDS.name][("collect",)][0]) >= len(ran)


def test_an_order_that_waits_and_one_that_is_lost_are_seen(watched: Watched) -> None:
    fleet = watched.fleet
    fleet.keeper.take_down("web-2")
    execution = fleet.submit(shell("true", node="web-2"))
    fleet.job_is(execution, "a", "dispatched")
    wait_until(lambda: length(fleet, "node.web-2") == 1, "the order waits")
    if not ON_RABBIT:
        assert counters.lengths(fleet.broker.client, ["node.web-2"]) == {"node.web-2": 1}
    with fleet.store.read() as connection:
        found = figures(fleet.control, connection)
    assert found[QUEUE_JOBS] == {("web-2", "dispatched"): 1}
    assert 0 <= found[QUEUE_OLDEST]["web-2", "dispatched"] < 30
    purge(fleet, "node.web-2")
    fleet.keeper.bring_up("web-2")
    assert fleet.wait_for(execution).status == "completed"
    wait_until(lambda: kept(watched)[0].get(RESENT.name, {}).get((), 0) >= 1, lambda: kept(watched))


def test_what_a_node_did_not_obey_is_counted_by_its_name(watched: Watched) -> None:
    before = kept(watched)[0][REFUSED.name].get(("web-3",), 0)
    push(watched.fleet, "node.web-3", message("celery.group", ["no order"]))
    push(watched.fleet, "node.web-3", message(queues.NODE_ORDER, ["no token"]))
    wait_until(lambda: kept(watched)[0][REFUSED.name].get(("web-3",)) == before + 2, lambda: kept(watched))
    with watched.fleet.store.read() as connection:
        letters = figures(watched.fleet.control, connection)[DEAD_LETTERS]
    assert ("node.web-3", "refused-by-node") in letters
