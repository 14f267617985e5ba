"""Seed 002, saved scripts and their executions, row by row: S2.1 to S2.11, S2.19, S2.20, S2.24, S2.25."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from fleet_processes import ROOT
from running import WEB, Running
from waiting import wait_until

from app.services.features import FEATURES

pytestmark = [pytest.mark.fleet, pytest.mark.timeout(180)]

SCRIPTS = "/automation/scripts"
EXECUTIONS = "/automation/executions"
CASES = yaml.safe_load((ROOT / "tests" / "cases" / "acceptance" / "scripts.yaml").read_text())


def save(running: Running, name: str, body: str, **more: Any) -> dict[str, Any]:
    """A saved script, as the answer has it."""
    answer = running.post(SCRIPTS, {"name": name, "shell": "bash", "body": body, **more}, "author")
    assert answer.status in (200, 201), answer.data
    found: dict[str, Any] = answer.data
    return found


def run(running: Running, script: str, *hosts: str, **more: Any) -> dict[str, Any]:
    """An execution of a saved script, over."""
    body = {"host_ids": list(hosts or WEB), **more}
    answer = running.post(f"{SCRIPTS}/{script}/execute?wait=60", body)
    assert answer.status == 201, answer.data
    found: dict[str, Any] = answer.data
    return found


def hosts(execution: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The row of each node."""
    return {row["host_id"]: row for row in execution["hosts"]}


def newest(running: Running) -> list[str]:
    return [one["id"] for one in running.get(f"{EXECUTIONS}?limit=1").data["items"]]


# S2.1


def test_S2_01_a_saved_script_has_all_that_the_seed_says(running: Running) -> None:
    given = {
        "name": "whole",
        "shell": "bash",
        "body": 'echo "$greeting" "${count}"\n',
        "description": "Everything a script may say.",
        "parameters": [
            {"name": "greeting", "type": "string", "required": True, "description": "What to say."},
            {"name": "count", "type": "integer", "default": 3, "min": 1, "max": 9},
        ],
        "timeout": 20,
        "tags": ["demo"],
    }
    answer = running.post(SCRIPTS, given, "author")
    assert answer.status == 201, answer.data
    shown = running.get(f"{SCRIPTS}/{answer.data['id']}").data
    for key in ("name", "shell", "body", "description", "timeout", "tags"):
        assert shown[key] == given[key]
    assert [(one["name"], one["type"], one["required"]) for one in shown["parameters"]] == [
        ("greeting", "string", True),
        ("count", "integer", False),
    ]
    assert (shown["version"], shown["requires_approval"]) == (1, False)
    found = run(running, "whole", "web-1", parameter_values={"greeting": "hello"})
    assert (found["status"], hosts(found)["web-1"]["stdout"]) == ("succeeded", "hello 3\n")


# S2.2, S2.3, S2.6


def test_S2_02_a_changed_script_is_a_new_version_and_the_old_one_is_kept(running: Running) -> None:
    assert save(running, "edited", "echo one\n")["version"] == 1
    assert save(running, "edited", "echo two\n")["version"] == 2
    assert save(running, "edited", "echo two\n", shell="sh")["version"] == 3
    declared = [{"name": "word", "type": "string"}]
    assert save(running, "edited", "echo two\n", shell="sh", parameters=declared)["version"] == 4
    assert save(running, "edited", "echo two\n", shell="sh", parameters=declared)["version"] == 4
    kept = {n: running.get(f"{SCRIPTS}/edited/versions/{n}").data for n in (1, 2, 3, 4)}
    assert [(kept[n]["body"], kept[n]["shell"]) for n in kept] == [
        ("echo one\n", "bash"),
        ("echo two\n", "bash"),
        ("echo two\n", "sh"),
        ("echo two\n", "sh"),
    ]


def test_S2_03_an_older_version_runs_and_comes_back(running: Running) -> None:
    save(running, "older", "echo first\n")
    save(running, "older", "echo second\n")
    found = run(running, "older", "web-1", version=1)
    assert (found["script"]["version"], hosts(found)["web-1"]["stdout"]) == (1, "first\n")
    assert hosts(run(running, "older", "web-1"))["web-1"]["stdout"] == "second\n"
    back = running.post(f"{SCRIPTS}/older/rollback", {"version": 1}, "author")
    assert (back.status, back.data["version"], back.data["body"]) == (200, 3, "echo first\n")
    assert hosts(run(running, "older", "web-1"))["web-1"]["stdout"] == "first\n"


def test_S2_06_all_versions_are_listed_the_newest_first(running: Running) -> None:
    for word in ("a", "b", "c"):
        save(running, "listed", f"echo {word}\n")
    items = running.get(f"{SCRIPTS}/listed/versions").data["items"]
    assert [one["version"] for one in items] == [3, 2, 1]
    changed = running.get(f"{SCRIPTS}/listed/versions/1/diff/3").data
    assert "-echo a" in changed["diff"]
    assert "+echo c" in changed["diff"]


# S2.4, S2.5


def test_S2_04_the_list_has_what_is_current(running: Running) -> None:
    save(running, "current", "echo old\n")
    made = save(running, "current", "echo new\n")
    items = {one["name"]: one for one in running.get(f"{SCRIPTS}?limit=200").data["items"]}
    assert items["current"]["version"] == 2
    assert running.get(f"{SCRIPTS}/{made['id']}").data["body"] == "echo new\n"
    assert running.get(f"{SCRIPTS}/nowhere").status == 404


@pytest.mark.parametrize("case", CASES["refused"], ids=lambda case: case["name"])
def test_S2_05_what_cannot_be_saved_is_told_with_its_place(running: Running, case: dict[str, Any]) -> None:
    before = running.get(f"{SCRIPTS}?limit=200").data["items"]
    given = {"name": "refused", "shell": "bash", "body": "true\n", **case["body"]}
    answer = running.post(SCRIPTS, given, "author")
    assert answer.status == 422, answer.data
    assert case["pointer"] in {one["pointer"] for one in answer.data["errors"]}, answer.data
    assert running.get(f"{SCRIPTS}?limit=200").data["items"] == before


def test_S2_05_one_request_creates_and_updates(running: Running) -> None:
    given = {"name": "twice", "shell": "sh", "body": "true\n"}
    answers = [running.post(SCRIPTS, given, "author") for _ in range(2)]
    assert [answer.status for answer in answers] == [201, 200]
    assert len({answer.data["id"] for answer in answers}) == 1
    assert running.post(SCRIPTS, given, "operator").status == 403


# S2.7


def test_S2_07_a_deleted_script_is_gone_and_its_executions_tell_what_they_ran(running: Running) -> None:
    made = save(running, "deleted", "echo gone\n")
    found = run(running, "deleted", "web-1")
    assert running.ask("DELETE", f"/api/v1{SCRIPTS}/{made['id']}", role="author").status == 204
    assert running.get(f"{SCRIPTS}/deleted").status == 404
    assert running.get(f"{SCRIPTS}/{made['id']}/versions").status == 404
    kept = running.get(f"{EXECUTIONS}/{found['id']}").data
    assert (kept["body"], kept["script"]["version"]) == ("echo gone\n", 1)
    assert hosts(kept)["web-1"]["stdout"] == "gone\n"


# S2.8 to S2.10


def test_S2_08_one_request_runs_one_body_on_many_hosts(running: Running) -> None:
    body = 'echo "$MUSTER_NODE: $target_dir $dry_run"\n'
    declared = [{"name": "target_dir", "type": "string"}, {"name": "dry_run", "type": "boolean"}]
    save(running, "many", body, parameters=declared)
    found = run(running, "many", parameter_values={"target_dir": "/var/www", "dry_run": False})
    assert found["status"] == "succeeded"
    assert {name: row["stdout"] for name, row in hosts(found).items()} == {
        node: f"{node}: /var/www false\n" for node in WEB
    }
    again = running.post(
        f"{SCRIPTS}/many/execute?wait=60",
        {"labels": {"fleet": "muster-up-has-none"}, "parameter_values": {}},
    )
    assert (again.status, again.data["code"]) == (422, "no-nodes")


@pytest.mark.parametrize("case", CASES["not_executed"], ids=lambda case: case["name"])
def test_S2_08_what_cannot_be_executed_is_told_with_its_place(running: Running, case: dict[str, Any]) -> None:
    declared = [{"name": "size", "type": "integer", "required": True, "max": 10}]
    save(running, "strict", "true\n", parameters=declared)
    before = newest(running)
    given = {"host_ids": ["web-1"], "parameter_values": {"size": 1}, **case["body"]}
    if "hosts" in case:
        given["host_ids"] = [f"node-{number}" for number in range(case["hosts"])]
    answer = running.post(f"{SCRIPTS}/{case.get('script', 'strict')}/execute", given)
    assert answer.status == case.get("status", 422), answer.data
    if "pointer" in case:
        assert case["pointer"] in {one["pointer"] for one in answer.data["errors"]}, answer.data
    assert newest(running) == before


def test_S2_09_every_host_has_a_row_from_the_first_moment(running: Running) -> None:
    gate = running.effects / "rows-may-end"
    save(running, "rows", f"until [ -e {gate} ]; do sleep 0.05; done; echo out; echo err >&2; exit 3\n")
    begun = running.post(f"{SCRIPTS}/rows/execute", {"host_ids": list(WEB), "batch": 1, "max_failures": 3})
    assert begun.status == 201, begun.data
    assert {row["status"] for row in begun.data["hosts"]} <= {"queued", "running"}
    path = f"{EXECUTIONS}/{begun.data['id']}"
    wait_until(lambda: running.get(path).data["status"] == "running")
    rows = hosts(running.get(path).data)
    assert set(rows) == set(WEB)
    assert sorted(row["status"] for row in rows.values()) == ["queued", "queued", "running"]
    gate.touch()
    wait_until(lambda: running.get(path).data["status"] == "failed")
    for row in running.get(path).data["hosts"]:
        assert (row["status"], row["return_code"], row["stdout"], row["stderr"]) == (
            "failed",
            3,
            "out\n",
            "err\n",
        )
        assert row["truncated"] is False
        moments = [datetime.fromisoformat(row[key]) for key in ("queued_at", "started_at", "completed_at")]
        assert moments == sorted(moments)


@pytest.mark.parametrize("case", CASES["rolled_up"], ids=lambda case: case["name"])
def test_S2_10_one_word_for_all_hosts(running: Running, case: dict[str, Any]) -> None:
    name = case["name"].replace(" ", "-")
    save(running, name, case["body"], shell=case.get("shell", "bash"))
    found = run(running, name, **case.get("with", {}))
    assert found["status"] == case["status"]
    assert {name: row["status"] for name, row in hosts(found).items()} == case["hosts"]
    assert [one["host_id"] for one in found["skipped_hosts"]] == case.get("skipped", [])
    listed = running.get(f"{EXECUTIONS}?status={case['status']}&script={name}").data["items"]
    assert [one["id"] for one in listed] == [found["id"]]


def test_S2_10_identical_outputs_are_folded_on_request(running: Running) -> None:
    save(running, "folded", 'test "$MUSTER_NODE" = web-2 && echo other || echo same\n')
    found = run(running, "folded")
    folded = running.get(f"{EXECUTIONS}/{found['id']}?fold=output").data
    assert [(group["hosts"], group["stdout"]) for group in folded["groups"]] == [
        (["web-1", "web-3"], "same\n"),
        (["web-2"], "other\n"),
    ]


# S2.11


def test_S2_11_executions_are_listed_cancelled_and_tried_again_where_they_failed(running: Running) -> None:
    save(running, "endless", "echo begun; exec sleep 300\n")
    begun = running.post(f"{SCRIPTS}/endless/execute", {"host_ids": ["web-1", "web-2"]}).data
    path = f"{EXECUTIONS}/{begun['id']}"
    wait_until(lambda: {row["status"] for row in running.get(path).data["hosts"]} == {"running"})
    assert running.post(f"{path}/cancel", {"reason": "enough"}).status == 202
    wait_until(lambda: running.get(path).data["status"] == "cancelled")
    assert {row["status"] for row in running.get(path).data["hosts"]} == {"cancelled"}
    mended = running.effects / "mended"
    counted = running.effects / "counted"
    body = f'echo "$MUSTER_NODE" >> {counted}; test "$MUSTER_NODE" != web-2 || test -e {mended}\n'
    save(running, "mending", body)
    found = run(running, "mending")
    assert found["status"] == "failed"
    mended.touch()
    assert running.post(f"{EXECUTIONS}/{found['id']}/retry", {"reason": "mended"}).status == 202
    wait_until(lambda: running.get(f"{EXECUTIONS}/{found['id']}").data["status"] == "succeeded")
    assert sorted(Path(counted).read_text().split()) == ["web-1", "web-2", "web-2", "web-3"]
    assert running.post(f"{EXECUTIONS}/{found['id']}/retry", {}).status == 409


# S2.19, S2.20


@pytest.mark.parametrize("case", CASES["typed"], ids=lambda case: f"{case['type']} {case['given']!r}")
def test_S2_19_values_are_typed_before_they_reach_a_script(running: Running, case: dict[str, Any]) -> None:
    name = f"typed-{case['type']}"
    save(running, name, 'printf %s "${value}"\n', parameters=[{"name": "value", "type": case["type"]}])
    body = {"host_ids": ["web-1"], "parameter_values": {"value": case["given"]}}
    answer = running.post(f"{SCRIPTS}/{name}/execute?wait=60", body)
    if "seen" in case:
        assert answer.status == 201, answer.data
        assert hosts(answer.data)["web-1"]["stdout"] == case["seen"]
    else:
        assert answer.status == 422
        assert [one["pointer"] for one in answer.data["errors"]] == ["/parameter_values/value"]


def test_S2_19_a_secret_is_hidden_everywhere_but_in_the_script(running: Running) -> None:
    secret = "correct horse battery"
    save(
        running,
        "secretive",
        'test "$password" = "correct horse battery" && echo "knows $password"\n',
        parameters=[{"name": "password", "type": "secret", "required": True}],
    )
    found = run(running, "secretive", "web-1", parameter_values={"password": secret})
    assert found["status"] == "succeeded"
    assert hosts(found)["web-1"]["stdout"].startswith("knows *")
    for path in (f"{EXECUTIONS}/{found['id']}", f"/workflow-executions/{found['id']}"):
        shown = running.get(path).data
        assert shown["parameters"]["password"] != secret


def test_S2_20_values_are_data_and_what_is_not_declared_is_left_alone(running: Running) -> None:
    canary = running.effects / "canary"
    body = 'printf "%s|" "${a}" "${b}"; echo "${HOME:+home} ${undeclared:-left}"\n'
    declared = [{"name": "a", "type": "string"}, {"name": "b", "type": "string"}]
    made = save(running, "data", body, parameters=declared)
    values = {"a": "${b}", "b": f"$(touch {canary}); touch {canary} `touch {canary}`"}
    found = run(running, "data", "web-1", parameter_values=values)
    assert hosts(found)["web-1"]["stdout"] == f"${{b}}|{values['b']}|home left\n"
    assert not canary.exists()
    assert found["body"] == made["body"] == body
    wrong = running.post(f"{SCRIPTS}/data/execute", {"host_ids": ["web-1"], "parameter_values": {"aa": "1"}})
    assert (wrong.status, wrong.data["errors"][0]["pointer"]) == (422, "/parameter_values/aa")


# S2.24


def test_S2_24_a_script_runs_without_being_saved(running: Running) -> None:
    before = running.get(f"{SCRIPTS}?limit=200").data["items"]
    body = {"host_ids": ["web-3"], "shell": "bash", "body": "echo ad hoc ${BASH_VERSINFO:+in bash}\n"}
    answer = running.post("/automation/execute?wait=60", body)
    assert (answer.status, answer.data["status"], answer.data["script"]) == (201, "succeeded", None)
    assert hosts(answer.data)["web-3"]["stdout"] == "ad hoc in bash\n"
    assert running.get(f"{SCRIPTS}?limit=200").data["items"] == before
    single = running.execute("web-1", script="echo one", language="bash")
    assert (single.status, single.data["stdout"]) == (200, "one\n")


# S2.25


def test_S2_25_features_are_listed(running: Running) -> None:
    assert running.get("/features").data == {"features": dict.fromkeys(FEATURES, True)}
