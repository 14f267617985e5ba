"""Saved scripts on a running fleet: by the API, and by `muster script`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fleet import Fleet
from fleet_api import Api
from fleet_processes import ROOT

pytestmark = pytest.mark.fleet

NO_KSH = pytest.mark.skipif(bool(shutil.which("ksh")), reason="every node here has a ksh")
WEB = ["web-1", "web-2", "web-3"]
PARAMETERS = [
    {"name": "target", "type": "string", "required": True},
    {"name": "dry_run", "type": "boolean", "required": False, "default": True},
    {"name": "share", "type": "float", "required": False, "default": 0.0000001},
    {"name": "note", "type": "string", "required": False},
    {"name": "token", "type": "secret", "required": False},
]
BODY = 'printf "%s|" "${target}" "${dry_run}" "${share}" "${note}" "{{ x }}"; printf %s "$token" | wc -c\n'
BODIES = ["echo version one\n", "echo version two\n", "echo version three\n"]


@pytest.fixture(scope="module")
def shop(fleet: Fleet, api: Api) -> Fleet:
    """The fleet with two scripts: `tell` takes values, `edited` is for ksh and was edited twice."""
    save(api, "tell", [BODY], "sh", PARAMETERS)
    save(api, "edited", BODIES, "ksh", [])
    return fleet


def save(api: Api, name: str, bodies: list[str], shell: str, parameters: list[dict[str, Any]]) -> None:
    """A script with a version of each body, the first one first."""
    for number, body in enumerate(bodies, start=1):
        script = {"name": name, "shell": shell, "body": body, "parameters": parameters, "timeout": 30}
        answer = api.post("/automation/scripts", script, "author")
        assert (answer.status, answer.data["version"]) == (201 if number == 1 else 200, number), answer.data


@NO_KSH
def test_version_1_on_two_nodes_while_a_third_has_no_such_shell(shop: Fleet, api: Api) -> None:
    body = {"host_ids": WEB, "version": 1}
    answer = api.post("/automation/scripts/edited/execute?wait=30", body)
    assert answer.status == 201, answer.data
    found = answer.data
    assert (found["status"], found["script"]["version"]) == ("succeeded", 1)
    told = [(host["host_id"], host["status"], host["return_code"], host["stdout"]) for host in found["hosts"]]
    assert told == [
        ("web-1", "succeeded", 0, "version one\n"),
        ("web-2", "succeeded", 0, "version one\n"),
        ("web-3", "skipped", None, ""),
    ]
    assert found["skipped_hosts"] == [{"host_id": "web-3", "reason": "node web-3 has no ksh"}]
    newest = api.post("/automation/scripts/edited/execute?wait=30", {"host_ids": ["web-1"]}).data
    assert newest["hosts"][0]["stdout"] == "version three\n"


def test_values_reach_the_script_as_they_are(shop: Fleet, api: Api) -> None:
    values = {"target": "; reboot $(x) `y` \"z'", "token": "hunter2-hunter2", "dry_run": "false"}
    body = {"host_ids": ["web-1"], "parameter_values": values}
    found = api.post("/automation/scripts/tell/execute?wait=30", body).data
    assert found["hosts"][0]["stdout"] == f"{values['target']}|false|0.0000001||{{{{ x }}}}|15\n", found
    assert found["parameters"]["token"] == "secretref:parameter:token"


def test_a_saved_script_in_a_workflow(shop: Fleet, api: Api) -> None:
    workflow = {
        "parameters": {"token": {"type": "secret"}},
        "tasks": [
            {
                "name": "told",
                "type": "distributed_shell",
                "input": {
                    "nodes": ["web-1", "web-2"],
                    "script_ref": "tell@1",
                    "parameters": {
                        "target": "{{ system.identity.login }}",
                        "dry_run": False,
                        "token": "{{ parameters.token }}",
                    },
                },
            }
        ],
    }
    body = {"definition": workflow, "parameters": {"token": "hunter2"}}
    answer = api.post("/workflow-executions?wait=30", body, "author")
    assert answer.data["status"] == "completed", answer.data
    units = api.get(f"/workflow-executions/{answer.data['id']}/tasks").data["items"]
    assert {unit["result"]["stdout"] for unit in units} == {"author|false|0.0000001||{{ x }}|7"}


def test_what_is_not_saved_goes_the_same_way(api: Api) -> None:
    body = {"host_ids": WEB, "body": 'test "$MUSTER_NODE" != web-2 || exit 3\necho same\n', "max_failures": 1}
    found = api.post("/automation/execute?wait=30", body).data
    assert (found["status"], found["kind"]) == ("failed", "adhoc")
    folded = api.get(f"/automation/executions/{found['id']}?fold=output").data
    assert folded["summary"] == "2 the same, 1 differ"
    assert [(one["hosts"], one["return_code"], one["stdout"]) for one in folded["groups"]] == [
        (["web-1", "web-3"], 0, "same\n"),
        (["web-2"], 3, ""),
    ]


def test_retry_runs_where_it_failed_and_nowhere_else(shop: Fleet, api: Api, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    body = f'echo "$MUSTER_JOB" >> {shop.effects}; test "$MUSTER_NODE" != web-2 || test -e {gate}\n'
    asked = {"host_ids": WEB, "body": body, "max_failures": 3}
    found = api.post("/automation/execute?wait=30", asked).data
    assert (found["failed_count"], found["succeeded_count"]) == (1, 2), found
    gate.touch()
    answer = api.post(f"/automation/executions/{found['id']}/retry", {})
    assert answer.status == 202, answer.data
    shop.wait_for(found["id"])
    again = api.get(f"/automation/executions/{found['id']}").data
    assert (again["status"], again["succeeded_count"]) == ("succeeded", 3)
    ran = [line for line in shop.effects.read_text().splitlines() if line.startswith(found["id"])]
    assert sorted(job.split(".")[2] for job in ran) == ["0", "1", "1", "2"]


def muster(api: Api, *args: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    given = {"MUSTER_URL": api.url, "MUSTER_TOKEN": api.tokens["operator"], "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "app.cli.main", "script", *args],
        env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **given},
        cwd=ROOT,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_command_line(shop: Fleet, api: Api) -> None:
    done = muster(api, "run", "tell", "--on", "web-1,web-2", "-p", "target=/srv", "-p", "dry_run=false")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "web-1  │ /srv|false|0.0000001||{{ x }}|0" in lines
    assert "2 the same" in lines
    execution = lines[-1].partition("=")[2][:26]
    assert lines[-1] == f"execution={execution} status=succeeded"
    shown = muster(api, "results", execution)
    assert shown.stdout.startswith("── web-1, web-2 (succeeded, return code 0)\n/srv|false|"), shown.stdout
    listed = muster(api, "executions", "--script", "tell", "--limit", "1").stdout
    assert execution in listed
    again = muster(api, "retry", execution)
    assert (again.returncode, "nothing of execution" in again.stderr) == (5, True)
    wrong = muster(api, "run", "tell", "--on", "web-1", "-p", "taget=/srv", "--json")
    assert wrong.returncode == 2
    assert {one["pointer"] for one in json.loads(wrong.stderr)["error"]["errors"]} == {
        "/parameter_values/taget",
        "/parameter_values/target",
    }
    given = json.dumps({"target": "a", "token": "s3cret-s3cret"})
    done = muster(api, "run", "tell", "--on", "web-1", "--parameters", "-", "--json", stdin=given)
    assert "s3cret" not in done.stdout
    assert json.loads(done.stdout)["hosts"][0]["stdout"].endswith("|13\n")
