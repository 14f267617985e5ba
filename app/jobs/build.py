"""From a job's row to what a node is told to run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.allow.policy import ENFORCE
from app.allow.programs import SEARCH_PATH
from app.compiler.plan import FANOUT_ACTION, Plan, PlanTask
from app.engine.state import JobState
from app.errors import InvalidInput
from app.jobs.saved_input import action_of, with_script
from app.language.parameters import bind
from app.language.script_parameters import env_text
from app.language.shelltext import value_text
from app.settings import Settings
from app.transport import deploy
from app.transport.deploy import Deployment
from app.transport.messages import Job
from app.transport.workspace import Workspace

_NOT_TOLD = frozenset(
    {"command", "script", "stdin", "bound", "queue_timeout", "nodes", "batch", "max_failures"}
)
"""Keys of an input that are no business of the process: what it has anyway, and what is about other nodes."""

_OF_PROCESS = ("cwd", "stdin", "output_limit", "ok_codes")

JOB_BYTES = 1_000_000
"""What a job may be as JSON, with its secrets: sealed and signed it must fit the 2 MB of an order."""

VARIABLE_BYTES = 100_000
"""What one environment variable may hold: Linux takes 128 kB with its name, and then refuses to start the script."""


def build_job(
    execution: str,
    task: PlanTask,
    given: Mapping[str, Any],
    timeout: float | None,
    job: JobState,
    settings: Settings,
    *,
    plan: Plan,
    guard: str = "",
    trace_id: str,
) -> Job:
    """What the node is to run. The same row always gives the same Job, so that its digest is stable.

    `given` is the task's rendered input. A job that the allowlist was enforced for looks for programs in a fixed
    path, whatever the node's own is. Raises InvalidInput where a value cannot be passed: NUL, what an action of a
    pack or a saved script does not take, or a command without a program.
    """
    given = with_script(plan, given)
    seconds = (
        timeout if timeout is not None else given.get("timeout") if task.action == FANOUT_ACTION else None
    )
    limit = None if seconds is None else float(seconds)
    if task.scripted:
        given, env = _of_pack(plan, task.action, given)
        action = plan.actions[task.action]
        deployment, shown = deploy.of_script(action["runner"], action["script"], limit), given
        settled = {"ok_codes": action["ok_codes"]}
    else:
        deployment = _what_runs(task, given, limit)
        env = {str(name): _variable(value) for name, value in (given.get("env") or {}).items()}
        env.update({name: value_text(value) for name, value in (given.get("bound") or {}).items()})
        shown = {key: value for key, value in given.items() if key not in _NOT_TOLD}
        settled = {key: given.get(key) for key in _OF_PROCESS}
    if guard == ENFORCE:
        env.setdefault("PATH", SEARCH_PATH)
    return Job(
        id=job.id,
        execution=execution,
        task=task.name,
        unit=job.unit,
        attempt=job.attempt,
        action=action_of(plan, task.action, given),
        files=deployment.files,
        commands=deployment.commands,
        env=env,
        cwd=settled.get("cwd"),
        stdin=None if settled.get("stdin") is None else value_text(settled["stdin"]),
        input=shown,
        grace=settings.grace,
        output_limit=int(settled.get("output_limit") or settings.output_limit),
        ok_codes=tuple(settled["ok_codes"] or (0,)),
        trace_id=trace_id,
        workspace=_files_of(task, job),
    )


def _files_of(task: PlanTask, job: JobState) -> Workspace | None:
    """What the node is told of files; None for a job that has none."""
    if not task.has_files:
        return None
    wanted = task.workspace or {"mode": "none"}
    return Workspace(
        snapshot=(job.snapshot or "") if wanted["mode"] in ("push", "sync") else "",
        mode=wanted["mode"],
        include=tuple(wanted.get("include", ())),
        exclude=tuple(wanted.get("exclude", ())),
        artifacts=task.artifacts,
    )


def _variable(value: Any) -> str:
    """A value of `env`, fractions in plain decimal: a script cannot be expected to read 1e-07."""
    return env_text("float", value) if isinstance(value, float) else value_text(value)


def _of_pack(plan: Plan, action: str, given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """The values of an action's parameters, and those of them that are scalars as environment variables."""
    values = bind(plan.parameters_of(action), given)
    env = {name: value_text(value) for name, value in values.items() if not isinstance(value, dict | list)}
    for name, text in env.items():
        if len(text.encode()) > VARIABLE_BYTES:
            raise InvalidInput(
                f"`{name}` of {action} has more than {VARIABLE_BYTES} bytes, too many for an environment variable",
                hint="give large values as an object or a list: those are in the file that MUSTER_INPUT names",
            )
    return values, env


def _what_runs(task: PlanTask, given: Mapping[str, Any], timeout: float | None) -> Deployment:
    if task.action == "core.echo":
        return deploy.of_command(("printf", "%s\\n", value_text(given.get("message"))), timeout)
    command = given.get("command")
    if isinstance(command, list | tuple):
        words = [value_text(part) for part in command]
        if not words or not words[0]:
            raise InvalidInput("`command` names no program", hint="its first word must not be empty")
        return deploy.of_command(words, timeout)
    script = given.get("script") if command is None else command
    return deploy.of_script(str(given.get("shell") or "sh"), value_text(script), timeout)
