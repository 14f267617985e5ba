"""Requests that must be refused, from tests/cases/api: a 4xx with its place, and not one row more."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from api_world import World

FOLDER = Path(__file__).parents[1] / "cases" / "api"
FILES = ("requests", "commands")
CASES: list[dict[str, Any]] = [
    case for name in FILES for case in yaml.safe_load((FOLDER / f"{name}.yaml").read_text("utf-8"))
]
PLACES = ("pointer", "line", "column", "hint")


def text_of(repeat: Mapping[str, Any]) -> str:
    return str(repeat.get("before", "")) + repeat["of"] * repeat["times"] + str(repeat.get("after", ""))


def request_of(case: Mapping[str, Any]) -> tuple[str, str, dict[str, Any]]:
    """Method, path and the rest of what a case sends."""
    method = next((name.upper() for name in ("get", "post") if name in case), case.get("send", ""))
    path = "/api/v1" + str(case.get("get") or case.get("post") or case["path"])
    if "repeat_path" in case:
        path += text_of(case["repeat_path"])
    options: dict[str, Any] = {"headers": dict(case.get("headers", {}))}
    if "repeat" in case:
        options["data"] = text_of(case["repeat"]).encode()
    elif "bytes" in case:
        options["data"] = case["bytes"].encode("latin-1").decode("unicode_escape").encode("latin-1")
    elif "body" in case:
        options["data"] = case["body"].encode()
    elif "json" in case:
        value = case["json"]
        if "repeat_field" in case:
            value = {**value, case["repeat_field"]["name"]: text_of(case["repeat_field"])}
        if "many" in case:
            many = case["many"]
            value = {**value, many["field"]: [f"{many['name']}{number}" for number in range(many["times"])]}
        options["data"] = json.dumps(value).encode()
    if "data" in options and case.get("type", "application/json"):
        options["content_type"] = case.get("type", "application/json")
    return method, path, options


@pytest.fixture
def staffed(world: World) -> World:
    """The world with the nodes that the cases speak of."""
    long_ago = time.time() - 3600
    world.add_node("web-1", labels={"role": "web", "site": "north"})
    world.add_node("slow-1", last_seen=long_ago)
    world.add_node("rest-1", state="draining", labels={"role": "rest"})
    world.add_node("gone-1", state="removed")
    for number in range(500):
        world.add_node(f"n-{number}")
    return world


def test_names_of_cases_are_their_own() -> None:
    assert len({case["name"] for case in CASES}) == len(CASES) >= 200


@pytest.mark.parametrize("role", ["", "viewer"])
def test_those_who_may_not_learn_nothing_from_it(world: World, role: str) -> None:
    for case in CASES:
        method, path, options = request_of(case)
        if case.get("role") == "" or (role and method == "GET"):
            continue
        status = world.ask(method, path, role, **options).status_code
        assert status in ((401,) if not role else (403, 404, 405)), case["name"]


def test_every_case_is_refused_and_changes_nothing(staffed: World) -> None:
    before = staffed.counts()
    wrong = [told for case in CASES for told in faults(staffed, case)]
    assert wrong == []
    assert staffed.counts() == before
    assert staffed.nudged == []


def faults(world: World, case: Mapping[str, Any]) -> list[str]:
    """What the answer to a case lacks."""
    method, path, options = request_of(case)
    answer = world.ask(method, path, case.get("role", "admin"), **options)
    told = f"{case['name']}: {answer.status_code} {answer.text[:400]}"
    if answer.status_code != case["expect"] or answer.mimetype != "application/problem+json":
        return [told]
    problem = answer.get_json()
    first = (problem.get("errors") or [{}])[0]
    good = (
        problem["status"] == answer.status_code
        and problem["type"].endswith(problem["code"])
        and problem["detail"]
        and "Traceback" not in answer.text
        and "\x1b" not in answer.text
        and problem["code"] == case.get("code", problem["code"])
        and all(first.get(name) == case[name] for name in PLACES if name in case)
    )
    return [] if good else [told]
