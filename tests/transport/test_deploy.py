"""Deploy plans: the two kinds that there are, and everything else refused at the door of a node."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from planned_jobs import planned

from app.node.requests import job as read_request
from app.node.told import told
from app.transport import deploy, filenames, sealing
from app.transport.keys import KeyPair
from app.transport.messages import READABLE_VERSIONS, BadMessage, Job, Order, canonical
from app.transport.sealing import Refused

BAD = yaml.safe_load((Path(__file__).parents[1] / "cases" / "transport" / "deploy_bad.yaml").read_text())
NAMES: dict[str, Any] = {"id": "e.t.0.1", "execution": "e", "task": "t", "unit": 0, "attempt": 1}
CONTROL, NODE = KeyPair.generate(), KeyPair.generate()
NOW = 1_800_000_000.0


def job(**fields: Any) -> Job:
    return planned(**NAMES, action="core.shell", **fields)


@pytest.mark.parametrize("case", BAD, ids=[case["name"] for case in BAD])
def test_a_plan_that_is_anything_else_is_a_bad_message(case: dict[str, Any]) -> None:
    data = job(script="id").to_json()
    data.update({name: case[name] for name in ("files", "commands") if name in case})
    with pytest.raises(BadMessage) as refused:
        Job.from_json(data)
    assert case["message"] in refused.value.message


@pytest.mark.parametrize("name", ["files", "commands"])
def test_a_job_without_a_plan_is_a_bad_message(name: str) -> None:
    data = job(script="id").to_json()
    del data[name]
    with pytest.raises(BadMessage):
        Job.from_json(data)


def test_the_plan_of_a_script_has_the_shape_that_was_asked_for() -> None:
    message = job(script="echo hi\n", shell="bash", timeout=30.0)
    data = json.loads(canonical(message.to_json()))
    assert data["files"] == [{"path": "script", "content": "echo hi\n", "mode": 0o700}]
    assert data["commands"] == [
        {
            "argv": ["bash", "script"],
            "timeout": 30.0,
            "ignore_errors": False,
            "description": "run the script by bash",
        },
        {
            "argv": ["rm", "-f", "script"],
            "timeout": 10.0,
            "ignore_errors": True,
            "description": "remove the script",
        },
    ]
    again = Job.from_json(data)
    assert (again, again.digest) == (message, message.digest)
    assert (again.script, again.shell, again.argv, again.timeout) == ("echo hi\n", "bash", None, 30.0)


def test_the_plan_of_a_program_is_one_command() -> None:
    data = json.loads(canonical(job(argv=("ls", "-l")).to_json()))
    assert data["files"] == []
    assert [command["argv"] for command in data["commands"]] == [["ls", "-l"]]
    again = Job.from_json(data)
    assert (again.argv, again.script, again.shell, again.timeout) == (("ls", "-l"), None, "", None)


def test_a_script_may_be_left_where_it_is() -> None:
    data = job(script="id").to_json()
    data["commands"] = data["commands"][:1]
    assert told(Job.from_json(data))["cleanup"] is False


@pytest.mark.parametrize("name", ["content", "argv", "timeout", "mode"])
def test_every_part_of_a_plan_is_under_the_digest(name: str) -> None:
    plain = job(script="id", timeout=5.0)
    file, first = plain.files[0], plain.commands[0]
    other = {
        "content": replace(plain, files=(replace(file, content="id; id"),)),
        "argv": replace(plain, commands=(replace(first, argv=("bash", "script")), *plain.commands[1:])),
        "timeout": replace(plain, commands=(replace(first, timeout=6.0), *plain.commands[1:])),
        "mode": replace(plain, files=(replace(file, mode=0o500),)),
    }
    assert other[name].digest != plain.digest


def test_names_of_files() -> None:
    for name in ("script", "script.ps1", "script.cmd", "a-b_c.x1", "0"):
        assert filenames.is_file_name(name)
    for name in (*filenames.OWN_NAMES, "", ".", "..", "a.b.c", ".hidden", "A", "a b", "é", "a\n", None, b"a"):
        assert not filenames.is_file_name(name)


OF_VERSION_1: dict[str, Any] = {
    **NAMES,
    "action": "core.shell",
    "argv": None,
    "script": "echo hi",
    "shell": "bash",
    "env": {"A": "b"},
    "cwd": None,
    "stdin": None,
    "input": None,
    "timeout": 5.0,
    "grace": 10.0,
    "output_limit": 1000,
    "ok_codes": [0],
    "trace_id": "",
}
"""A job as it was told to nodes before there were deploy plans."""


def order_of_version_1(**changed: Any) -> str:
    data = {**OF_VERSION_1, **changed}
    order = Order("o1", "inst", "web-1", "ep1", "run", NOW, NOW + 300, jobs=(job(script="id"),))
    digest = hashlib.sha256(canonical(data)).hexdigest()
    claims = {**order.to_json(), "jobs": [data], "digests": [digest], "order_version": 1}
    return sealing._bounded(
        sealing.jose.seal(sealing._sign(claims, sealing.ORDER_TYPE, CONTROL), NODE.public_keys.seal),
        1 << 20,
        "",
    )


def opened(token: str, **more: Any) -> Order:
    place: dict[str, Any] = {"installation": "inst", "node": "web-1", "epoch": "ep1", "now": NOW + 1}
    return sealing.open_order(token, NODE, [CONTROL.public_keys], **place, **more)


def test_an_order_of_version_1_is_refused_as_it_comes() -> None:
    with pytest.raises(Refused) as refused:
        opened(order_of_version_1())
    assert refused.value.code == "unknown-version"


@pytest.mark.parametrize(
    ("changed", "runs"),
    [
        ({}, ("echo hi", "bash", None, 5.0)),
        ({"script": None, "argv": ["ls", "-l"], "timeout": None}, (None, "", ("ls", "-l"), None)),
    ],
)
def test_an_order_of_version_1_out_of_the_journal_keeps_its_digest(
    changed: dict[str, Any], runs: Any
) -> None:
    (found,) = opened(order_of_version_1(**changed), versions=READABLE_VERSIONS).jobs
    assert found.digest == hashlib.sha256(canonical({**OF_VERSION_1, **changed})).hexdigest()
    assert (found.script, found.shell, found.argv, found.timeout) == runs
    assert (found.env, found.output_limit) == ({"A": "b"}, 1000)


@pytest.mark.parametrize(
    "changed",
    [
        {"argv": ["ls"]},
        {"script": None},
        {"argv": "ls", "script": None},
        {"script": 7},
        {"shell": 7},
        {"env": 7},
    ],
)
def test_nonsense_of_version_1_is_refused_too(changed: dict[str, Any]) -> None:
    with pytest.raises(Refused) as refused:
        opened(order_of_version_1(**changed), versions=READABLE_VERSIONS)
    assert refused.value.code == "malformed"


@pytest.mark.parametrize("message", [job(script="id", shell="zsh", timeout=3.0), job(argv=("ls",))])
def test_a_runner_that_is_older_than_its_worker_understands_what_it_is_told(message: Job) -> None:
    """It lives through the upgrade of the worker, and looks for these fields."""
    flat = told(message)
    assert (flat["argv"], flat["script"], flat["shell"], flat["timeout"]) == (
        message.argv,
        message.script,
        message.shell,
        message.timeout,
    )
    rest = {"env", "cwd", "stdin", "input", "grace", "output_limit", "ok_codes", "id", "trace_id"}
    assert rest <= flat.keys()
    assert read_request(json.loads(json.dumps(flat)))["file"] == (
        message.files[0].path if message.files else "script"
    )


def test_a_worker_that_is_older_than_the_runner_is_understood() -> None:
    found = read_request(dict(OF_VERSION_1))
    assert (found["file"], found["mode"], found["cleanup"]) == ("script", 0o500, False)


def test_the_plans_that_are_made_are_plans_that_are_read() -> None:
    for shell in ("sh", "bash", "zsh", "ksh", "dash", "python", "powershell", "cmd"):
        plan = deploy.of_script(shell, "id", 1.0)
        assert deploy.read(**plan.to_json()) == plan
