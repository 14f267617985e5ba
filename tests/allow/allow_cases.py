"""The cases of the allowlist, as drivers read them: here and over the API."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from app.allow.policy import digest_of

ROOT = Path(__file__).resolve().parents[2]
CASES = ROOT / "tests" / "cases" / "allowlist"
SHIPPED = (ROOT / "config" / "allowlist.yaml").read_text()


def _read(file: str) -> list[dict[str, Any]]:
    return [_expanded(case) for case in yaml.safe_load((CASES / file).read_text())]


def _expanded(case: dict[str, Any]) -> dict[str, Any]:
    """With `input` as a task has it; `long` and `words` make what is too long to be written."""
    given = {key: case[key] for key in ("command", "script", "shell", "env", "cwd") if key in case}
    if "long" in case:
        given["command"] = [*case["command"][:-1], "x" * case["long"]]
    if "words" in case:
        given["command"] = [*case["command"], *["x"] * case["words"]]
    return {**case, "input": given}


def policy_text(case: dict[str, Any]) -> str:
    """The allowlist that a case is judged by."""
    if "policy" not in case:
        return SHIPPED
    given = case["input"]
    text = given.get("script", given.get("command"))
    digest = digest_of(str(case.get("approved", text)))
    policy = yaml.safe_load(case["policy"].replace("sha256:DIGEST", digest))
    return json.dumps({"version": 1, **policy})


def named(case: dict[str, Any]) -> str:
    """For ids of tests."""
    command = case["input"].get("command", case["input"].get("script"))
    return str(case.get("name") or (" ".join(command) if isinstance(command, list) else command))


BYPASS = _read("bypass.yaml")
PASSES = _read("passes.yaml")
