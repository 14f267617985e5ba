"""Values under keys, secrets and secret parameters: what is kept, what is shown, and that rows cannot be moved."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest
from api_world import World
from cryptography.fernet import Fernet
from sqlalchemy import select, update

from app import marks
from app.services import keyring, rotation, vault
from app.services.telling import Told
from app.services.vault import Asked, Opened, SecretRefused
from app.store.tables import Event, IdempotencyKey, KeyValue, Secret, SecretParameter, table
from app.transport import deploy
from app.transport.messages import Job

RUNS = "/api/v1/workflow-executions"
ONE = "/api/v1/kv/app/port"
SECRET = "/api/v1/secrets/db/password"
SECRET_PARAMETER = """
parameters: {pin: {type: secret, required: true}}
tasks:
  - name: a
    action: core.shell
    input:
      command: "true"
      env: {PIN: "{{ parameters.pin }}", DB: "{{ kv.get_secret('db/password') }}"}
"""
READS = """
vars: {port: "{{ kv.get('app/port') }}", host: "{{ kv.get('app/host', default='here') }}"}
tasks:
  - {name: a, action: core.noop, publish: {again: "{{ kv.get('app/port') + 1 }}"}, when: "{{ kv.get('app/on') }}"}
output_map:
  port: "{{ vars.port }}"
  host: "{{ vars.host }}"
  again: "{{ vars.again }}"
  last: "{{ kv.get('app/on') }}"
"""


def put(world: World, path: str, body: Any, **headers: str) -> Any:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return world.ask("PUT", path, "author", json=body, headers=given)


def asked(execution: str = "", requester: str = "operator", *allowed: str) -> Asked:
    return Asked(execution, "a", "job", requester, allowed)


def opened(world: World, asked_: Asked, reference: str) -> str:
    with world.control.store.write() as connection:
        return vault.open_each(world.control, connection, asked_, [reference]).values[reference]


def test_a_value_under_a_key(world: World) -> None:
    first = put(world, ONE, {"value": {"n": [1, None]}})
    assert (first.status_code, first.get_json()["revision"]) == (201, 1)
    tag = first.headers["ETag"]
    assert world.ask("GET", ONE).headers["ETag"] == tag
    assert world.ask("GET", ONE, headers={"If-None-Match": tag}).status_code == 304
    assert put(world, ONE, {"value": 1}, If_Match='"other"').status_code == 412
    assert put(world, ONE, {"value": 1}, If_None_Match="*").status_code == 412
    assert put(world, ONE, {"value": None}, If_Match=tag).get_json()["revision"] == 2
    assert world.get("/kv/app/port")["value"] is None
    assert world.ask("DELETE", ONE, "author", headers={"If-Match": tag}).status_code == 412
    assert world.ask("DELETE", ONE, "author").status_code == 204
    assert world.ask("GET", ONE).status_code == 404
    assert put(world, ONE, {"value": 1}, If_Match="*").status_code == 412


def test_keys_by_page_and_prefix_and_their_end(world: World) -> None:
    for key in ("a/1", "a/2", "A/3", "b"):
        assert put(world, f"/api/v1/kv/{key}", {"value": key}).status_code == 201
    page = world.get("/kv?prefix=a/&limit=1")
    assert [one["key"] for one in page["items"]] == ["a/1"]
    page = world.get(f"/kv?prefix=a/&limit=1&cursor={page['next_cursor']}")
    assert [one["key"] for one in page["items"]] == ["a/2"]
    assert page["next_cursor"] is None
    assert put(world, "/api/v1/kv/b", {"value": 1, "expires_in": 60}).get_json()["expires_at"]
    with world.control.store.write() as connection:
        kv = table(KeyValue)
        connection.execute(update(KeyValue).where(kv.c.key == "b").values(expires_at=1.0))
    assert world.ask("GET", "/api/v1/kv/b").status_code == 404
    assert {one["key"] for one in world.get("/kv")["items"]} == {"a/1", "a/2", "A/3"}
    assert put(world, "/api/v1/kv/b", {"value": 2}, If_None_Match="*").get_json()["revision"] == 1


def test_what_a_workflow_read_is_kept_with_the_event_that_read_it(world: World) -> None:
    put(world, ONE, {"value": 8080})
    put(world, "/api/v1/kv/app/on", {"value": True})
    execution = world.run(READS)
    found = world.get(f"/workflow-executions/{execution}")
    assert found["status"] == "completed", found
    assert found["output"] == {"port": 8080, "host": "here", "again": 8081, "last": True}
    events = table(Event)
    with world.control.store.read() as connection:
        rows = (
            connection.execute(select(events.c.data).where(events.c.execution == execution)).scalars().all()
        )
    assert [row.get("kv") for row in rows if "kv" in row] == [{"app/port": 8080, "app/on": True}]


def test_a_key_that_is_missing_fails_what_reads_it(world: World) -> None:
    execution = world.run("tasks: [{name: a, action: core.fail, input: {message: \"{{ kv.get('no') }}\"}}]")
    (row,) = world.get(f"/workflow-executions/{execution}/tasks")["items"]
    assert row["error"] == {"type": "template", "message": "a: `kv.get('no')` is undefined"}


def test_a_secret_is_set_listed_and_never_read(world: World) -> None:
    answer = put(world, SECRET, {"value": "s3cret-value", "users": ["operator", "admin"]})
    assert (answer.status_code, answer.get_json()["version"]) == (200, 1)
    assert answer.get_json()["warnings"] == []
    again = put(world, SECRET, {"value": "abc"}).get_json()
    assert (again["version"], again["users"]) == (2, [])
    assert "not masked" in again["warnings"][0]
    assert world.ask("GET", SECRET).status_code == 405
    listed = world.ask("GET", "/api/v1/secrets", "operator").get_json()["items"]
    assert [(one["name"], one["version"]) for one in listed] == [("db/password", 2)]
    trail = world.get("/audit?subject=db/password", "admin")["items"]
    assert [entry["action"] for entry in trail] == ["secret.put", "secret.put"]
    assert "s3cret" not in answer.text + json.dumps(trail) + json.dumps(listed)
    assert world.ask("DELETE", SECRET, "author").status_code == 204
    assert world.ask("DELETE", SECRET, "author").status_code == 404


@pytest.mark.parametrize(
    ("users", "who", "may"),
    [
        ([], "operator", True),
        ([], "viewer", False),
        ([], "nobody", False),
        (["operator"], "operator", True),
        (["operator"], "author", True),
        (["author"], "operator", False),
        (["author"], "admin", True),
        (["ada"], "admin", False),
    ],
)
def test_who_may_use_a_secret(world: World, users: list[str], who: str, may: bool) -> None:
    put(world, SECRET, {"value": "s3cret", "users": users})
    reference = "secret:db/password"
    if may:
        assert opened(world, asked("", who, reference), reference) == "s3cret"
        return
    with pytest.raises(SecretRefused, match="may not use"):
        opened(world, asked("", who, reference), reference)


def test_a_row_under_another_name_does_not_open(world: World) -> None:
    put(world, SECRET, {"value": "s3cret-one"})
    put(world, "/api/v1/secrets/other", {"value": "s3cret-two"})
    secrets = table(Secret)
    with world.control.store.write() as connection:
        stolen = connection.execute(
            select(secrets.c.ciphertext).where(secrets.c.name == "other")
        ).scalar_one()
        connection.execute(update(Secret).where(secrets.c.name == "db/password").values(ciphertext=stolen))
    with pytest.raises(SecretRefused, match="cannot be decrypted"):
        opened(world, asked("", "operator", "secret:db/password"), "secret:db/password")
    with pytest.raises(SecretRefused, match="not named by any template"):
        opened(world, asked("", "operator", "secret:db/password"), "secret:other")


def test_a_secret_parameter_is_kept_apart(world: World) -> None:
    put(world, SECRET, {"value": "s3cret-one"})
    body = {"definition": SECRET_PARAMETER, "parameters": {"pin": "4711-0815"}}
    answer = world.ask("POST", RUNS, "author", json=body, headers={"Idempotency-Key": "k"})
    assert answer.status_code == 201, answer.text
    execution = answer.get_json()["id"]
    assert answer.get_json()["parameters"] == {"pin": "secretref:parameter:pin"}
    again = world.ask("POST", RUNS, "author", json=body, headers={"Idempotency-Key": "k"})
    assert (again.status_code, again.get_json()["id"]) == (200, execution)
    keys = table(IdempotencyKey)
    with world.control.store.read() as connection:
        digest = connection.execute(select(keys.c.request_digest)).scalar_one()
    text = json.dumps({**body}, sort_keys=True, separators=(",", ":"))
    assert digest != hashlib.sha256(text.encode()).hexdigest()
    reference = "parameter:pin"
    assert opened(world, asked(execution, "author", reference), reference) == "4711-0815"
    with pytest.raises(SecretRefused, match="not there any more"):
        opened(world, asked("01J0000000000000000000000A", "author", reference), reference)

    rotation.rotate(world.control, "admin")
    other = world.ask("POST", RUNS, "author", json=body, headers={"Idempotency-Key": "k"})
    assert (other.status_code, other.get_json()["id"]) == (200, execution)


@pytest.mark.parametrize("value", ["", "x\ny" * 400, "x" * 40_000])
def test_what_cannot_be_a_secret(world: World, value: str) -> None:
    before = world.counts()
    body = {"definition": SECRET_PARAMETER, "parameters": {"pin": value}}
    answer = world.ask("POST", RUNS, "author", json=body)
    assert answer.status_code == 422
    assert answer.get_json()["errors"][0]["pointer"] == "/parameters/pin"
    assert put(world, SECRET, {"value": value}).status_code == 422
    assert world.counts() == before
    assert len(value) < 9 or value[:9] not in answer.text


def test_rotation(world: World) -> None:
    put(world, SECRET, {"value": "s3cret-one"})
    execution = world.ask(
        "POST",
        RUNS,
        "author",
        json={"definition": SECRET_PARAMETER, "parameters": {"pin": "4711-0815"}},
    ).get_json()["id"]
    before = keyring.read(world.control.settings)
    done = rotation.rotate(world.control, "admin")
    keys = keyring.read(world.control.settings)
    assert (done.added, done.rows, done.unreadable, done.idle) == (True, 2, 0, before.ids)
    assert keys.texts == [keys.texts[0], *before.texts]
    world.control.settings.secret_keys_path.write_text(keys.texts[0] + "\n")
    for reference, value in (("secret:db/password", "s3cret-one"), ("parameter:pin", "4711-0815")):
        assert opened(world, asked(execution, "author", reference), reference) == value


def test_rotation_where_a_row_cannot_be_read(world: World) -> None:
    put(world, SECRET, {"value": "s3cret-one"})
    world.control.settings.secret_keys_path.unlink()
    keyring.make(world.control.settings.secret_keys_path)
    put(world, "/api/v1/secrets/other", {"value": "s3cret-two"})
    done = rotation.rotate(world.control, "admin")
    assert (done.added, done.rows, done.unreadable, done.idle) == (False, 0, 1, [])


def test_keys_from_the_environment_are_not_added_to(world: World) -> None:
    one, two = (keyring.Keys([key], "").texts[0] for key in _two_keys())
    control = replace(world.control, settings=replace(world.control.settings, secret_keys=f"{two},{one}"))
    sealed = keyring.Keys([one], "").seal("secret:x", "s3cret-one")
    rows = {"name": "x", "ciphertext": sealed.ciphertext, "key_id": sealed.key_id, "users": [], "version": 1}
    with control.store.write() as connection:
        connection.execute(
            table(Secret).insert().values(**rows, updated_by="a", created_at=1.0, updated_at=1.0)
        )
    assert rotation.rotate(control, "admin").rows == 1
    with pytest.raises(Exception, match="not ours to change"):
        rotation.rotate(control, "admin")


def _two_keys() -> list[str]:

    return [Fernet.generate_key().decode() for _ in range(2)]


def test_what_is_judged_is_what_the_process_will_have() -> None:
    plan = deploy.of_command(("env",))
    job = Job("j", "e", "a", 0, 1, "core.shell", *plan, env={"PATH": marks.mark("secret:path")})
    told = Told(job, job.digest, Opened({"secret:path": "/evil"}))
    assert told.placed.env == {"PATH": "/evil"}
    assert told.message.env == {"PATH": marks.mark("secret:path")}
    assert "/evil" not in repr(told)


def test_a_lost_key_file_is_not_made_anew(world: World) -> None:
    put(world, SECRET, {"value": "s3cret-one"})
    world.control.settings.secret_keys_path.unlink()
    with pytest.raises(Exception, match="is not here"):
        rotation.ensure(world.control)


def test_a_parameter_that_looks_like_a_mark_is_shown_harmless(world: World) -> None:
    text = 'parameters: {p: {}}\ntasks: [{name: a, action: core.noop, publish: {x: "{{ parameters.p }}"}}]\n'
    body = json.dumps({"definition": text, "parameters": {"p": marks.mark("secret:db/password")}})
    answer = world.ask("POST", RUNS, "author", data=body, content_type="application/json")
    execution = answer.get_json()["id"]
    found = world.get(f"/workflow-executions/{execution}")
    assert found["variables"] == {"x": "\ufffdsecret:db/password\ufffd"}
    assert marks.OPEN not in json.dumps(found, ensure_ascii=False)
    with world.control.store.read() as connection:
        assert connection.execute(select(table(SecretParameter))).first() is None
