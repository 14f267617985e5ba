"""`script_ref`: what a workflow may say of a saved script, and what its plan keeps of it."""

from __future__ import annotations

from typing import Any

import pytest

from app.compiler.build import build
from app.compiler.plan import Plan
from app.language.known import NOTHING, Known
from app.language.model import PinnedScript
from app.language.parse import load, load_or_raise

DECLARED = (
    {"name": "target", "type": "string", "required": True, "pattern": "[a-z]+"},
    {"name": "count", "type": "integer", "required": False, "default": 2, "max": 9},
    {"name": "token", "type": "secret", "required": False},
)


def script(name: str, version: int = 1, **more: Any) -> PinnedScript:
    values = {
        "shell": "bash",
        "body": "echo ${target} {{ x }}\n",
        "parameters": DECLARED,
        "timeout": 60.0,
        **more,
    }
    return PinnedScript(f"id-{name}", name, version, **values)


KNOWN = Known(
    complete=True,
    scripts={
        "deploy": script("deploy", 3),
        "deploy@1": script("deploy", 1, body="echo one\n", parameters=()),
        "wipe": script("wipe", requires_approval=True, parameters=()),
    },
    script_names=("deploy", "wipe"),
)


def text(given: str, action: str = "core.script") -> str:
    return f"tasks: [{{name: a, action: {action}, input: {{{given}}}}}]\n"


BAD = [
    ("script_ref: deplo", "unknown-script", "did you mean `deploy`?"),
    ("script_ref: deploy@7", "unknown-script", "muster script versions deploy"),
    ("script_ref: Deploy", "bad-name", "deploy@3"),
    ("script_ref: deploy@0", "bad-name", "deploy@3"),
    ('script_ref: "{{ vars.x }}"', "template-not-allowed", ""),
    ("script_ref: [deploy]", "wrong-type", ""),
    ("script_ref: wipe", "needs-approval", "core.approval"),
    ("script_ref: deploy", "missing-key", "parameters: {target: …}"),
    ("script_ref: deploy, parameters: [x]", "wrong-type", ""),
    ("script_ref: deploy, parameters: {target: a, taget: b}", "unknown-key", "did you mean `target`?"),
    ("script_ref: deploy, parameters: {target: A}", "bad-value", "the pattern is"),
    ("script_ref: deploy, parameters: {target: [a]}", "bad-value", "its type is string"),
    ("script_ref: deploy, parameters: {target: a, count: ten}", "bad-value", "its type is integer"),
    ("script_ref: deploy, parameters: {target: a, count: 10}", "bad-value", ""),
    ('script_ref: deploy, parameters: {target: a, count: "1{{ 2 }}"}', "wrong-type", ""),
    ("script_ref: deploy, parameters: {target: null}", "bad-value", ""),
    ("script_ref: deploy@1, parameters: {target: a}", "unknown-key", "it takes none"),
    ("script_ref: deploy@1, shell: sh", "bad-combination", "says itself what runs it"),
    ("script_ref: deploy@1, env: {PATH: /tmp}", "bad-combination", "declares as a parameter"),
    ("script_ref: deploy@1, cwd: /tmp", "bad-combination", "declare a parameter"),
    ("script_ref: deploy@1, script: 'true'", "one-of", ""),
    ("script: 'true', parameters: {a: 1}", "missing-key", "bound"),
    (
        "script_ref: deploy, parameters: {target: a, token: \"x{{ kv.get_secret('t') }}\"}",
        "secret-not-here",
        "type: secret",
    ),
]


@pytest.mark.parametrize(("given", "code", "hint"), BAD)
def test_what_is_refused(given: str, code: str, hint: str) -> None:
    problems = [one for one in load(text(given), known=KNOWN).problems if one.severity == "error"]
    assert [one.code for one in problems][:1] == [code], problems
    assert hint in problems[0].hint
    assert problems[0].line == 1


def plan_of(given: str, action: str = "core.script") -> Plan:
    return build(load_or_raise(text(given, action), known=KNOWN))


def test_the_plan_keeps_the_script_and_the_task_its_values() -> None:
    plan = plan_of("script_ref: deploy, parameters: {target: '{{ system.execution_id }}', count: '3'}")
    task = plan.tasks["a"]
    assert task.input == {
        "script_ref": "deploy",
        "parameters": {"target": "{{ system.execution_id }}", "count": 3},
        "shell": "bash",
    }
    # The body is not in the task, so nothing ever renders it.
    assert plan.scripts["deploy"]["body"] == "echo ${target} {{ x }}\n"
    assert (plan.scripts["deploy"]["version"], task.timeout, task.literal) == (3, 60.0, ())
    assert Plan.from_json(plan.to_json()) == plan


def test_a_version_and_a_fan_out() -> None:
    plan = plan_of("script_ref: deploy@1, nodes: [web-1], timeout: 5", "core.distributed_shell")
    assert plan.scripts["deploy@1"]["body"] == "echo one\n"
    assert (plan.tasks["a"].input["timeout"], plan.tasks["a"].input["shell"]) == (5, "bash")
    plan = plan_of("script_ref: deploy@1, nodes: [web-1]", "core.distributed_shell")
    assert (plan.tasks["a"].input["timeout"], plan.tasks["a"].timeout) == (60.0, None)


def test_a_secret_is_named_by_its_task() -> None:
    plan = plan_of("script_ref: deploy, parameters: {target: a, token: \"{{ kv.get_secret('t') }}\"}")
    assert plan.tasks["a"].secrets == ("secret:t",)


def test_where_nobody_can_say_what_there_is() -> None:
    loaded = load(text("script_ref: deploy, parameters: {x: '{{ 1 }}', y: [1]}"), known=NOTHING)
    assert [(one.code, one.severity) for one in loaded.problems] == [("unchecked-script", "warning")]
    assert loaded.workflow is not None
    assert build(loaded.workflow).scripts == {}
