"""Commands on nodes of a running fleet: by the API, and by `muster exec`."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from fleet import Fleet
from fleet_api import Api
from fleet_processes import ROOT
from waiting import wait_until

from app.transport import ends

pytestmark = pytest.mark.fleet

EXECUTE = "/nodes/web-1/execute"
STREAM = f"/api/v1{EXECUTE}"


@pytest.mark.parametrize(
    ("body", "status", "code", "stdout", "stderr"),
    [
        (
            {"command": ["printf", "%s|", "a b", "", "$HOME", "{{ x }}"]},
            "succeeded",
            0,
            "a b||$HOME|{{ x }}|",
            "",
        ),
        ({"command": "echo out; echo err >&2; exit 3"}, "failed", 3, "out\n", "err\n"),
        ({"script": "print(1 + 1)\n", "language": "python"}, "succeeded", 0, "2\n", ""),
        ({"script": "echo $0 >/dev/null; echo ksh", "language": "ksh"}, "succeeded", 0, "ksh\n", ""),
        ({"command": ["cat"], "stdin": "grüße\n"}, "succeeded", 0, "grüße\n", ""),
        ({"command": ["pwd"], "cwd": "/usr"}, "succeeded", 0, "/usr\n", ""),
        ({"command": ["there-is-no-such-program"]}, "failed", 127, "", ""),
        ({"command": "kill -9 $$"}, "failed", 137, "", ""),
        ({"command": "head -c 100000 /dev/zero | tr '\\0' x"}, "succeeded", 0, "x" * 100_000, ""),
    ],
    ids=["argv", "text", "python", "ksh", "stdin", "cwd", "no program", "killed", "100 kB"],
)
def test_one_command(api: Api, body: Any, status: str, code: int, stdout: str, stderr: str) -> None:
    answer = api.post(EXECUTE, body)
    found = answer.data
    assert answer.status == 200, found
    assert (found["status"], found["exit_code"]) == (status, code), found
    assert (found["stdout"], found["stderr"], found["truncated"]) == (stdout, stderr, False)
    assert found["started_at"] <= found["completed_at"]


def test_a_node_without_the_shell_is_refused(api: Api) -> None:
    answer = api.post("/nodes/web-3/execute", {"script": "true", "language": "ksh"})
    assert (answer.status, answer.data["code"]) == (422, "no-shell")


def gated(gate: Path) -> str:
    """Writes to both streams, waits for a file, and writes again."""
    return f"echo one; echo oh >&2; while [ ! -e {gate} ]; do sleep 0.02; done; echo two; echo no >&2"


def test_both_outputs_come_apart_while_it_runs(api: Api, tmp_path: Path) -> None:
    stream = api.stream("POST", STREAM, {"command": gated(tmp_path / "gate"), "stream_output": True})
    first = {(one.event, one.data.get("text")) for one in (next(stream), next(stream), next(stream))}
    assert first == {("started", None), ("stdout", "one\n"), ("stderr", "oh\n")}
    (tmp_path / "gate").touch()
    rest = list(stream)
    assert {(one.event, one.data["text"]) for one in rest[:2]} == {("stdout", "two\n"), ("stderr", "no\n")}
    assert [one.event for one in rest[2:]] == ["result", "end"]
    assert (rest[2].data["stdout"], rest[2].data["stderr"]) == ("one\ntwo\n", "oh\nno\n")


def test_a_stream_is_taken_up_again_where_it_broke(api: Api, tmp_path: Path) -> None:
    stream = api.stream("POST", STREAM, {"command": gated(tmp_path / "gate"), "stream_output": True})
    started, last = next(stream), next(stream)
    stream.close()  # type: ignore[attr-defined]
    (tmp_path / "gate").touch()
    headers = {"Accept": "text/event-stream", "Last-Event-ID": last.id}
    rest = list(api.stream("GET", started.data["resume"], **headers))
    told = [last, *rest]
    for name, text in (("stdout", "one\ntwo\n"), ("stderr", "oh\nno\n")):
        assert "".join(one.data["text"] for one in told if one.event == name) == text
    assert [one.data["seq"] for one in rest[:-1]] == list(range(3, 3 + len(rest) - 1))
    assert rest[-2].data["status"] == "succeeded"


def test_a_client_that_leaves_cancels_nothing(api: Api, fleet: Fleet, tmp_path: Path) -> None:
    """It hangs up in the middle of its wait, having got no answer."""
    known = {row["id"] for row in api.get("/workflow-executions?limit=200").data["items"]}
    parts = urlsplit(api.url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port)
    headers = {"Authorization": f"Bearer {api.tokens['operator']}", "Content-Type": "application/json"}
    connection.request("POST", STREAM, json.dumps({"command": gated(tmp_path / "gate")}), headers)

    def mine() -> str | None:
        rows = api.get("/workflow-executions?workflow=adhoc.command").data["items"]
        return next((row["id"] for row in rows if row["id"] not in known), None)

    execution = wait_until(mine)
    assert execution is not None
    fleet.job_is(execution, "run", "running")
    connection.close()
    (tmp_path / "gate").touch()
    assert fleet.wait_for(execution).status == "completed"
    assert api.get(f"{EXECUTE}/{execution}").data["stdout"] == "one\ntwo\n"


def test_who_does_not_wait_long_enough_asks_again(api: Api, tmp_path: Path) -> None:
    answer = api.post(f"{EXECUTE}?wait=0.2", {"command": gated(tmp_path / "gate")})
    assert (answer.status, answer.data["exit_code"]) == (202, None)
    assert answer.headers["Location"].endswith(answer.data["execution"])
    (tmp_path / "gate").touch()
    later = api.get(f"{EXECUTE}/{answer.data['execution']}?wait=20")
    assert (later.status, later.data["status"], later.data["stdout"]) == (200, "succeeded", "one\ntwo\n")


def test_a_timeout_ends_the_whole_group_and_is_no_exit_code(api: Api, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f"trap '' TERM; (trap '' TERM; sleep 300) & echo $$ $! > {pids}; echo begun; wait"
    answer = api.post(EXECUTE, {"script": script, "timeout": 0.5})
    assert (answer.data["status"], answer.data["exit_code"]) == ("timed_out", None)
    assert answer.data["error"]["type"] == "timeout"
    assert answer.data["stdout"] == "begun\n"
    for pid in pids.read_text().split():
        wait_until(lambda pid=pid: not is_running(pid), f"the end of {pid}")  # type: ignore[misc]


def is_running(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_the_control_worker_says_when_it_is_over(api: Api, fleet: Fleet) -> None:
    execution = api.post(EXECUTE, {"command": ["true"]}).data["execution"]
    assert wait_until(lambda: fleet.broker.client.xlen(ends.key(execution))) == 1


# muster exec


def environment(api: Api) -> dict[str, str]:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MUSTER_")}
    given = {"MUSTER_URL": api.url, "MUSTER_TOKEN": api.tokens["operator"], "PYTHONPATH": str(ROOT)}
    return {**plain, **given}


def command(*args: str) -> list[str]:
    return [sys.executable, "-m", "app.cli.main", "exec", *args]


def muster_exec(api: Api, *args: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*args),
        env=environment(api),
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_the_command_line_on_one_node(api: Api) -> None:
    done = muster_exec(
        api, "web-1", "--stdin", "-", "--", "sh", "-c", "cat; echo oh >&2; exit 9", stdin="in\n"
    )
    assert (done.returncode, done.stdout) == (1, "in\n")
    assert done.stderr == "oh\nweb-1: failed, exit code 9\n"
    assert muster_exec(api, "web-9", "--", "true").returncode == 4
    assert muster_exec(api, "web-1", "--timeout", "0.2", "--", "sleep", "9").returncode == 124


def test_the_command_line_on_many(api: Api) -> None:
    done = muster_exec(
        api,
        "--labels",
        "role=web",
        "--diff",
        "--shell",
        "sh",
        "--",
        "echo a; [ $MUSTER_NODE != web-2 ] || echo b",
    )
    assert done.returncode == 0, done.stderr
    assert "web-3  │ a" in done.stdout
    assert "2 the same, 1 differ" in done.stdout
    assert "+++ stdout of web-2\n@@ -1 +1,2 @@\n a\n+b\n" in done.stdout


@pytest.mark.parametrize("nodes", [["web-1"], ["web-1", "web-2"]], ids=["one", "many"])
def test_ctrl_c_asks_the_server_to_cancel(api: Api, fleet: Fleet, nodes: list[str]) -> None:
    process = subprocess.Popen(
        command(*nodes, "--", "sh", "-c", "echo begun; exec sleep 300"),
        env=environment(api),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert "begun" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "asking the server to cancel" in told
    execution = told.split("cancel ")[1][:26]
    assert fleet.wait_for(execution).status == "cancelled"


# nodes that are not well


@pytest.fixture(scope="module")
def ill() -> Iterator[Fleet]:
    with Fleet(("local", "web-1", "web-2", "web-3", "web-4")) as running:
        yield running


@pytest.fixture(scope="module")
def ill_api(ill: Fleet) -> Api:
    return Api(ill)


def test_no_ill_node_hides_the_others(ill: Fleet, ill_api: Api) -> None:
    """web-2 is killed, web-4 stopped, web-3 has no ksh, and nope does not exist."""
    api = ill_api
    ill.keeper.take_down("web-2")
    ill.keeper.send("web-4", signal.SIGSTOP)
    try:
        process = subprocess.Popen(
            command("--shell", "ksh", "web-1", "web-2", "web-3", "web-4", "nope", "--", "echo well"),
            env=environment(api),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "web-1  │ well\n"
        (execution,) = [row["id"] for row in api.get("/workflow-executions").data["items"]]
        rows = wait_until(lambda: answered(api, execution))
        assert api.get(f"/workflow-executions/{execution}").data["status"] == "running"
        assert (rows["web-2"], rows["web-4"]) == ("dispatched", "dispatched")
        out, _ = process.communicate(timeout=120)
    finally:
        ill.keeper.send("web-4", signal.SIGCONT)
    assert process.returncode == 1, out
    endings = {line.split()[0]: line.split()[1] for line in out.splitlines() if line.count("  ") > 2}
    assert {name: endings[name] for name in ("web-1", "web-2", "web-3", "web-4", "nope")} == {
        "web-1": "succeeded",
        "web-2": "unknown",
        "web-3": "skipped",
        "web-4": "unknown",
        "nope": "failed",
    }


def answered(api: Api, execution: str) -> dict[str, str] | None:
    """The status of each node, once those that can have answered."""
    items = api.get(f"/workflow-executions/{execution}/tasks").data["items"]
    found = {row["node"]: row["status"] for row in items}
    wanted = {"web-1": "succeeded", "web-3": "skipped", "nope": "failed"}
    return found if wanted.items() <= found.items() else None


def test_a_node_that_is_away_is_a_conflict_alone_and_a_row_among_others(ill: Fleet, ill_api: Api) -> None:
    ill.keeper.take_down("web-2")
    wait_until(lambda: "web-2" in ill.offline())
    alone = ill_api.post("/nodes/web-2/execute", {"command": ["true"]})
    assert (alone.status, alone.data["code"]) == (409, "node-offline")
    among = ill_api.post("/nodes/execute?wait=30", {"nodes": ["web-1", "web-2"], "command": ["true"]})
    items = ill_api.get(f"/workflow-executions/{among.data['id']}/tasks").data["items"]
    assert [(row["node"], row["status"]) for row in items] == [("web-1", "succeeded"), ("web-2", "failed")]
    assert items[1]["error"]["type"] == "node_offline"
