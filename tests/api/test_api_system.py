"""How the server does, and the documents that describe it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from api_world import HELLO, ROLES, World, build
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from sqlalchemy import insert, update
from sqlalchemy.exc import OperationalError

from app.api import create_app
from app.services.control import Control
from app.services.installation import LEASE
from app.store import migrate
from app.store.db import Store
from app.store.tables import DeadLetter, Installation


def test_the_openapi_document_is_valid_and_whole(world: World) -> None:
    document = world.get("/openapi.json")
    assert document["openapi"] == "3.1.0"
    assert [error.message for error in OpenAPIV31SpecValidator(document).iter_errors()] == []
    documented = {
        (method.upper(), path) for path, operations in document["paths"].items() for method in operations
    } - {("PARAMETERS", path) for path in document["paths"]}
    served = set()
    for rule in world.app.url_map.iter_rules():
        path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)
        served |= {(method, path) for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}}
    assert documented == served


def test_every_operation_says_who_may_and_how_it_fails(world: World) -> None:
    document = world.get("/openapi.json")
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if method == "parameters":
                continue
            where = f"{method} {path}"
            assert operation["x-role"] in ("open", *ROLES), where
            assert operation["summary"], where
            assert (operation.get("security") == []) is (operation["x-role"] == "open"), where
            assert "default" in operation["responses"], where
    failures = document["components"]["responses"]["DEFAULT_ERROR"]["content"]
    assert list(failures) == ["application/problem+json"]
    assert document["security"] == [{"bearer": []}]


def test_two_apps_have_the_same_document(world: World) -> None:
    again = create_app(control=world.control)
    token = world.tokens["viewer"]
    path, headers = "/api/v1/openapi.json", {"Authorization": f"Bearer {token}"}
    assert again.test_client().get(path, headers=headers).text == world.ask("GET", path).text


def test_the_workflow_schema(world: World) -> None:
    answer = world.ask("GET", "/api/v1/schemas/workflow.json", "viewer")
    assert answer.mimetype == "application/schema+json"
    Draft202012Validator.check_schema(answer.get_json())


def test_health_and_version(world: World) -> None:
    assert world.ask("GET", "/healthz", "").get_json() == {"status": "ok"}
    about = world.ask("GET", "/version", "viewer").get_json()
    assert about.keys() == {"version", "api", "celery"}


def test_ready_only_with_every_part(world: World) -> None:
    answer = world.ask("GET", "/readyz", "viewer")
    assert answer.status_code == 503
    checks = answer.get_json()["checks"]
    assert checks["database"] == "ok"
    assert checks["redis"].startswith("does not answer")


def test_metrics(world: World) -> None:
    world.run()
    over = world.run()
    world.end(over, world.open_jobs(over)[0])
    world.add_node("web-1", last_seen=None, state="draining")
    with world.control.store.write() as connection:
        connection.execute(insert(DeadLetter), {"at": 0.0, "queue": "results", "reason": "poison"})
    lines = world.ask("GET", "/metrics", "viewer").text.splitlines()
    for line in (
        'muster_executions{status="completed"} 1.0',
        'muster_jobs{status="queued"} 1.0',
        'muster_nodes{state="online"} 1.0',
        'muster_nodes{state="offline"} 1.0',
        'muster_nodes{state="draining"} 1.0',
        'muster_dead_letters{queue="results",reason="poison"} 1.0',
        'muster_queue_jobs{node="local",status="queued"} 1.0',
        "muster_redis_up 0.0",
    ):
        assert line in lines
    ages = [line.split() for line in lines if line.startswith("muster_queue_oldest_seconds{")]
    assert [name for name, _ in ages] == ['muster_queue_oldest_seconds{node="local",status="queued"}']
    assert 0 <= float(ages[0][1]) < 60
    assert not [line for line in lines if line.startswith("muster_tick_lag")], "there was no tick yet"


def test_the_lag_of_the_tick(world: World) -> None:
    with world.control.store.write() as connection:
        connection.execute(update(Installation).values(tick_until=world.control.clock() - 60 + LEASE))
    text = world.ask("GET", "/metrics", "viewer").text
    lag = float(re.findall(r"^muster_tick_lag_seconds (\S+)$", text, re.M)[0])
    assert 59 <= lag < 90


@pytest.fixture
def unmigrated(world: World, tmp_path: Path) -> Iterator[World]:
    """The same people's tokens, over a database without a table."""
    store = Store(f"sqlite:///{tmp_path / 'empty.db'}")
    control = Control(world.control.settings, store)
    yield World(control, create_app(control=control), world.tokens)
    store.close()


def test_a_database_that_fails_is_a_503_without_its_words(unmigrated: World) -> None:
    with pytest.raises(OperationalError), unmigrated.control.store.read() as connection:
        connection.exec_driver_sql("SELECT 1 FROM tokens")
    answer = unmigrated.ask("GET", "/api/v1/packs")
    assert (answer.status_code, answer.get_json()["code"]) == (503, "database-unavailable")
    assert "tokens" not in answer.text
    assert migrate.current(unmigrated.control.store) is None


def test_what_was_not_foreseen_is_a_500_without_inside(world: World) -> None:
    def broken() -> Iterator[str]:
        raise ZeroDivisionError("the secret of the house")

    app = create_app(control=replace(world.control, clock=broken))  # type: ignore[arg-type]
    answer = World(world.control, app, world.tokens).ask("GET", "/api/v1/packs")
    assert (answer.status_code, answer.get_json()["code"]) == (500, "internal")
    assert "secret" not in answer.text


def test_a_smaller_body_limit_holds(database_url: str, tmp_path: Path) -> None:
    small = build(database_url, tmp_path, body_limit=2000)
    path = "/workflow-executions"
    assert small.post(path, {"definition": HELLO}).status_code == 201
    answer = small.post(path, {"definition": HELLO + "#" * 2000})
    assert (answer.status_code, answer.get_json()["code"]) == (413, "request-entity-too-large")
    before = small.counts()
    for place, kind in (("/packs/demo/workflows", "text/yaml"), (path, "application/json")):
        chunked = small.ask(
            "POST",
            f"/api/v1{place}",
            input_stream=BytesIO(HELLO.encode() + b"#" * 2000),
            content_type=kind,
            environ_overrides={"wsgi.input_terminated": True},
        )
        assert chunked.status_code == 413
    assert small.counts() == before
    small.control.store.close()
