"""Seed 002 by its numbers: scripts and workflows by cron, on three nodes."""

from __future__ import annotations

import json
import time
from datetime import datetime
from typing import Any

import pytest
from running import Running
from sqlalchemy import insert
from waiting import wait_until

from app.store.db import Store
from app.store.tables import Script, ScriptVersion, table

pytestmark = [pytest.mark.fleet, pytest.mark.timeout(300)]

SCRIPT = "01J0000000000000000SCHED00"
BODY = 'echo "$MUSTER_NODE ${word}" >> "${place}"\n'
MINUTE = 75.0
"""Seconds within which a minute begins, and something has run."""


@pytest.fixture(scope="module")
def scripted(running: Running) -> Running:
    """With a saved script that writes into a file of the test's, as the library keeps it."""
    now = time.time()
    script = {
        "id": SCRIPT,
        "name": "note",
        "timeout": 60.0,
        "updated_by": "author",
        "created_at": now,
        "updated_at": now,
    }
    version = {
        "script_id": SCRIPT,
        "version": 1,
        "shell": "sh",
        "body": BODY,
        "parameters": [
            {"name": "word", "type": "string", "required": True},
            {"name": "place", "type": "string", "required": True},
        ],
        "digest": "0" * 64,
        "created_at": now,
    }
    store = Store(running.environment().get("DATABASE_URL") or f"sqlite:///{running.data / 'muster.db'}")
    with store.write() as connection:
        connection.execute(insert(table(Script)).values(script))
        connection.execute(insert(table(ScriptVersion)).values(version))
    store.close()
    return running


def note(running: Running, name: str, **more: Any) -> dict[str, Any]:
    place = str(running.effects / name)
    return {
        "name": name,
        "script": "note",
        "host_ids": ["web-1", "web-2"],
        "parameters": {"word": "hello", "place": place},
        "cron": "* * * * *",
        **more,
    }


def test_S2_17_a_schedule_is_a_script_hosts_and_five_fields_that_are_looked_at_first(
    scripted: Running,
) -> None:
    body = note(scripted, "checked", cron="0 3 * * 1-5", zone="Europe/Berlin")
    for change, pointer in (
        ({"cron": "0 0 3 * * *"}, "/cron"),
        ({"cron": "R 3 * * *"}, "/cron"),
        ({"cron": "@reboot"}, "/cron"),
        ({"cron": "0 0 30 2 *"}, "/cron"),
        ({"zone": "Europe/Nowhere"}, "/zone"),
        ({"script": "nothing"}, "/script"),
        ({"host_ids": ["web-1", "web-77"]}, "/host_ids/1"),
        ({"parameters": {"word": "hello"}}, "/parameters/place"),
    ):
        refused = scripted.post("/automation/schedules", {**body, **change})
        pointers = [one["pointer"] for one in refused.data["errors"]]
        assert (refused.status, pointers) == (422, [pointer]), refused.data
    assert scripted.get("/automation/schedules").data["items"] == []
    made = scripted.post("/automation/schedules", body)
    assert made.status == 201, made.data
    assert (made.data["script"], made.data["host_ids"], made.data["owner"]) == (
        SCRIPT,
        ["web-1", "web-2"],
        "operator",
    )
    told = scripted.get("/automation/schedules/checked/next").data["items"]
    assert len(told) == 5
    assert {datetime.fromisoformat(one["local"]).strftime("%H:%M") for one in told} == {"03:00"}
    assert {datetime.fromisoformat(one["local"]).isoweekday() for one in told} <= {1, 2, 3, 4, 5}
    assert {one["local"][-6:] for one in told} <= {"+01:00", "+02:00"}


@pytest.mark.long
def test_S2_18_it_fires_as_its_time_comes_tells_of_it_and_is_disabled_in_place(scripted: Running) -> None:
    place = scripted.effects / "minutely"
    named = ["--on", "web-1,web-2", "-p", "word=hello", "-p", f"place={place}"]
    made = scripted.muster(
        "schedule", "add", "minutely", "--script", "note", "--cron", "* * * * *", *named, role="operator"
    )
    assert (made.returncode, made.stdout[:18]) == (0, "schedule=minutely "), made.stderr
    due = scripted.get("/automation/schedules/minutely").data["next_run"]

    def over() -> Any:
        found = scripted.get("/automation/schedules/minutely").data
        return found if found["last_status"] in ("succeeded", "failed") else None

    found = wait_until(over, lambda: scripted.get("/automation/schedules/minutely").data)
    paused = scripted.muster("schedule", "pause", "minutely", role="operator")
    assert (paused.returncode, paused.stdout) == (0, "schedule=minutely paused\n")
    assert (found["last_status"], found["last_reason"]) == ("succeeded", "")
    assert 0 <= (datetime.fromisoformat(found["last_run"]) - datetime.fromisoformat(due)).total_seconds() < 55
    ticks = scripted.get("/automation/schedules/minutely/history").data["items"]
    assert [(one["fire_time"], one["status"], one["execution"]) for one in ticks] == [
        (due, "fired", found["last_execution"])
    ]
    assert sorted(place.read_text().split("\n")) == ["", "web-1 hello", "web-2 hello"]
    held = scripted.get("/automation/schedules/minutely").data
    assert (held["enabled"], held["next_run"], held["last_execution"]) == (
        False,
        None,
        found["last_execution"],
    )
    before = time.time()
    resumed = json.loads(scripted.muster("schedule", "resume", "minutely", "--json", role="operator").stdout)
    assert datetime.fromisoformat(resumed["next_run"]).timestamp() > before
    assert scripted.muster("schedule", "delete", "minutely", role="operator").stdout == "deleted: minutely\n"
    assert scripted.get(f"/automation/executions/{found['last_execution']}").data["status"] == "succeeded"


def test_S2_18_the_command_line_shows_what_there_is(scripted: Running) -> None:
    shown = scripted.muster(
        "schedule", "next", "--cron", "30 2 * * *", "--zone", "UTC", "--count", "2", role="viewer"
    )
    lines = shown.stdout.splitlines()
    assert (lines[0].split(), len(lines)) == (["local", "utc"], 3)
    assert all("T02:30:00+00:00" in line for line in lines[1:])
    refused = scripted.muster("schedule", "next", "--cron", "30 2 * *", role="viewer")
    assert (refused.returncode, "4 fields" in refused.stderr) == (2, True)
    listed = scripted.muster("schedule", "list", role="viewer")
    assert listed.returncode == 0, listed.stderr
    assert listed.stdout.split()[:4] == ["name", "runs", "cron", "zone"]
