"""The allowlist over the API: a refusal leaves nothing but its audit entry; what passes is told before it runs."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest
from allow_cases import BYPASS, PASSES, SHIPPED, named, policy_text
from guarded_world import Guarded

from app.api import create_app


def definition(given: dict[str, Any]) -> dict[str, Any]:
    action = "core.script" if "script" in given else "core.shell"
    return {"tasks": [{"name": "a", "action": action, "input": given}]}


@pytest.mark.parametrize("case", BYPASS, ids=named)
def test_no_way_around_is_stored(case: dict[str, Any], guarded: Guarded) -> None:
    guarded.allow(policy_text(case))
    before = guarded.world.counts()
    answer = guarded.post(definition(case["input"]))
    problem = answer.get_json()
    assert answer.status_code in (400, 403, 422), answer.text
    assert problem["detail"]
    assert guarded.world.counts() == before
    if answer.status_code == 403:
        assert problem["code"] == "not-allowed"
        assert "task a may not run" in problem["detail"]
        assert "muster allowlist test" in problem["hint"]
        entry = guarded.trail("execution.submit", 1)[0]
        assert (entry["outcome"], entry["person"]) == ("refused", "author")
        assert entry["detail"]["origin"] == "inline"
        assert entry["detail"]["commands"][0]["task"] == "a"


@pytest.mark.parametrize("case", PASSES, ids=named)
def test_honest_commands_are_accepted(case: dict[str, Any], guarded: Guarded) -> None:
    guarded.allow(policy_text(case))
    answer = guarded.post(definition(case["input"]))
    assert answer.status_code == 201, answer.text
    entry = guarded.trail("execution.submit", 1)[0]
    assert (entry["outcome"], entry["subject"]) == ("accepted", answer.get_json()["id"])
    told = entry["detail"]["commands"][0]
    command = case["input"].get("command")
    if isinstance(command, list):
        assert told == {"task": "a", "nodes": "local", "argv": command}
    else:
        assert told["script"].startswith("sha256:")
        assert told["head"] == case["input"].get("script", command)
    assert entry["detail"]["verdict"] == "allowed"


RM = definition({"command": ["rm", "-rf", "/srv/x"]})


def test_stored_workflows_are_not_held_to_it(guarded: Guarded) -> None:
    """Who may store one may say what runs; who may only execute cannot bring their own."""
    guarded.allow(SHIPPED)
    world = guarded.world
    stored = world.post("/packs/demo/workflows", {"definition": {"ref": "demo.clean", **RM}}, "author")
    assert stored.status_code == 201, stored.text
    assert world.post("/workflows/demo.clean/execute", {}, "operator").status_code == 201
    assert guarded.post(RM, "author").get_json()["code"] == "not-allowed"
    assert guarded.post(RM, "admin").get_json()["code"] == "not-allowed"
    for role in ("operator", "viewer"):
        assert guarded.post(definition({"command": ["uptime"]}), role).get_json()["code"] == "role-required"


@pytest.fixture(scope="module")
def staffed(guarded: Guarded) -> Guarded:
    """With a node that stays online."""
    guarded.world.add_node("web-1", last_seen=time.time() + 3600)
    return guarded


@pytest.mark.parametrize(
    "body",
    [
        {"command": ["rm", "-rf", "/srv/x"]},
        {"command": ["uptime", "{{ x }}"]},
        {"command": ["uptime"], "cwd": "/{{ x }}"},
        {"command": "{{ x }}"},
        {"script": "uptime"},
    ],
    ids=str,
)
def test_a_command_is_judged_whole_when_it_is_handed_in(staffed: Guarded, body: dict[str, Any]) -> None:
    """Braces in a command are no templates: there is nothing to wait for."""
    staffed.allow(SHIPPED)
    before = staffed.world.counts()
    for path, where in (("/nodes/web-1/execute", {}), ("/nodes/execute", {"nodes": ["web-1"]})):
        answer = staffed.world.post(path, {**where, **body}, "operator")
        assert (answer.status_code, answer.get_json()["code"]) == (403, "not-allowed"), answer.text
        assert staffed.trail("execution.submit", 1)[0]["detail"]["origin"] == "adhoc"
    assert staffed.world.counts() == before


def test_watched_only_it_runs_and_is_told(guarded: Guarded) -> None:
    guarded.allow(SHIPPED.replace("mode: enforce", "mode: audit"))
    accepted = guarded.post(RM)
    assert accepted.status_code == 201
    entry = guarded.trail("execution.check", 1)[0]
    assert (entry["outcome"], entry["subject"]) == ("would_refuse", accepted.get_json()["id"])
    assert entry["detail"]["problems"] == [
        "task a may not run `rm -rf /srv/x`: no entry is for the program `rm`"
    ]
    assert guarded.trail("execution.submit", 1)[0]["detail"]["verdict"] == "would_refuse"
    guarded.allow(SHIPPED.replace("mode: enforce", "mode: off"))
    assert guarded.post(RM).status_code == 201
    assert guarded.trail("execution.check", 1)[0]["id"] == entry["id"]


def test_what_is_denied_is_refused_in_every_mode(guarded: Guarded) -> None:
    for mode in ("enforce", "audit", "off"):
        guarded.allow(SHIPPED.replace("mode: enforce", f"mode: {mode}").replace("deny: []", "deny: [rm]"))
        answer = guarded.post(RM)
        assert (answer.status_code, "is denied" in answer.get_json()["detail"]) == (403, True)


def test_a_broken_or_missing_file_allows_nothing_until_it_is_mended(guarded: Guarded) -> None:
    uptime = definition({"command": ["uptime"]})
    noop = {"tasks": [{"name": "a", "action": "core.noop"}]}
    guarded.allow(SHIPPED.replace("mode: enforce", "mode: off") + "\n  - {command: bash}\n")
    answer = guarded.post(uptime)
    assert answer.status_code == 403
    assert "allowlist.yaml:" in answer.get_json()["detail"]
    assert "bash can run any other program" in answer.get_json()["detail"]
    assert "allowlist.yaml:" in guarded.world.ask("GET", "/readyz").get_json()["checks"]["allowlist"]
    guarded.file.unlink()
    assert "No such file" in guarded.post(uptime).get_json()["detail"]
    assert guarded.post(noop).status_code == 201
    guarded.allow(SHIPPED)
    assert guarded.post(uptime).status_code == 201
    assert guarded.world.ask("GET", "/readyz").get_json()["checks"]["allowlist"] == "ok"


def test_the_setting_beats_the_file_and_must_be_a_mode(guarded: Guarded) -> None:
    guarded.allow(SHIPPED)
    world = guarded.world
    for mode, status in (("audit", 201), ("off", 201), ("enforce", 403), ("of", 403)):
        settings = replace(world.control.settings, allowlist_mode=mode)
        app = create_app(control=replace(world.control, settings=settings))
        headers = {"Authorization": f"Bearer {world.tokens['author']}"}
        answer = app.test_client().post(
            "/api/v1/workflow-executions", json={"definition": RM}, headers=headers
        )
        assert answer.status_code == status, mode
        if mode == "of":
            assert "MUSTER_ALLOWLIST_MODE='of' is none of" in answer.get_json()["detail"]


def test_every_task_is_looked_at(guarded: Guarded) -> None:
    """Children, finally tasks and fan-outs too; the first is named, the others counted."""
    guarded.allow(SHIPPED)
    child = {"name": "child", "action": "core.shell", "input": {"command": ["rm", "a"]}}
    spread = {"command": ["rm"], "nodes": ["web-1", "web-2"]}
    whole = {
        "tasks": [
            {"name": "fine", "action": "core.shell", "input": {"command": ["uptime"]}},
            {"name": "said", "action": "core.echo", "input": {"message": "-n\n$(id)"}},
            {"name": "block", "type": "parallel", "tasks": [child]},
            {"name": "spread", "type": "distributed_shell", "input": spread},
        ],
        "finally": [{"name": "last", "action": "core.script", "input": {"script": "rm x"}}],
    }
    answer = guarded.post(whole)
    detail = answer.get_json()["detail"]
    assert answer.status_code == 403
    assert "task child may not run `rm a`" in detail
    assert "(and 2 tasks more)" in detail
    commands = guarded.trail("execution.submit", 1)[0]["detail"]["commands"]
    assert [one["task"] for one in commands] == ["fine", "child", "spread", "last"]
    assert commands[2]["nodes"] == ["web-1", "web-2"]


def test_a_line_for_a_shell_is_told_how_to_be_a_command(guarded: Guarded) -> None:
    guarded.allow(SHIPPED)
    detail = guarded.post(definition({"command": "uptime -p"})).get_json()["detail"]
    assert "a list of words may match the entry of a program" in detail


def test_a_program_that_no_entry_names_is_refused_though_its_arguments_come_later(guarded: Guarded) -> None:
    guarded.allow(SHIPPED)
    answer = guarded.post(
        definition({"command": ["rm", "{{ parameters.x }}"]}) | {"parameters": {"x": {}}}, x="a"
    )
    assert (answer.status_code, answer.get_json()["code"]) == (403, "not-allowed")


def test_an_action_of_a_pack_was_registered_and_is_not_looked_at(guarded: Guarded) -> None:
    """Beside what is made up on the spot, which is."""
    guarded.allow(SHIPPED)
    files = {
        "pack.yaml": "ref: shop\n",
        "actions/wipe.yaml": "runner: sh\nentry: wipe.sh\nparameters: {what: {required: true}}\n",
        "actions/wipe.sh": 'rm -r -- "$what"\n',
    }
    assert guarded.world.post("/packs", {"files": files}, "author").status_code == 201
    task = {"name": "a", "action": "shop.wipe", "input": {"what": "/tmp/x"}}
    answer = guarded.post({"tasks": [task]})
    assert answer.status_code == 201, answer.text
    assert len(guarded.world.open_jobs(answer.get_json()["id"])) == 1
    refused = guarded.post(
        {"tasks": [task, {"name": "b", "action": "core.shell", "input": {"command": ["rm"]}}]}
    )
    assert refused.status_code == 403
    assert "task b may not run `rm`" in refused.get_json()["detail"]
