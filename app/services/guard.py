"""What people make up on the spot is held to the allowlist: once as it is handed in, again as a job is told its node.

Stored workflows are not: who may store one may say what runs, and what they said is kept under their name. Values
that a template gives are not known until a task starts, so what is looked at first is what stands there in words.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection

from app.allow.policy import AUDIT, ENFORCE, OFF, Asked, Policy, Verdict, digest_of, shown
from app.compiler.plan import FANOUT_ACTION, Plan, PlanTask
from app.errors import NotAllowed
from app.language.expressions import has_template
from app.services import audit
from app.services.control import Control
from app.transport.messages import Job

Origin = Literal["stored", "inline", "adhoc"]
"""Where a workflow comes from: the library, a request that carries it, or one command that it was made for."""

STORED: Origin = "stored"

MOST_TOLD = 50
"""Tasks whose commands an audit entry tells."""
LONGEST_TOLD = 8000
_HEAD = 200

_NO_COMMAND = "core.echo"
"""Its command is ours, and what a person writes is never more than the text that it prints."""


def _is_ours(action: str) -> bool:
    """Whether nobody who asks says what runs: an action of a pack was registered, as a workflow is stored."""
    return action == _NO_COMMAND or not action.startswith("core.")


_HINT = (
    "`muster allowlist test` tells what an entry would need; an administrator adds it to the allowlist, or an "
    "author stores it as a workflow"
)


@dataclass(frozen=True, slots=True)
class Examined:
    """What a workflow would run. `guard` is the mode it is held to ("" for none), `told` is for the audit trail."""

    guard: str = ""
    told: tuple[Mapping[str, Any], ...] = ()
    problems: tuple[str, ...] = ()
    refused: bool = False

    @property
    def error(self) -> NotAllowed | None:
        """What whoever asked is answered; None if it may run."""
        if not self.refused:
            return None
        more = f" (and {len(self.problems) - 1} tasks more)" if self.problems[1:] else ""
        return NotAllowed(self.problems[0] + more, hint=_HINT)

    @property
    def detail(self) -> dict[str, Any]:
        """For the entry that is kept with the submission."""
        if not self.guard:
            return {}
        verdict = "refused" if self.refused else "would_refuse" if self.problems else "allowed"
        cut = {"cut": True} if self.told[MOST_TOLD:] else {}
        return {"allowlist": self.guard, "verdict": verdict, "commands": list(self.told[:MOST_TOLD]), **cut}


@dataclass(frozen=True, slots=True)
class _Known:
    """What a task's text says that will run. Without `whole` a template decides more, and it is looked at again."""

    asked: Asked
    whole: bool = True


def examine(control: Control, plan: Plan, origin: Origin) -> Examined:
    """Look at every task before anything is stored."""
    if origin == STORED:
        return Examined()
    policy = control.allowlist.current(control.settings)
    told: list[Mapping[str, Any]] = []
    problems: list[str] = []
    denied = False
    for task in plan.tasks.values():
        runs = task.runs_on_nodes or (task.flow is not None and task.inner.runs_on_nodes)
        known = _known_of(task.inner) if runs else None
        if known is None:
            continue
        verdict = _judge_flow(policy, known) if task.flow else _judge(policy, known)
        denied = denied or verdict.denied
        if not verdict.allowed:
            line = ", for a line of text is for a shell; a list of words may match the entry of a program"
            more = line if isinstance(task.inner.input.get("command"), str) else ""
            what = _told_short(known.asked)
            problems.append(f"task {task.name} may not run {what}: {verdict.why}{more}")
        told.append({"task": task.name, "nodes": _nodes_of(task), **_told(known.asked)})
    refused = denied or (policy.mode == ENFORCE and bool(problems))
    return Examined(
        policy.mode, tuple(told), tuple(problems if policy.mode != OFF or denied else ()), refused
    )


def _known_of(task: PlanTask) -> _Known | None:
    given = task.input
    if _is_ours(task.action) or "script_ref" in given:
        return None
    env = given.get("env")
    names = env if isinstance(env, Mapping) else {}
    bound = {str(name): "" if has_template(str(value)) else str(value) for name, value in names.items()}
    bound.update(dict.fromkeys(task.bound, ""))
    cwd = given.get("cwd")
    cwd = None if cwd is None or ("cwd" not in task.literal and has_template(str(cwd))) else str(cwd)
    shell = str(given.get("shell") or "sh")
    command = given.get("command")
    if isinstance(command, list | tuple):
        words = tuple(str(word) for word in command)
        whole = "command" in task.literal or not any(has_template(word) for word in words)
        return _Known(Asked(words, None, shell, bound, cwd), whole)
    key = "script" if command is None else "command"
    text = str(given.get(key) or "")
    return _Known(Asked(None, text, shell, bound, cwd), key in task.literal)


def _judge(policy: Policy, known: _Known) -> Verdict:
    if known.whole or policy.problem:
        return policy.judge(known.asked)
    argv = known.asked.argv
    if argv and not has_template(argv[0]) and not policy.for_program(argv[0]):
        return policy.judge(Asked(argv[:1]))
    return Verdict(True)


def _judge_flow(policy: Policy, known: _Known) -> Verdict:
    """What a template gives is known on the flow's host only, where nobody looks at it again."""
    if known.whole or policy.mode == OFF or policy.problem:
        return policy.judge(known.asked)
    return Verdict(False, "in a flow a template decides what it is, where no allowlist is asked")


def _nodes_of(task: PlanTask) -> Any:
    if task.flow is not None:
        return task.flow["host"]
    return task.input.get("nodes") if task.action == FANOUT_ACTION else task.delegate_to


def _told(asked: Asked) -> dict[str, Any]:
    """The command whole, unless it is very long; a script by its digest and how it begins."""
    if asked.argv is not None:
        if len(json.dumps(list(asked.argv))) <= LONGEST_TOLD:
            return {"argv": list(asked.argv)}
        text = json.dumps(list(asked.argv))
        return {"argv_sha256": digest_of(text), "head": text[:_HEAD]}
    script = asked.script or ""
    return {"script": digest_of(script), "head": script[:_HEAD], "shell": asked.shell}


def _told_short(asked: Asked) -> str:
    if asked.argv is not None:
        return shown(" ".join(asked.argv))
    return f"a script of {asked.shell} that begins with {shown((asked.script or '').lstrip()[:_HEAD])}"


# jobs, with every value known


def check(control: Control, guard: str, job: Job) -> None:
    """Raises NotAllowed for a job that must not be sent: under the mode at its submission, or the stricter one now."""
    policy, verdict = _verdict(control, guard, job)
    if verdict.denied or (not verdict.allowed and ENFORCE in (guard, policy.mode)):
        raise NotAllowed(f"{_told_short(_asked(job))} may not be run: {verdict.why}", hint=_HINT)


def note(control: Control, connection: Connection, guard: str, person: str, job: Job) -> None:
    """Where the allowlist is only watched, keep what it would have refused."""
    policy, verdict = _verdict(control, guard, job)
    if not verdict.allowed and AUDIT in (guard, policy.mode):
        detail = {"why": verdict.why, **_told(_asked(job))}
        audit.record(connection, person, "job.check", job.id, audit.WOULD_REFUSE, detail, at=control.clock())


def refuse(control: Control, connection: Connection, person: str, job: str, error: NotAllowed) -> None:
    """Keep that a job was refused, with the change that fails it."""
    detail = {"code": error.code, "message": error.message}
    audit.record(connection, person, "job.check", job, audit.REFUSED, detail, at=control.clock())


def _verdict(control: Control, guard: str, job: Job) -> tuple[Policy, Verdict]:
    if not guard or _is_ours(job.action):
        return Policy(), Verdict(True)
    policy = control.allowlist.current(control.settings)
    return policy, policy.judge(_asked(job))


def _asked(job: Job) -> Asked:
    return Asked(job.argv, job.script, job.shell, job.env, job.cwd)
