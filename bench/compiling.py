"""The compiler, the engine and the control services in this process, timed at more and at less of the same work.

Times are of the processor: a busy machine makes them longer by a half, not by ten. Waiting for the disk is not in them.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from pathlib import Path
from typing import Any

from sqlalchemy import select

from app.compiler.build import build
from app.compiler.plan import LOCAL, PLAN_VERSION, Plan
from app.engine.events import JobEnded, Submitted
from app.engine.memory import Memory
from app.engine.state import ExecutionState, Node
from app.language import expressions
from app.language.parse import load_or_raise
from app.services import collect
from app.services.intake import Canvas
from app.services.submit import Submission, submit
from app.store import executions as rows
from app.store.tables import Execution, table
from bench.alone import NODE, Stage
from bench.processes import Broken

FLEET = {LOCAL: Node(LOCAL)}
STEPS = 200
TEMPLATES = 50
COMPILES = 3


def workflow(tasks: int, mark: object) -> str:
    """A workflow of so many tasks with what a real one has: edges, conditions, inputs, retries, publishing, a loop.

    `mark` goes into its templates, so that another mark makes all of them new.
    """
    lines = ["parameters:", "  where: {type: string, default: here}", "vars:", "  seen: ''", "tasks:"]
    for number in range(tasks):
        after = f"t{number + 1}" if number + 1 < tasks else ""
        lines += [
            f"  - name: t{number}",
            "    action: core.shell",
            "    input:",
            f'      command: [echo, "{{{{ parameters.where }}}} {mark} {number}", "{{{{ vars.seen | upper }}}}"]',
            "    retry: {count: 2, delay: 5}",
        ]
        if number % 4 == 1:
            before = f"task.t{number - 1}.result.exit_code"
            lines.append(f"    when: \"{{{{ {before} == 0 and '{mark}' != '{number}' }}}}\"")
        if number % 4 == 2:
            lines.append(f'    publish: [{{seen: "{{{{ task.t{number}.result.stdout | trim }}}} {mark}"}}]')
        if number % 10 == 3:
            lines.append(f'    with_items: "{{{{ [1, 2, {number}] }}}}"')
        if after:
            lines += [f"    on_success: {after}", f"    on_skip: {after}"]
    return "\n".join(lines) + "\n"


class Alone:
    """Our side and its own peer. Each figure is of one run."""

    one = 1.0

    def __init__(self, directory: Path) -> None:
        self.stage = Stage(directory)
        self._marks = itertools.count()

    def ran(self) -> int:
        """Scripts that were run: none."""
        return 0

    def compile(self, tasks: int) -> float:
        """Milliseconds, mean of a few."""
        texts = [workflow(tasks, f"m{next(self._marks)}") for _ in range(COMPILES)]
        began = time.process_time()
        for text in texts:
            build(load_or_raise(text, "bench.yaml"))
        return (time.process_time() - began) / COMPILES * 1e3

    def advance(self, tasks: int) -> float:
        """Microseconds for a step: a job of a line ended, the next is born. The mean of at least STEPS of them, from
        the middle half of each execution."""
        plan = build(load_or_raise(_line(tasks), "bench.yaml"))
        taken, spent = 0, 0.0
        while taken < STEPS:
            memory = Memory(plan, ExecutionState("01BENCH", system={"execution_id": "01BENCH"}))
            memory.write(memory.advance(Submitted(), FLEET, 1.0).changes, 1.0)
            for number in range(tasks):
                job = f"01BENCH.t{number}.0.1"
                said = {"status": "succeeded", "exit_code": 0, "result": {"exit_code": 0, "stdout": "x"}}
                memory.write_job(job, said)
                began = time.process_time()
                step = memory.advance(JobEnded(job), FLEET, 1.0)
                took = time.process_time() - began
                memory.write(step.changes, 1.0)
                if tasks // 4 <= number < tasks * 3 // 4:
                    taken, spent = taken + 1, spent + took
        return spent / taken * 1e6

    def loop(self, items: int) -> float:
        """Milliseconds for an item, from the submit to the end, all that control computes and writes."""
        source = (
            f"tasks:\n  - name: each\n    action: core.shell\n    delegate_to: {NODE}\n    concurrency: 10\n"
            f'    with_items: "{{{{ range({items}) | list }}}}"\n    input: {{command: ["true", "{{{{ item }}}}"]}}\n'
        )
        plan = build(load_or_raise(source, "bench.yaml"))
        stage, spent = self.stage, 0.0
        began = time.process_time()
        execution = submit(stage.control, Submission(plan, source, "bench", {})).execution
        collect.settle(stage.desk, execution)
        spent += time.process_time() - began
        waiting, over = deque(stage.take_sent()), 0
        while waiting:
            token = stage.answer(waiting.popleft())
            began = time.process_time()
            answer = collect.collect(stage.desk, [token], Canvas(), redelivered=False)
            spent += time.process_time() - began
            over += 1
            waiting += [answer.order] if answer.order else []
            waiting += stage.take_sent()
        if over != items or self._status(execution) != "completed":
            raise Broken(f"{over} of {items} items of the loop, then {self._status(execution)}")
        return spent / items * 1e3

    def _status(self, execution: str) -> Any:
        executions = table(Execution)
        with self.stage.control.store.read() as connection:
            return connection.execute(
                select(executions.c.status).where(executions.c.id == execution)
            ).scalar_one()

    def plan(self, *, seen: bool) -> float:
        """Microseconds for the plan of a workflow of 52 tasks by its digest."""
        source = workflow(52, "plan")
        plan = build(load_or_raise(source, "bench.yaml"))
        store = self.stage.control.store
        with store.write() as connection:
            digest = rows.store_plan(connection, plan, source, PLAN_VERSION, time.time())
        with store.read() as connection:
            known: Plan = rows.plan(connection, digest)
            spent = 0.0
            for _ in range(TEMPLATES):
                if not seen:
                    rows.forget_plans()
                began = time.process_time()
                found = rows.plan(connection, digest)
                spent += time.process_time() - began
        if found.digest != known.digest:
            raise Broken("another plan came back")
        return spent / TEMPLATES * 1e6

    def template(self, *, seen: bool) -> float:
        """Microseconds to render a template with a filter and a condition."""
        mark, scope = next(self._marks), {"vars": {"name": "web"}, "parameters": {"count": 3}}
        text = "{{{{ vars.name | upper }}}}-{{% if parameters.count > 2 %}}many{{% endif %}}-{}.{}"
        texts = [text.format(mark, 0 if seen else number) for number in range(TEMPLATES)]
        if seen:
            expressions.render(texts[0], scope)
        began = time.process_time()
        for one in texts:
            expressions.render(one, scope)
        return (time.process_time() - began) / TEMPLATES * 1e6


def _line(tasks: int) -> str:
    """Each task reads what the one before gave, and publishes."""
    lines = ["tasks:"]
    for number in range(tasks):
        reads = f"{{{{ task.t{number - 1}.result.stdout }}}}" if number else "x"
        lines += [
            f"  - name: t{number}",
            "    action: core.shell",
            f'    input: {{command: [echo, "{reads}"]}}',
            f'    publish: [{{last: "{{{{ task.t{number}.result.stdout }}}}"}}]',
        ]
        if number + 1 < tasks:
            lines.append(f"    on_success: t{number + 1}")
    return "\n".join(lines) + "\n"
