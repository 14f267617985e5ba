"""Golden canvases: what each workflow compiles to, link by link; and that Celery reads it as its own."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml
from celery.canvas import Signature

from app.compiler import canvas
from app.compiler.build import LINE_CAP, build, static_node
from app.compiler.explain import render
from app.compiler.plan import Plan, UnknownPlanVersion
from app.language.parse import load_or_raise

CASES = Path(__file__).parents[1] / "cases" / "canvas"
WORKFLOWS = yaml.safe_load((CASES / "workflows.yaml").read_text())
GOLDEN = CASES / "golden.json"
WINDOW = 4


def compiled(text: str) -> dict[str, object]:
    """The tree that a person sees, and the canvases of what starts first."""
    plan = build(load_or_raise(text))
    born = []
    for name in plan.entries:
        for task in (name, *plan.tasks[name].children):
            born += jobs_of(plan, task)
    return {"explain": render(plan).splitlines(), "canvas": canvas.compile(plan, "EXEC", born, window=WINDOW)}


def jobs_of(plan: Plan, name: str) -> list[canvas.Born]:
    task = plan.tasks[name]
    if task.kind == "fanout":
        nodes = task.input["nodes"] if isinstance(task.input["nodes"], list) else ["web-1", "web-2"]
        return [
            canvas.Born(canvas.job_id("EXEC", name, n, 1), name, n, 1, node) for n, node in enumerate(nodes)
        ]
    if task.kind == "loop" and not task.runs_in_engine:
        nodes = [static_node(task) or "web-9"] * len(task.loop["items"])
        return [
            canvas.Born(canvas.job_id("EXEC", name, n, 1), name, n, 1, node) for n, node in enumerate(nodes)
        ]
    if task.kind != "job":
        return []
    return [canvas.Born(canvas.job_id("EXEC", name, 0, 1), name, 0, 1, static_node(task) or "web-9")]


def golden() -> dict[str, object]:
    if os.environ.get("MUSTER_TEST_UPDATE"):
        found = {name: compiled(text) for name, text in WORKFLOWS.items()}
        GOLDEN.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    return json.loads(GOLDEN.read_text())  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", WORKFLOWS)
def test_golden(name: str) -> None:
    assert compiled(WORKFLOWS[name]) == golden()[name]


@pytest.mark.parametrize("name", WORKFLOWS)
def test_celery_reads_it_as_its_own(name: str) -> None:
    for one in compiled(WORKFLOWS[name])["canvas"]:  # type: ignore[attr-defined]
        read = Signature.from_dict(json.loads(json.dumps(one)))
        assert type(read).__name__ in ("_chain", "group", "_chord")


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_plan_comes_back_from_its_json(name: str) -> None:
    plan = build(load_or_raise(WORKFLOWS[name]))
    again = Plan.from_json(json.loads(plan.dump()))
    assert again.dump() == plan.dump()
    assert again.digest == plan.digest


def test_an_unknown_plan_version_is_refused() -> None:
    plan = build(load_or_raise(WORKFLOWS["line"]))
    with pytest.raises(UnknownPlanVersion, match="plan_version 99"):
        Plan.from_json({**plan.to_json(), "plan_version": 99})


def test_a_long_line_is_cut() -> None:
    """Every message carries the rest of its chain, so a chain has an end."""
    tasks = [
        f"  - {{name: t{n}, action: core.shell, input: {{command: ['true']}}, on_success: t{n + 1}}}"
        for n in range(2 * LINE_CAP)
    ]
    text = "\n".join(
        ["tasks:", *tasks, f"  - {{name: t{2 * LINE_CAP}, action: core.echo, input: {{message: x}}}}"]
    )
    plan = build(load_or_raise(text))
    cuts = [task.name for task in plan.tasks.values() if task.then is None]
    assert cuts == [f"t{LINE_CAP - 1}", f"t{2 * LINE_CAP - 1}", f"t{2 * LINE_CAP}"]
    assert "at most" in plan.tasks[cuts[0]].boundary


def test_a_retry_is_a_line_of_one() -> None:
    plan = build(load_or_raise(WORKFLOWS["fan-out"]))
    born = [canvas.Born(canvas.job_id("EXEC", "all", 0, 2), "all", 0, 2, "web-1")]
    assert canvas.compile(plan, "EXEC", born, window=WINDOW)[0]["subtask_type"] == "chain"
