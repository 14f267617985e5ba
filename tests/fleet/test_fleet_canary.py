"""Secrets through every feature that may hold one, on a real fleet; then they are looked for everywhere."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import canary_fleet
import pytest
from canary_fleet import NODES, WORKFLOWS, Mine, digest, found_in, node_files, places
from waiting import wait_until

from app.services import keyring, rotation
from app.services.control import Control
from app.settings import Settings

pytestmark = pytest.mark.fleet


@pytest.fixture(scope="module")
def mine() -> Iterator[Mine]:
    with canary_fleet.running() as found:
        yield found


def test_no_value_is_anywhere_but_where_it_is_used(mine: Mine) -> None:
    hold, flag = mine.fleet.directory / "hold", mine.fleet.directory / "flag"
    url = f"http://127.0.0.1:{mine.server.server_address[1]}/"
    main = mine.start("main", token=mine.token, url=url, hold=str(hold))
    wait_until(lambda: "***" in mine.stdout_live(main), lambda: mine.fleet.story(main))
    hits, looked = found_in(mine, places(mine))
    assert (hits, looked > 100) == ([], True)
    # While it runs there are the files that the script reads and writes, and no others: the search finds what there is.
    hits, _ = found_in(mine, node_files(mine.fleet))
    assert {Path(hit.partition(": ")[0]).name for hit in hits} == {"input.json", "output.json"}
    hold.touch()
    row = mine.fleet.wait_for(main)
    assert row.status == "completed", mine.fleet.story(main)
    _check_main(mine, main, row.output)

    again = mine.start("again", token=mine.token, flag=str(flag))
    assert mine.fleet.wait_for(again).status == "failed"
    flag.touch()
    assert mine.api.post(f"/workflow-executions/{again}/retry", {}).status == 202
    assert mine.fleet.wait_for(again).status == "completed", mine.fleet.story(again)
    assert mine.stdout(again, "work").count(digest(mine.token)) == 2

    long = mine.start("long")
    mine.fleet.job_is(long, "work", "running")
    wait_until(lambda: "***" in mine.stdout_live(long), lambda: mine.fleet.story(long))
    mine.fleet.cancel(long)
    assert mine.fleet.wait_for(long).status == "cancelled"

    words = "{{ kv.get_secret('canary/one') }}"
    answer = mine.api.post("/nodes/web-1/execute", {"command": ["echo", words]})
    assert answer.data["stdout"] == f"{words}\n"

    hits, looked = found_in(mine, places(mine))
    assert (hits, looked > 100) == ([], True)
    hits, looked = found_in(mine, node_files(mine.fleet))
    assert (hits, looked > 20) == ([], True)


def _check_main(mine: Mine, main: str, output: Any) -> None:
    """Every script had the values: it says their digests."""
    one, token = digest(mine.one), digest(mine.token)
    lines = mine.stdout(main, "process").splitlines()
    assert [line.split()[0] for line in lines[:5]] == [one, one, one, token, one]
    assert lines[5:] == ["<***|***>", "***"]
    assert output["got"] == "***"
    assert output["who"] == "ada"
    assert mine.stdout(main, "fan").count(one) == 2
    assert mine.stdout(main, "loop").count(token) == 2
    assert mine.stdout(main, "pieces") == f"{one}  -\n***\n" * 2
    assert mine.server.got == [(token, one)]
    assert output["http"]["token"] == "Bearer ***"
    (child,) = mine.api.get(f"/workflow-executions/{main}").data["children"]
    mine.executions.append(child)
    assert output["child"]["said"].split() == [token, "-", one, "-", "******"]


def test_a_journal_forgets_the_orders_of_jobs_with_secrets(mine: Mine) -> None:
    kept = {}
    for node in NODES:
        with closing(sqlite3.connect(mine.fleet.directory / "nodes" / node / "journal.db")) as journal:
            for job, status, canvas in journal.execute("SELECT job, status, canvas FROM jobs"):
                assert status == "ended"
                kept[job.split(".")[1]] = bool(json.loads(canvas)["token"])
    assert kept["process"] is kept["loop"] is kept["work"] is False
    assert kept["run"] is True


def test_each_use_is_in_the_audit_trail(mine: Mine) -> None:
    entries = mine.api.ask("GET", "/api/v1/audit?action=secret.use&limit=200", None, "admin").data["items"]
    used = [entry for entry in entries if entry["outcome"] == "accepted"]
    assert {entry["subject"] for entry in used} == {"canary/one"}
    assert {entry["person"] for entry in used} == {"operator"}
    tasks = {entry["detail"]["task"] for entry in used}
    assert tasks == {"process", "fan", "pieces", "http", "work"}
    assert {entry["detail"]["version"] for entry in used} == {1}


@pytest.mark.parametrize(
    ("users", "says"),
    [(["author"], "operator may not use the secret canary/two"), (None, "there is no secret canary/two")],
)
def test_a_secret_that_cannot_be_had_fails_the_job_before_anything_is_sent(
    mine: Mine, users: list[str] | None, says: str
) -> None:
    path = "/api/v1/secrets/canary/two"
    if users is None:
        assert mine.api.ask("DELETE", path, None, "author").status == 204
    else:
        assert mine.api.ask("PUT", path, {"value": "precious", "users": users}, "author").status == 200
    text = WORKFLOWS["long"].replace("canary/one", "canary/two").replace("canary.long", "canary.two")
    mine.api.post("/packs/canary/workflows", {"definition": text}, role="author")
    execution = mine.start("two")
    assert mine.fleet.wait_for(execution).status == "failed"
    (job,) = mine.fleet.jobs(execution)
    assert job.error == {"type": "secret", "message": says}
    assert job.dispatched_at is None


def test_a_secret_is_given_on_to_a_secret_parameter_only(mine: Mine) -> None:
    execution = mine.start("wrong")
    assert mine.fleet.wait_for(execution).status == "failed"
    error = mine.fleet.tasks(execution)["call"].error
    assert error["type"] == "child"
    assert "canary.plain may not have a secret in `one`" in error["message"]
    assert mine.api.get(f"/workflow-executions/{execution}").data["children"] == []


def test_rotation_under_a_running_fleet(mine: Mine) -> None:
    control = Control(Settings(data_dir=str(mine.fleet.directory)), mine.fleet.store)
    path = control.settings.secret_keys_path
    before = keyring.read(control.settings)

    # As an earlier rotation leaves it that was killed right after it had added its key.
    keyring.add(path)
    done = rotation.rotate(control, "admin")
    keys = keyring.read(control.settings)
    assert (done.added, done.unreadable, done.idle) == (False, 0, before.ids)
    assert keys.texts[1:] == before.texts
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_text(keys.texts[0] + "\n")
    flag = mine.fleet.directory / "flag"
    flag.touch()
    execution = mine.start("again", token=mine.token, flag=str(flag))
    assert mine.fleet.wait_for(execution).status == "completed"
    assert mine.stdout(execution, "work").startswith(digest(mine.token))


def test_a_retry_after_a_rotation_has_the_value_of_before(mine: Mine) -> None:
    control = Control(Settings(data_dir=str(mine.fleet.directory)), mine.fleet.store)
    flag = mine.fleet.directory / "flag-2"
    execution = mine.start("again", token=mine.token, flag=str(flag))
    assert mine.fleet.wait_for(execution).status == "failed"
    done = rotation.rotate(control, "admin")
    assert done.added
    control.settings.secret_keys_path.write_text(keyring.read(control.settings).texts[0] + "\n")
    flag.touch()
    assert mine.api.post(f"/workflow-executions/{execution}/retry", {}).status == 202
    assert mine.fleet.wait_for(execution).status == "completed", mine.fleet.story(execution)
