"""The configuration of packs over the API: set, checked, and as executions read it."""

from __future__ import annotations

from typing import Any

from api_world import World
from pack_shop import CONFIG, configure, job_of, register
from sqlalchemy import select

from app import marks
from app.services import vault
from app.services.vault import Asked
from app.store.tables import Execution, table


def test_the_configuration_is_checked_and_guarded(world: World) -> None:
    register(world)
    first = world.get(CONFIG)
    assert [(one["name"], one["secret"], one["required"]) for one in first["keys"]] == [
        ("place", False, False),
        ("limit", False, False),
        ("needed", False, True),
        ("token", True, False),
    ]
    assert first["config"] == {}
    done = configure(world, {"place": "there", "limit": "7"})
    assert (done.status_code, done.get_json()["config"]) == (200, {"place": "there", "limit": 7})
    assert configure(world, {}, tag='"other"').status_code == 412
    assert world.ask("PUT", f"/api/v1{CONFIG}", "author", json={"config": {}}).status_code == 428
    assert configure(world, {}, role="operator").status_code == 403
    for config, code, pointer in (
        ({"plaice": "x"}, "invalid-config", "/config/plaice"),
        ({"limit": "many"}, "invalid-config", "/config/limit"),
        ({"limit": [1]}, "invalid-config", "/config/limit"),
        ({"token": "hunter2"}, "secret-config", "/config/token"),
    ):
        answer = configure(world, config)
        problem = answer.get_json()
        assert (answer.status_code, problem["code"]) == (422, code)
        assert problem["errors"][0]["pointer"] == pointer
        assert "hunter2" not in answer.text
    assert world.get(CONFIG)["config"] == {"place": "there", "limit": 7}
    secret = world.ask("PUT", "/api/v1/secrets/shop/token", "author", json={"value": "hunter2"})
    assert secret.status_code in (200, 201), secret.text
    kept = {"place": "there", "limit": 7, "token": "shop/token"}
    assert configure(world, kept).get_json()["config"] == kept
    register(world, {"actions/sell.sh": "echo anew\n"})
    assert world.get(CONFIG)["config"] == kept


def test_a_secret_of_the_configuration_is_a_handle_until_it_is_opened(world: World) -> None:
    text = (
        "ref: shop.secret\ntasks: [{name: a, action: core.shell, input: {command: 'true', env: {T: '%s'}}}]\n"
    )
    register(world, {"workflows/secret.yaml": text % "{{ pack.config.token }}"})
    world.ask("PUT", "/api/v1/secrets/shop/token", "author", json={"value": "hunter2"})
    configure(world, {"needed": "x", "token": "shop/token"})
    execution = world.post("/workflows/shop.secret/execute", {}, "operator").get_json()["id"]
    assert job_of(world, execution).env["T"] == marks.mark("config:token")
    asked = Asked(execution, "a", "job", "operator", ("config:token",))
    with world.control.store.write() as connection:
        assert vault.open_each(world.control, connection, asked, ["config:token"]).values == {
            "config:token": "hunter2"
        }
    assert "hunter2" not in world.ask("GET", f"/api/v1/workflow-executions/{execution}/tasks", "viewer").text
    refused = register(world, {"workflows/secret.yaml": text % "{{ pack.config.token | upper }}"})
    assert refused.get_json()["errors"][0]["code"] == "secret-misused"


def test_an_execution_keeps_what_it_reads_and_no_more(world: World) -> None:
    register(world)
    configure(world, {"place": "there", "limit": 7})

    def config_of(execution: str) -> Any:
        query = select(table(Execution).c.config).where(table(Execution).c.id == execution)
        with world.control.store.read() as connection:
            return connection.execute(query).scalar_one()

    first = world.post("/workflows/shop.day/execute", {}, "operator").get_json()["id"]
    configure(world, {"place": "elsewhere"})
    assert config_of(first) == {"place": "there"}
    assert job_of(world, first).env["what"] == "tea there"
    text = (
        "ref: shop.all\nvars: {all: '{{ pack.config }}'}\ntasks: [{name: a, action: core.noop}]\n"
        "output_map: {all: '{{ vars.all }}'}\n"
    )
    refused = world.post("/workflow-executions", {"definition": text})
    assert (refused.status_code, refused.get_json()["code"]) == (409, "pack-not-configured")
    configure(world, {"place": "elsewhere", "needed": "yes"})
    execution = world.run(text)
    assert world.get(f"/workflow-executions/{execution}")["output"]["all"] == {
        "place": "elsewhere",
        "limit": None,
        "needed": "yes",
        "token": None,
    }
    nameless = world.post("/workflow-executions", {"definition": text.replace("ref: shop.all\n", "")})
    assert nameless.get_json()["errors"][0]["code"] == "no-pack"


# the end
