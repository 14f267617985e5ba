"""Random workflows of every feature the engine runs, from a seeded generator."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from app.language.model import Branch, Loop, Retry, Task, Workflow

NODES = ["web-1", "web-2", "web-3", "bare", "gone"]


def workflow(rng: Random) -> Workflow:
    # Small ones are more often, for most faults need but a few tasks to show.
    size = min(rng.randint(1, 9), rng.randint(1, 9))
    names = [f"t{n}" for n in range(size)]
    tasks = _with_lines(rng, tuple(_task(rng, names, position) for position in range(size)))
    finally_ = tuple(_last(rng, f"f{n}") for n in range(rng.choice([0, 0, 0, 1, 2])))
    return Workflow(
        "sim.random", tasks=tasks, finally_=finally_, fail_fast=rng.random() < 0.15, vars=(("trail", ""),),
        output_map={"trail": "{{ vars.trail }}"} if rng.random() < 0.2 else None,
    )  # fmt: skip


def _with_lines(rng: Random, tasks: tuple[Task, ...]) -> tuple[Task, ...]:
    """Behind some of the commands others on the same node, which travel in one order."""
    found = []
    for task in tasks:
        plain = task.action == "core.shell" and task.loop is None and task.decision is None
        if not plain or task.on_complete or rng.random() < 0.4:
            found.append(task)
            continue
        names = [f"{task.name}{letter}" for letter in "abc"[: rng.randint(1, 3)]]
        found.append(replace(task, publish=(), on_success=(names[0],)))
        for position, name in enumerate(names):
            goes = (names[position + 1],) if position + 1 < len(names) else task.on_success
            publish = _trail(name) if rng.random() < 0.15 else ()
            failing = task.on_failure if rng.random() < 0.3 else ()
            found.append(
                Task(
                    name,
                    action="core.shell",
                    input={"command": "next"},
                    retry=_retry(rng, name),
                    publish=publish,
                    on_success=goes,
                    on_failure=failing,
                )
            )
    return tuple(found)


def _last(rng: Random, name: str) -> Task:
    if rng.random() < 0.3:
        return _child(rng, name)
    return Task(name, action=rng.choice(["core.shell", "core.noop"]), input={"command": "true"})


def changed(rng: Random, old: Workflow) -> Workflow:
    """Another version of a workflow: some tasks do something else, some are gone, some are new."""
    gone = {task.name for task in old.tasks if rng.random() < 0.1}
    tasks = [_without(task, gone) for task in old.tasks if task.name not in gone]
    tasks = [_otherwise(task) if rng.random() < 0.15 else task for task in tasks]
    for _ in range(rng.choice([0, 0, 1, 2])):
        name = f"n{rng.randrange(10_000)}"
        later = tuple(task.name for task in tasks if rng.random() < 0.2)
        if name not in {task.name for task in tasks}:
            tasks.append(Task(name, action="core.shell", input={"command": "new"}, on_complete=later))
    final = tuple(_otherwise(task) for task in old.finally_ if rng.random() < 0.8)
    if not tasks:
        tasks = [Task("n", action="core.noop")]
    return replace(old, tasks=tuple(tasks), finally_=final, vars=(("seen", "first"),))


def _otherwise(task: Task) -> Task:
    if task.type == "parallel":
        return replace(task, tasks=(*map(_otherwise, task.tasks[1:]), task.tasks[0]))
    if task.action in ("core.shell", "core.distributed_shell"):
        return replace(task, input={**task.input, "command": "other"})
    return replace(task, input={**task.input, "more": 1})


def _without(task: Task, gone: set[str]) -> Task:
    kinds = ("on_success", "on_failure", "on_complete", "on_timeout", "on_skip")
    edges = {kind: tuple(name for name in getattr(task, kind) if name not in gone) for kind in kinds}
    branches = task.decision
    if branches is not None:
        branches = tuple(
            replace(one, next=tuple(name for name in one.next if name not in gone)) for one in branches
        )
    return replace(task, **edges, decision=branches)


def _task(rng: Random, names: list[str], position: int) -> Task:
    later = names[position + 1 :]

    def some(chance: float) -> tuple[str, ...]:
        if rng.random() > chance or not later:
            return ("fail",) if rng.random() < 0.02 else ()
        return tuple(sorted(set(rng.choices(later, k=rng.randint(1, 3)))))

    decision = None
    if rng.random() < 0.15 and later:
        decision = (
            Branch("{{ parameters.flag }}", (rng.choice(later),)),
            *([Branch(None, (rng.choice(later),))] if rng.random() < 0.7 else []),
        )
    common = {
        "on_success": () if decision else some(0.7),
        "on_failure": some(0.4),
        "on_complete": some(0.25),
        "on_timeout": some(0.15),
        "on_skip": some(0.2),
        "decision": decision,
        "when": rng.choice([None, None, None, "{{ parameters.flag }}"]),
        "delay": rng.choice([None, None, None, None, 5]),
        "publish": _trail(names[position]) if rng.random() < 0.3 else (),
        "publish_on_failure": _trail(names[position])[1:] if rng.random() < 0.15 else (),
    }
    joins: list[str | int] = ["", "", "", "all", "any", 2]
    kind = rng.random()
    name = names[position]
    if kind < 0.15:
        children = tuple(_child(rng, f"{name}c{n}") for n in range(rng.randint(1, 3)))
        block = {key: common[key] for key in common if not key.startswith("publish")}
        timeout = rng.choice([None, 30])
        return Task(
            name, type="parallel", tasks=children, fail_fast=rng.random() < 0.3, timeout=timeout,
            join=rng.choice(joins), **block,
        )  # fmt: skip
    body = _child(rng, name)
    return Task(
        name, body.type, body.action, input=body.input, retry=body.retry, fail_fast=body.fail_fast, loop=body.loop,
        timeout=body.timeout, delegate_to=body.delegate_to,
        idempotent=rng.random() < 0.2, on_unknown=rng.choice(["", "", "fail", "wait"]),
        join=rng.choice(joins), **common,
    )  # fmt: skip


def _trail(name: str) -> tuple[tuple[str, str], ...]:
    """What a task publishes: its name, and its name behind those of all that published before it."""
    return ("seen", name), ("trail", "{{ vars.trail }}." + name)


def _retry(rng: Random, name: str) -> Retry | None:
    only_failed = "{{ task." + name + ".status == 'failed' }}"
    return rng.choice(
        [
            None, None, None, Retry(1, 0), Retry(1, 0), Retry(2, 10, "exponential", 15), Retry(2, 4, "linear"),
            Retry(3, 1, "constant", None, only_failed),
        ]
    )  # fmt: skip


def _child(rng: Random, name: str) -> Task:
    retry = _retry(rng, name)
    kind = rng.random()
    if kind < 0.25:
        nodes = rng.sample(NODES, rng.randint(1, 4))
        given = {"command": "true", "nodes": nodes, "shell": rng.choice(["sh", "bash"])}
        if rng.random() < 0.4:
            given |= {"batch": rng.choice([[1, "50%"], 1, ["34%"]]), "max_failures": rng.choice([0, 1])}
        return Task(
            name,
            "distributed_shell",
            "core.distributed_shell",
            input=given,
            retry=retry,
            fail_fast=rng.random() < 0.3,
        )
    if kind < 0.45:
        return _loop(rng, name, retry)
    if kind < 0.52:
        expires = rng.choice(
            [{}, {"expires_in": 20, "on_expire": rng.choice(["timeout", "reject", "approve"])}]
        )
        action = rng.choice(["core.approval", "core.approval", "core.inquiry"])
        return Task(name, action=action, input={"prompt": "go?", **expires}, retry=retry)
    if kind < 0.58:
        timeout = rng.choice([None, 20])
        return Task(name, "workflow", "sim.child", input={"n": 1}, retry=retry, timeout=timeout)
    if kind < 0.66:
        action = rng.choice(["core.noop", "core.sleep", "core.fail"])
        return Task(name, action=action, input={"seconds": 3} if action == "core.sleep" else {})
    if kind < 0.7:
        method = rng.choice(["GET", "POST"])
        return Task(name, action="core.http", input={"url": "http://sim/", "method": method}, retry=retry)
    return Task(name, action="core.shell", input={"command": "true"}, retry=retry)


def _loop(rng: Random, name: str, retry: Retry | None) -> Task:
    loop = Loop(
        tuple(rng.sample(["web-1", "web-2", "gone", "bare"], rng.randint(0, 4)) * rng.choice([1, 1, 3])),
        batch_size=rng.choice([None, None, 2]),
        concurrency=rng.choice([None, 1, 2]),
        tolerate=rng.choice([0, 0, 1]),
    )
    action = rng.choice(
        ["core.shell", "core.shell", "core.sleep", "core.noop", "core.fail", "core.approval", "sim.child"]
    )
    given = {"core.shell": {"command": "true"}, "core.sleep": {"seconds": "{{ index }}"}}.get(action, {})
    place = "{{ item }}" if action == "core.shell" and rng.random() < 0.5 else None
    timeout = rng.choice([None, 1]) if action in ("core.sleep", "sim.child") else None
    return Task(
        name,
        "workflow" if action == "sim.child" else "action",
        action=action, input=given, loop=loop, retry=retry, fail_fast=rng.random() < 0.3,
        timeout=timeout, delegate_to=place,
    )  # fmt: skip
