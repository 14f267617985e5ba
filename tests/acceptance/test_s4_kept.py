"""Seed 004, what is kept beside workflows, row by row: S4.19, and what S4.17 says of `pack.config` and `kv`."""

from __future__ import annotations

import hashlib
import json
import secrets
from typing import Any

import pytest
from begun import over
from running import Running

pytestmark = [pytest.mark.fleet, pytest.mark.timeout(180)]

VALUES = """\
tasks:
  - {name: first, action: core.echo, input: {message: "{{ kv.get('acceptance/where') }}"}, on_success: second}
  - name: second
    action: core.echo
    input: {message: "{{ kv.get('acceptance/none', default='nowhere') }}"}
    on_success: third
  - {name: third, action: core.echo, input: {message: "{{ kv.get('acceptance/none') }}"}}
"""
SECRET = """\
tasks:
  - name: use
    action: core.shell
    delegate_to: web-1
    input:
      env: {TOKEN: "{{ kv.get_secret('acceptance/token') }}"}
      command: 'printf %s "$TOKEN" | sha256sum; echo "it is $TOKEN"'
"""
PACK = {
    "pack.yaml": "ref: kept\n",
    "config.yaml": "place: {default: here}\ncount: {type: integer, required: true}\ntoken: {secret: true}\n",
    "actions/tell.yaml": "runner: sh\nentry: tell.sh\nparameters: {place: {required: true}, token: {type: secret}}\n",
    "actions/tell.sh": 'printf %s "$token" | sha256sum\necho "$place and $token"\n',
    "workflows/ask.yaml": """\
ref: kept.ask
tasks:
  - {name: tell, action: kept.tell, input: {place: "{{ pack.config.place }}", token: "{{ pack.config.token }}"}}
output_map:
  place: "{{ pack.config.place }}"
  count: "{{ pack.config.count + 1 }}"
  said: "{{ task.tell.result.stdout }}"
""",
}


def put(running: Running, path: str, body: Any, **headers: str) -> int:
    return running.ask("PUT", f"/api/v1{path}", body, "author", **headers).status


def run(running: Running, text: str, role: str = "author") -> tuple[dict[str, Any], dict[str, Any]]:
    """The execution when it is over, and its tasks by name."""
    made = running.post("/workflow-executions", {"definition": text}, role)
    assert made.status == 201, made.data
    found = over(running, made.data["id"])
    tasks = running.get(f"/workflow-executions/{found['id']}/tasks").data["items"]
    return found, {one["task"]: one for one in tasks}


def test_S4_19_values_are_read_by_key_and_have_defaults(running: Running) -> None:
    assert put(running, "/kv/acceptance/where", {"value": {"rack": 7}}) in (200, 201)
    found, tasks = run(running, VALUES)
    assert tasks["first"]["result"]["message"] == {"rack": 7}
    assert tasks["second"]["result"]["message"] == "nowhere"
    assert (tasks["third"]["status"], tasks["third"]["error"]["type"]) == ("failed", "template")
    assert found["status"] == "failed"


def test_S4_19_secrets_are_for_those_who_may_use_them_and_never_shown(running: Running) -> None:
    token = f"S4-{secrets.token_hex(12)}"
    given = {"value": token, "users": ["author"]}
    assert put(running, "/secrets/acceptance/token", given) in (200, 201)
    found, tasks = run(running, SECRET)
    assert found["status"] == "completed"
    said = tasks["use"]["result"]["stdout"].splitlines()
    assert said[0].split()[0] == hashlib.sha256(token.encode()).hexdigest()
    assert said[1] == "it is ***"
    listed = running.ask("GET", "/api/v1/secrets").data
    assert "acceptance/token" in [one["name"] for one in listed["items"]]
    assert token not in json.dumps([listed, found, tasks])

    assert put(running, "/secrets/acceptance/token", {"value": token, "users": ["admin"]}) == 200
    found, tasks = run(running, SECRET)
    assert (found["status"], tasks["use"]["error"]["type"]) == ("failed", "secret")
    assert running.get("/secrets").status == 403


def test_S4_17_the_configuration_of_the_pack_is_a_scope(running: Running) -> None:
    token = f"S4-{secrets.token_hex(12)}"
    put(running, "/secrets/kept/token", {"value": token})
    assert running.post("/packs", {"files": PACK}, "author").status == 201
    lacking = running.post("/workflows/kept.ask/execute", {})
    assert (lacking.status, lacking.data["code"]) == (409, "pack-not-configured")
    tag = running.get("/packs/kept/config").headers["ETag"]
    config = {"config": {"count": 41, "token": "kept/token"}}
    assert put(running, "/packs/kept/config", config, If_Match=tag) == 200
    made = running.post("/workflows/kept.ask/execute?wait=60", {}).data
    found = over(running, made["id"])
    assert (found["output"]["place"], found["output"]["count"]) == ("here", 42)
    said = found["output"]["said"].splitlines()
    assert said[0].split()[0] == hashlib.sha256(token.encode()).hexdigest()
    assert said[1] == "here and ***"
