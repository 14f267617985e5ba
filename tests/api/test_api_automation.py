"""Scripts on many nodes over the API: what is stored, what is shown from the first moment, what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import script_shop
from api_world import World, build
from script_shop import BODY, EXECUTE, GOOD, TARGET
from sqlalchemy import delete, event, select, update

from app.engine.rollup import LOST_OR_FAILED, WORDS
from app.engine.status import EXECUTION_OVER, EXECUTION_STATUSES, JOB_OVER
from app.services import script_output, script_results
from app.store.tables import Execution, Job, Script, SecretParameter, StoredPlan, Task, table

executions, tasks, jobs = table(Execution), table(Task), table(Job)
scripts, plans, secrets = table(Script), table(StoredPlan), table(SecretParameter)


@pytest.fixture
def fleet(world: World) -> World:
    return script_shop.stock(world)


def start(world: World, body: dict[str, Any], path: str = EXECUTE, **options: Any) -> dict[str, Any]:
    answer = world.post(path, body, "operator", **options)
    assert answer.status_code == 201, answer.text
    assert answer.headers["Location"].endswith(f"/automation/executions/{answer.get_json()['id']}")
    found: dict[str, Any] = answer.get_json()
    assert {host["status"] for host in found["hosts"]} == {"queued"}
    script_shop.begin(world, found["id"])
    return found


def shown(world: World, execution: str, query: str = "") -> dict[str, Any]:
    found: dict[str, Any] = world.get(f"/automation/executions/{execution}{query}")
    return found


def end(
    world: World, execution: str, node: int, status: str = "succeeded", stdout: bytes = b"done\n"
) -> None:
    """The open job on web-<node> ends."""
    job = next(job for job in world.open_jobs(execution) if f".run.{node - 1}." in job)
    world.end(execution, job, status=status, stdout=stdout, code=0 if status == "succeeded" else 3)


def listed(world: World, query: str = "") -> list[tuple[str, str]]:
    return [(row["id"], row["status"]) for row in world.get(f"/automation/executions{query}")["items"]]


def test_a_row_for_every_host_from_the_first_moment(fleet: World) -> None:
    found = start(fleet, {**GOOD, "batch": 1})
    assert (found["status"], found["total_count"], found["kind"]) == ("queued", 3, "script")
    assert found["script"]["name"] == "deploy"
    assert [host["host_id"] for host in found["hosts"]] == GOOD["host_ids"]
    assert {host["status"] for host in found["hosts"]} == {"queued"}
    assert all(host["queued_at"] and host["started_at"] is None for host in found["hosts"])
    # With batches of one only the first has a job.
    assert len(fleet.open_jobs(found["id"])) == 1


def test_the_body_stays_as_it_is_and_values_are_variables(fleet: World) -> None:
    found = start(fleet, {**GOOD, "parameter_values": {"target": "; reboot"}})
    with fleet.control.store.read() as connection:
        text = connection.execute(select(plans.c.body)).scalar_one()
        given = connection.execute(select(tasks.c.input).where(tasks.c.execution == found["id"])).scalar_one()
    task = json.loads(text)["tasks"][0]
    assert task["input"]["script"] == given["script"] == BODY == found["body"]
    assert given["env"] == {"target": "; reboot"}
    assert "reboot" not in text


def test_how_it_goes_and_what_the_hosts_say(fleet: World) -> None:
    id_ = start(fleet, {**GOOD, "max_failures": 1})["id"]
    assert listed(fleet, "?status=queued") == [(id_, "queued")]
    end(fleet, id_, 1)
    assert shown(fleet, id_)["status"] == "running"
    assert listed(fleet, "?status=running") == [(id_, "running")]
    end(fleet, id_, 2, "failed", b"broken\n")
    end(fleet, id_, 3)
    found = shown(fleet, id_)
    # The failure was put up with, and one host failed all the same.
    assert fleet.get(f"/workflow-executions/{id_}")["status"] == "completed"
    assert (found["status"], found["succeeded_count"], found["failed_count"]) == ("failed", 2, 1)
    one = found["hosts"][1]
    assert (one["status"], one["return_code"], one["stdout"]) == ("failed", 3, "broken\n")
    assert one["error"]["type"] == "exit"
    assert one["queued_at"] <= one["completed_at"]
    assert found["completed_at"]
    assert listed(fleet, "?status=failed&script=deploy") == [(id_, "failed")]
    assert listed(fleet, "?status=succeeded,running,queued") == []


def test_a_host_without_the_shell_is_skipped_with_the_reason(fleet: World) -> None:
    script_shop.put(fleet, "zeta", "print $1\n", shell="zsh")
    path = "/automation/scripts/zeta/execute"
    found = shown(fleet, start(fleet, {"host_ids": ["web-1", "web-3"]}, path)["id"])
    assert found["skipped_hosts"] == [{"host_id": "web-3", "reason": "node web-3 has no zsh"}]
    end(fleet, found["id"], 1)
    assert shown(fleet, found["id"])["status"] == "succeeded"
    # All skipped is skipped, never succeeded.
    found = shown(fleet, start(fleet, {"host_ids": ["web-3"]}, path)["id"])
    assert (found["status"], found["skipped_count"]) == ("skipped", 1)
    assert listed(fleet, "?status=skipped") == [(found["id"], "skipped")]


def test_the_same_outputs_are_told_once(fleet: World) -> None:
    id_ = start(fleet, {**GOOD, "max_failures": 3})["id"]
    for node, (status, text) in enumerate([("succeeded", b"a\n"), ("failed", b"b\n"), ("succeeded", b"a\n")]):
        end(fleet, id_, node + 1, status, text)
    found = shown(fleet, id_, "?fold=output")
    assert found["summary"] == "2 the same, 1 differ"
    told = [(one["hosts"], one["count"], one["stdout"], one["return_code"]) for one in found["groups"]]
    assert told == [(["web-1", "web-3"], 2, "a\n", 0), (["web-2"], 1, "b\n", 3)]
    assert {host["stdout"] for host in found["hosts"]} == {None}
    assert "groups" not in shown(fleet, id_)


def test_output_is_bounded_and_says_so(fleet: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script_output, "OUTPUT_BYTES", 4096)
    id_ = start(fleet, GOOD)["id"]
    end(fleet, id_, 1, stdout=b"x" * 3000 + b"end\n")
    end(fleet, id_, 2, stdout=b"short\n")
    hosts = shown(fleet, id_)["hosts"]
    assert hosts[0]["stdout"].endswith("xend\n")
    assert len(hosts[0]["stdout"]) < 3000
    assert (hosts[0]["truncated"], hosts[1]["truncated"], hosts[1]["stdout"]) == (True, False, "short\n")


def test_retry_runs_only_where_it_failed(fleet: World) -> None:
    id_ = start(fleet, {**GOOD, "max_failures": 1})["id"]
    path = f"/automation/executions/{id_}/retry"
    assert fleet.post(path, {}, "operator").get_json()["code"] == "execution-not-over"
    for node, status in ((1, "succeeded"), (2, "failed"), (3, "succeeded")):
        end(fleet, id_, node, status)
    answer = fleet.post(path, {"reason": "the disk was full"}, "operator")
    assert (answer.status_code, answer.get_json()["status"]) == (202, "running")
    assert [job.split(".")[2] for job in fleet.open_jobs(id_)] == ["1"]
    assert [host["status"] for host in shown(fleet, id_)["hosts"]] == ["succeeded", "queued", "succeeded"]
    end(fleet, id_, 2)
    found = shown(fleet, id_)
    assert (found["status"], found["succeeded_count"], found["failed_count"]) == ("succeeded", 3, 0)
    refused = fleet.post(path, {}, "operator")
    assert (refused.status_code, refused.get_json()["code"]) == (409, "nothing-to-retry")
    replayed = fleet.get(f"/workflow-executions/{id_}/replay", "operator")
    assert replayed["is_same"], replayed


def test_retry_where_nothing_was_put_up_with(fleet: World) -> None:
    id_ = start(fleet, {**GOOD, "batch": 2})["id"]
    end(fleet, id_, 1)
    end(fleet, id_, 2, "failed")
    found = shown(fleet, id_)
    assert [host["status"] for host in found["hosts"]] == ["succeeded", "failed", "not_reached"]
    assert fleet.post(f"/automation/executions/{id_}/retry", {}, "operator").status_code == 202
    assert shown(fleet, id_)["status"] == "running"
    end(fleet, id_, 2)
    end(fleet, id_, 3)
    assert shown(fleet, id_)["status"] == "succeeded"


def test_all_failed_and_tried_again_is_queued(fleet: World) -> None:
    id_ = start(fleet, {**GOOD, "host_ids": ["web-1"]})["id"]
    end(fleet, id_, 1, "failed")
    assert fleet.post(f"/automation/executions/{id_}/retry", {}, "operator").get_json()["status"] == "queued"
    assert listed(fleet, "?status=queued") == [(id_, "queued")]


def test_cancel(fleet: World) -> None:
    id_ = start(fleet, GOOD)["id"]
    answer = fleet.post(f"/automation/executions/{id_}/cancel", {"reason": "wrong hosts"}, "operator")
    assert answer.status_code == 202
    found = shown(fleet, id_)
    assert found["status"] == answer.get_json()["status"] == "cancelled"
    assert {host["status"] for host in found["hosts"]} == {"cancelled"}
    assert listed(fleet, "?status=cancelled") == [(id_, "cancelled")]
    assert fleet.post(f"/automation/executions/{id_}/cancel", {}, "operator").status_code == 409


@pytest.mark.parametrize("first", ["cancel", "pause"])
def test_who_is_faster_than_the_control_workers(fleet: World, first: str) -> None:
    """The request has left the jobs to them: whatever is asked for in between comes after they were born."""
    answer = fleet.post(EXECUTE, GOOD, "operator")
    id_ = answer.get_json()["id"]
    assert fleet.open_jobs(id_) == []
    assert fleet.get(f"/workflow-executions/{id_}")["status"] == "scheduling"
    assert fleet.post(f"/workflow-executions/{id_}/{first}", {}, "operator").status_code == 202
    script_shop.begin(fleet, id_)
    found = shown(fleet, id_)
    assert found["status"] == ("cancelled" if first == "cancel" else "queued")
    assert len(fleet.open_jobs(id_)) == (0 if first == "cancel" else 3)
    kinds = [one["kind"] for one in fleet.get(f"/workflow-executions/{id_}/events")["items"]]
    assert kinds[:2] == ["submitted", f"{first}.asked"]
    assert kinds.count("submitted") == 1


def test_versions_and_what_is_deleted(fleet: World) -> None:
    script_shop.put(fleet, "deploy", "echo two\n", [], version=2)
    old = start(fleet, {**GOOD, "version": 1})
    new = start(fleet, {"host_ids": ["web-1"]})
    assert (old["body"], old["script"]["version"]) == (BODY, 1)
    assert (new["body"], new["script"]["version"]) == ("echo two\n", 2)
    with fleet.control.store.write() as connection:
        connection.execute(delete(scripts).where(scripts.c.name == "deploy"))
    assert shown(fleet, old["id"])["body"] == BODY
    assert [id_ for id_, _ in listed(fleet, "?script=deploy")] == [new["id"], old["id"]]
    assert [id_ for id_, _ in listed(fleet, f"?script={old['script']['id']}&limit=1")] == [new["id"]]
    gone = fleet.post(EXECUTE, GOOD, "operator")
    assert (gone.status_code, gone.get_json()["code"]) == (404, "unknown-script")


def test_labels_are_resolved_once(fleet: World) -> None:
    found = start(fleet, {"labels": {"role": "web"}, "parameter_values": {"target": "/"}})
    assert [host["host_id"] for host in found["hosts"]] == ["web-1", "web-2", "web-3"]
    fleet.add_node("web-4", labels={"role": "web"})
    assert len(shown(fleet, found["id"])["hosts"]) == 3


def test_a_secret_is_in_no_plan_and_in_no_answer(fleet: World) -> None:
    script_shop.put(
        fleet, "login", "printf %s $token\n", [{"name": "token", "type": "secret", "required": True}]
    )
    body = {"host_ids": ["web-1"], "parameter_values": {"token": "hunter2-hunter2"}}
    answer = fleet.post("/automation/scripts/login/execute", body, "operator")
    assert "hunter2" not in answer.text
    found = answer.get_json()
    assert found["parameters"] == {"token": "secretref:parameter:token"}
    with fleet.control.store.read() as connection:
        whole = [
            str(tuple(row)) for one in (plans, tasks, executions) for row in connection.execute(select(one))
        ]
        assert connection.execute(select(secrets.c.name)).scalars().all() == ["token"]
    assert not any("hunter2" in row for row in whole)


def test_text_is_put_in_once_where_the_author_asked_for_it(fleet: World) -> None:
    declared = [{**one, "name": name} for name, one in (("a", TARGET), ("b", TARGET))]
    script_shop.put(fleet, "paste", "echo ${a} ${b} ${c} $a\n", declared, substitution="text")
    body = {"host_ids": ["web-1"], "parameter_values": {"a": "${b}", "b": "two"}}
    found = start(fleet, body, "/automation/scripts/paste/execute")
    assert found["body"] == "echo ${b} two ${c} $a\n"


def test_a_script_that_requires_an_approval_waits_for_it(fleet: World) -> None:
    script_shop.put(fleet, "wipe", "true\n", requires_approval=True, approval={"quorum": 1})
    answer = fleet.post("/automation/scripts/wipe/execute", {"labels": {"role": "web"}}, "operator")
    id_ = answer.get_json()["id"]
    found = shown(fleet, id_)
    assert found == answer.get_json()
    assert (found["status"], found["gate"], found["requires_approval"]) == (
        "pending_approval",
        "pending",
        True,
    )
    assert {host["status"] for host in found["hosts"]} == {"queued"}
    assert listed(fleet, "?status=pending_approval") == [(id_, "pending_approval")]
    (asked,) = fleet.get("/automation/approvals?status=pending")["items"]
    assert asked["prompt"] == "Run the script wipe, version 1, on 3 nodes?"
    assert fleet.open_jobs(id_) == []
    path = f"/automation/approvals/{asked['id']}"
    assert fleet.post(f"{path}/approve", {}, "admin").status_code in (200, 202)
    assert shown(fleet, id_)["status"] == "queued"
    assert len(fleet.open_jobs(id_)) == 3


def test_the_same_key_is_the_same_execution(fleet: World) -> None:
    headers = {"Idempotency-Key": "once"}
    first = start(fleet, GOOD, headers=headers)
    again = fleet.post(EXECUTE, GOOD, "operator", headers=headers)
    assert (again.status_code, again.get_json()["id"]) == (200, first["id"])
    assert again.headers["Idempotent-Replay"] == "true"
    other = fleet.post(EXECUTE, {**GOOD, "batch": 1}, "operator", headers=headers)
    assert other.get_json()["code"] == "idempotency-key-reused"
    assert len(listed(fleet)) == 1


def test_a_script_that_is_not_saved(fleet: World) -> None:
    body = {"host_ids": ["web-1"], "shell": "bash", "body": "echo ${x}\n", "timeout": 5, "reason": "a look"}
    found = start(fleet, body, "/automation/execute")
    assert (found["kind"], found["script"], found["shell"], found["body"]) == (
        "adhoc",
        None,
        "bash",
        "echo ${x}\n",
    )
    entry = fleet.get("/audit?action=execution.submit&limit=1", "admin")["items"][0]
    assert entry["detail"]["reason"] == "a look"
    # What `muster exec` started is here as well.
    one = fleet.post("/nodes/web-1/execute?wait=0", {"command": ["uptime"]}, "operator").get_json()
    assert shown(fleet, one["execution"])["hosts"][0]["host_id"] == "web-1"
    assert [id_ for id_, _ in listed(fleet)] == [one["execution"], found["id"]]
    # A workflow is not.
    other = fleet.run()
    assert len(listed(fleet)) == 2
    assert fleet.ask("GET", f"/api/v1/automation/executions/{other}").status_code == 404
    assert fleet.post(f"/automation/executions/{other}/cancel", {}, "operator").status_code == 404
    assert fleet.post(f"/automation/executions/{other}/retry", {}, "operator").status_code == 404


def test_what_is_not_saved_is_held_to_the_allowlist(fleet: World) -> None:
    settings = replace(fleet.control.settings, allowlist_mode="enforce")
    object.__setattr__(fleet.control, "settings", settings)
    before = fleet.counts()
    answer = fleet.post("/automation/execute", {"host_ids": ["web-1"], "body": "rm -rf /\n"}, "operator")
    assert (answer.status_code, answer.get_json()["code"]) == (403, "not-allowed")
    assert fleet.counts() == before
    # A saved one is not: who may save one may say what runs.
    start(fleet, GOOD)


def test_pages(fleet: World) -> None:
    made = [start(fleet, {**GOOD, "host_ids": [f"web-{1 + n % 3}"]})["id"] for n in range(5)]
    found: list[str] = []
    cursor = ""
    while True:
        page = fleet.get(f"/automation/executions?limit=2&status=queued{cursor}")
        found += [row["id"] for row in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert found == made[::-1]


def counted(statuses: tuple[str, ...], execution_over: bool) -> dict[str, int]:
    """The counters of a task whose nodes' jobs have these statuses, all of them folded."""
    return {
        "units": len(statuses),
        "started": len(statuses),
        "over": sum(one in JOB_OVER for one in statuses),
        "succeeded": statuses.count("succeeded"),
        "failed": sum(one in LOST_OR_FAILED for one in statuses if one != "unknown" or execution_over),
        "skipped": statuses.count("skipped"),
        "cancelled": statuses.count("cancelled"),
    }


def test_the_list_says_the_same_word_as_the_roll_up(fleet: World) -> None:
    """In SQL and in Python, whatever the rows hold; and a filter finds exactly those with its word."""
    id_ = start(fleet, {**GOOD, "host_ids": ["web-1", "web-2"]})["id"]
    of_jobs = ("queued", "accepted", "unknown", "succeeded", "failed", "timed_out", "skipped", "cancelled")
    seen = set()
    for status, gate, intent in product(EXECUTION_STATUSES, ("", "pending", "approved"), ("run", "cancel")):
        over = status in EXECUTION_OVER
        for pair in product(of_jobs, repeat=2) if gate == "" else [("queued", "queued")]:
            if over and {"queued", "accepted"} & {*pair}:
                continue
            values = {"status": status, "gate": gate, "intent": intent}
            with fleet.control.store.write() as connection:
                connection.execute(update(executions).where(executions.c.id == id_).values(values))
                connection.execute(update(tasks).values(counted(pair, over)))
                for unit, one in enumerate(pair):
                    connection.execute(update(jobs).where(jobs.c.unit == unit).values(status=one))
            with fleet.control.store.read() as connection:
                word = script_results.execution(connection, id_)["status"]
                assert script_results.word(connection, id_) == word, (values, pair)
                found = script_results.list_executions(connection, limit=5, words=[word])
                assert [row["status"] for row in found] == [word]
                others = [one for one in WORDS if one != word]
                assert script_results.list_executions(connection, limit=5, words=others) == []
            seen.add(word)
    assert seen == set(WORDS)


def test_a_hundred_hosts_in_few_statements(tmp_path: Any, database_url: str) -> None:
    """As many statements for a hundred hosts as for two."""
    world = build(database_url, tmp_path)
    names = [f"n-{number:03d}" for number in range(100)]
    for name in names:
        world.add_node(name)
    script_shop.put(world, "deploy", "true\n")
    used = []
    for some in (names[:2], names):
        id_ = start(world, {"host_ids": some})["id"]
        for job in world.open_jobs(id_):
            world.end(id_, job, stdout=b"hello\n")
        shown(world, id_)  # who asks is noted now and then, and the plan is read once
        count = 0

        def counting(*_: Any) -> None:
            nonlocal count
            count += 1

        event.listen(world.control.store.engine, "before_cursor_execute", counting)
        assert len(shown(world, id_)["hosts"]) == len(some)
        event.remove(world.control.store.engine, "before_cursor_execute", counting)
        used.append(count)
    assert used[0] == used[1]
    assert used[1] < 15
    world.control.store.close()
