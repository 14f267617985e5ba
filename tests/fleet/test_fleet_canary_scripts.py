"""Secrets of saved scripts, of their approvals and of schedules; then they are looked for everywhere."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import canary_fleet
import pytest
from canary_fleet import Mine, digest, found_in, node_files, places
from sqlalchemy import select, update
from waiting import wait_until

from app.store.tables import Approval, Notification, Schedule, table

pytestmark = [pytest.mark.long, pytest.mark.fleet]

approvals, notifications, schedules = table(Approval), table(Notification), table(Schedule)

SCRIPT: dict[str, Any] = {
    "name": "canary",
    "shell": "sh",
    "body": 'printf %s "$password" | sha256sum\necho "$password"\necho "$password" >&2\ntest -e "$flag"\n',
    "parameters": [
        {"name": "password", "type": "secret", "required": True},
        {"name": "flag", "type": "string", "required": True},
    ],
}
HOSTS = ["web-1", "web-2"]


@pytest.fixture(scope="module")
def mine() -> Iterator[Mine]:
    with canary_fleet.running() as found:
        for name, more in (("canary", {}), ("gated", {"requires_approval": True})):
            answer = found.api.post("/automation/scripts", {**SCRIPT, "name": name, **more}, "author")
            assert answer.status == 201, answer.data
        yield found


def execute(mine: Mine, script: str, flag: Path) -> str:
    body = {"host_ids": HOSTS, "parameter_values": {"password": mine.token, "flag": str(flag)}}
    answer = mine.api.post(f"/automation/scripts/{script}/execute", body, Idempotency_Key=script)
    assert answer.status == 201, answer.data
    mine.executions.append(answer.data["id"])
    return str(answer.data["id"])


def check_hosts(mine: Mine, execution: str, value: str) -> None:
    for host in mine.api.get(f"/automation/executions/{execution}").data["hosts"]:
        assert host["stdout"] == f"{digest(value)}  -\n***\n"
        assert host["stderr"] == "***\n"


def all_places(mine: Mine) -> Iterator[tuple[str, bytes]]:
    """With what the automation routes tell."""
    yield from places(mine)
    paths = [
        "/automation/executions",
        "/automation/approvals",
        "/automation/schedules",
        "/automation/scripts",
    ]
    for execution in mine.executions:
        paths += [f"/automation/executions/{execution}{query}" for query in ("", "?fold=output")]
        for job in mine.fleet.jobs(execution):
            paths.append(f"/workflow-executions/{execution}/jobs/{job.id}/plan")
    paths += [
        f"/automation/approvals/{one['id']}" for one in mine.api.get("/automation/approvals").data["items"]
    ]
    for path in paths:
        yield path, json.dumps(mine.api.get(path).data).encode()


def check_nowhere(mine: Mine) -> None:
    hits, looked = found_in(mine, all_places(mine))
    assert (hits, looked > 100) == ([], True)
    hits, looked = found_in(mine, node_files(mine.fleet))
    assert (hits, looked > 5) == ([], True)


def test_a_saved_script_and_its_retry(mine: Mine) -> None:
    flag = mine.fleet.directory / "flag-saved"
    execution = execute(mine, "canary", flag)
    assert mine.fleet.wait_for(execution).status == "failed"
    check_hosts(mine, execution, mine.token)
    flag.touch()
    assert mine.api.post(f"/automation/executions/{execution}/retry", {}).status == 202
    assert mine.fleet.wait_for(execution).status == "completed", mine.fleet.story(execution)
    check_hosts(mine, execution, mine.token)
    check_nowhere(mine)


def test_an_approval_of_one(mine: Mine) -> None:
    flag = mine.fleet.directory / "flag-gated"
    flag.touch()
    execution = execute(mine, "gated", flag)
    (asked,) = mine.api.get("/automation/approvals?status=pending").data["items"]
    with mine.fleet.store.read() as connection:
        subject = connection.execute(select(approvals.c.subject)).scalar_one()
        assert connection.execute(select(notifications.c.id)).all()
    assert '"secrets":{"parameter:password"' in subject
    check_nowhere(mine)
    answer = mine.api.post(f"/automation/approvals/{asked['id']}/approve", {}, "approver")
    assert answer.status == 200, answer.data
    assert mine.fleet.wait_for(execution).status == "completed", mine.fleet.story(execution)
    check_hosts(mine, execution, mine.token)
    check_nowhere(mine)


def test_a_schedule_with_a_kept_one(mine: Mine) -> None:
    flag = mine.fleet.directory / "flag-scheduled"
    flag.touch()
    body = {
        "name": "canaries",
        "script": "canary",
        "host_ids": HOSTS,
        "parameters": {"password": {"secret": "canary/one"}, "flag": str(flag)},
        "cron": "0 0 1 1 *",
    }
    as_value = {**body, "parameters": {**body["parameters"], "password": mine.one}}
    assert mine.api.post("/automation/schedules", as_value).status == 422
    assert mine.api.post("/automation/schedules", body).status == 201
    now = time.time() // 60 * 60
    with mine.fleet.store.write() as connection:
        connection.execute(update(schedules).values(next_run=now, due_at=now))

    def fired() -> Any:
        return mine.api.get("/automation/schedules/canaries").data["last_execution"]

    execution = str(wait_until(fired, lambda: mine.fleet.log("control")))
    mine.executions.append(execution)
    assert mine.fleet.wait_for(execution).status == "completed", mine.fleet.story(execution)
    check_hosts(mine, execution, mine.one)
    check_nowhere(mine)
