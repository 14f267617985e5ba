"""`muster compile`: what a workflow becomes, without a server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from app.cli import folder
from app.cli.files import read_text
from app.cli.options import knows_packs, wants_json
from app.cli.plain import as_json as json_text
from app.cli.plain import safe
from app.compiler import build, canvas, explain
from app.compiler.plan import Plan
from app.language import parse

_WINDOW = 100
_EXAMPLE_EXECUTION = "EXECUTION"


@click.command("compile", short_help="Print the Celery canvas that a workflow becomes.")
@click.argument("file")
@knows_packs
@wants_json
def compile_(file: str, folders: Sequence[str], as_json: bool) -> None:
    """Print the Celery canvas that a workflow becomes: chains, groups and chords, the queue of every link,
    and why each boundary is there. With --json the signatures themselves, as Celery serializes them."""
    known = folder.known_for(file, folders)
    plan = build.build(parse.load_or_raise(read_text(file), file, known=known))
    click.echo(json_text(_canvases(plan)) if as_json else safe(explain.render(plan), keep="\n"))


def _canvases(plan: Plan) -> dict[str, Any]:
    """Every canvas of the plan by the task that it starts with; each is sent when its turn comes."""
    followed = {task.then for task in plan.tasks.values() if task.then}
    found: dict[str, Any] = {}
    for task in plan.tasks.values():
        if task.name in followed or task.parent or task.runs_in_engine or task.is_call:
            continue
        born = _born(plan, task.name)
        found[task.name] = canvas.compile(plan, _EXAMPLE_EXECUTION, born, window=_WINDOW)
    return {"ref": plan.ref, "digest": plan.digest, "canvases": found}


def _born(plan: Plan, name: str) -> list[canvas.Born]:
    """The jobs that a task starts with, on `<…>` where only the execution knows the node."""
    task = plan.tasks[name]
    if task.kind == "block":
        return [
            job
            for child in task.children
            if not (plan.tasks[child].runs_in_engine or plan.tasks[child].is_call)
            for job in _born(plan, child)
        ]
    if task.kind == "fanout":
        nodes = task.input.get("nodes")
        places = [str(node) for node in nodes] if isinstance(nodes, list | tuple) else ["<each node>"]
    elif task.kind == "loop":
        items = (task.loop or {})["items"]
        count = len(items) if isinstance(items, list | tuple) else 1
        places = [build.static_node(task) or "<decided when it starts>"] * count
    else:
        places = [build.static_node(task) or "<decided when it starts>"]
    return [
        canvas.Born(canvas.job_id(_EXAMPLE_EXECUTION, name, unit, 1), name, unit, 1, place)
        for unit, place in enumerate(places)
    ]
