"""What it costs to load a workflow: bounded, and linear in its tasks. Counted in processor time."""

from __future__ import annotations

import time

from app.language import parse


def workflow(tasks: int) -> str:
    lines = ["ref: bench.line", "parameters: {p: {default: x}}", "tasks:"]
    for n in range(tasks):
        lines += [f"- name: t{n}", "  action: core.shell", "  timeout: 60"]
        lines += ['  input: {command: "run {{ parameters.p }} ' + str(n) + '"}']
        lines += [f'  publish: {{v{n}: "{{{{ task.t{n}.result.exit_code }}}}"}}']
        lines += [f"  on_success: t{n + 1}"] if n < tasks - 1 else []
    return "\n".join(lines) + "\n"


def best(text: str, rounds: int) -> float:
    def once() -> float:
        started = time.process_time()
        assert parse.load(text).workflow is not None
        return time.process_time() - started

    return min(once() for _ in range(rounds))


def test_the_cost_is_linear_in_the_tasks() -> None:
    small, large = best(workflow(52), 30), best(workflow(520), 5)

    print(f"52 tasks {small * 1000:.1f} ms, 520 tasks {large * 1000:.1f} ms, ratio {large / small:.1f}")
    assert large <= 20 * small  # 10 is linear, 100 would be quadratic; the rest is for a busy machine
    assert small < 0.060  # four times of what it takes


def test_two_thousand_tasks_that_all_lead_to_many_load_in_time() -> None:
    lines = ["tasks:"]
    for n in range(1300):
        targets = ", ".join(f"t{n + step}" for step in (1, 2, 5) if n + step < 1300)
        lines.append(
            f"- {{name: t{n}, action: core.noop" + (f", on_success: [{targets}]}}" if targets else "}")
        )
    started = time.process_time()
    loaded = parse.load("\n".join(lines))

    assert loaded.problems == ()
    assert time.process_time() - started < 3


def test_many_branches_that_publish_one_name_load_in_time() -> None:
    lines = ["tasks:"]
    for n in range(400):
        more = f", on_success: t{n + 1}, on_failure: f{n}" if n < 399 else ""
        lines.append(f"- {{name: t{n}, action: core.noop, publish: {{x: {n}}}{more}}}")
    lines += [f"- {{name: f{n}, action: core.noop, publish: {{x: {n}}}}}" for n in range(399)]
    started = time.process_time()
    loaded = parse.load("\n".join(lines))

    assert loaded.problems == ()
    assert time.process_time() - started < 3
