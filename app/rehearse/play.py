"""One test played through the real engine: virtual time, given outcomes, no processes.

What is due next happens next. At the same moment people come before jobs, jobs before timers, and answers last: who
answers as a question expires is too late.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from app.compiler.plan import Plan
from app.engine.events import TimerDue
from app.engine.rehearsal import Rehearsal, TimerKey
from app.engine.result import misfit
from app.engine.state import Ask, JobState
from app.engine.status import CANCELLED, FAILED, PAUSE, RUNNING, SKIPPED, SUCCEEDED, TASK_LIVE, TIMED_OUT
from app.errors import InvalidInput
from app.language.fitting import misfits
from app.language.parameters import bind
from app.marks import CONFIG, SECRET
from app.rehearse.grammar import LOST
from app.rehearse.model import Answer, Attempts, Case, ChildEnd, Intervention, Outcome

START = 946_684_800.0
"""When every test begins: 2000-01-01T00:00:00Z."""

MOST_EVENTS = 20_000

_SYSTEM = {
    "execution_id": "01TEST",
    "timestamp": "2000-01-01T00:00:00Z",
    "identity": {"login": "tester"},
}
_DECIDED = {"approve": "approved", "reject": "rejected", "answer": "answered"}
_STOPPED = Outcome(CANCELLED)
_PERSON, _WORK, _TIMER, _ANSWER = range(4)


_Given = TypeVar("_Given", Outcome, Answer, ChildEnd)


@dataclass(slots=True)
class Played:
    """What came of a test. `took` is in seconds of virtual time, `complaints` say what the test itself got wrong."""

    world: Rehearsal
    took: float
    complaints: list[str] = field(default_factory=list)

    @property
    def order(self) -> list[str]:
        """The tasks that ran, in the order in which they started; skipped ones did not."""
        begun = [
            line["task"] for line in self.world.log if line["what"] == "task" and line["status"] == RUNNING
        ]
        return [name for name in dict.fromkeys(begun) if self.world.tasks[name].status != SKIPPED]

    @property
    def waits(self) -> list[float]:
        """Seconds before each retry, in the order in which they were decided."""
        return [line["wait"] for line in self.world.log if line["what"] == "retry" and "wait" in line]

    @property
    def open(self) -> list[str]:
        """What an execution that is not over still waits for, in words."""
        if self.world.over:
            return []
        live = [task for task in self.world.tasks.values() if task.status in TASK_LIVE]
        return [f"{task.name} ({task.wait_reason or task.status})" for task in live]


def play(plan: Plan, case: Case) -> Played:
    """Play a test to the end of its execution, or until nothing can happen any more."""
    player = _Player(plan, case)
    player.play()
    return Played(player.world, player.world.now - START, player.complaints)


class _Player:
    def __init__(self, plan: Plan, case: Case) -> None:
        self.case = case
        self.world = Rehearsal(
            plan, case.fleet, case.parameters, now=START, system=_SYSTEM, kv=case.kv, config=case.config
        )
        self.complaints: list[str] = []
        self._agenda: list[tuple[float, int, int, Any]] = []
        self._planned = 0
        self._at = [one for one in case.at if one.seconds is None]
        self._held: list[TimerKey] = []
        self._seen_started = self._seen_armed = self._seen_asked = self._seen_stops = 0
        self._used: set[str] = set()
        for one in case.at:
            if one.seconds is not None:
                self._plan(START + one.seconds, _PERSON, one)

    def play(self) -> None:
        self.world.submit()
        self._notice()
        events = 0
        while not self.world.over and (self._intervene() or self._next()):
            self._notice()
            events += 1
            if events >= MOST_EVENTS:
                self.complaints.append(f"stopped after {MOST_EVENTS} events")
                break
        late = [entry[3] for entry in self._agenda if isinstance(entry[3], Intervention)]
        self.complaints += [f"at: `{one.when}` never came, nobody did {one.do}" for one in (*self._at, *late)]
        if self.case.strict:
            given = {*self.case.outcomes, *self.case.answers, *self.case.children}
            unused = sorted(given - self._used)
            self.complaints += [f"strict: what is given for {name} was never used" for name in unused]

    def _plan(self, due: float, rank: int, what: Any) -> None:
        self._planned += 1
        heapq.heappush(self._agenda, (due, rank, self._planned, what))

    # what the last step brought

    def _notice(self) -> None:
        world = self.world
        for id_ in world.started[self._seen_started :]:
            self._plan_job(world.jobs[id_])
        self._seen_started = len(world.started)
        for key in world.armed[self._seen_armed :]:
            if key in world.timers:
                self._plan(world.timers[key], _TIMER, key)
        self._seen_armed = len(world.armed)
        for id_ in world.asked[self._seen_asked :]:
            if id_ in world.asks:
                self._plan_answer(world.asks[id_])
            elif id_ in world.children:
                self._plan_child(world.jobs[id_])
        self._seen_asked = len(world.asked)
        for id_ in world.told_to_stop[self._seen_stops :]:
            self._plan(world.now, _WORK, (id_, _STOPPED, ()))
        self._seen_stops = len(world.told_to_stop)

    def _plan_job(self, job: JobState) -> None:
        missing = self._missing_secret(job)
        given, timeout = self._given(job)
        outcome = Outcome(FAILED, error=missing) if missing else self._refused(job, given)
        outcome = outcome or self._outcome(job)
        takes = outcome.takes
        if timeout is not None and takes > timeout:
            error = {"type": "timeout", "message": f"ended after {timeout:g} s"}
            outcome, takes = Outcome(TIMED_OUT, stdout=outcome.stdout, error=error), timeout
        self._plan(self.world.now + takes, _WORK, (job.id, outcome, ()))

    def _missing_secret(self, job: JobState) -> Mapping[str, Any] | None:
        """The error of a job that names a secret which there is not: it ends before anything is sent."""
        for reference in self.world.plan.tasks[job.task].secrets:
            kind, _, name = reference.partition(":")
            if kind == CONFIG:
                name = str(self.case.config.get(name))
            if kind in (SECRET, CONFIG) and name not in self.case.secrets:
                return {"type": "secret", "message": f"there is no secret {name}"}
        return None

    def _refused(self, job: JobState, given: Mapping[str, Any]) -> Outcome | None:
        """What becomes of a job whose rendered input its action does not take."""
        plan, action = self.world.plan, self.world.plan.tasks[job.task].action
        if not self.world.plan.tasks[job.task].scripted:
            return None
        try:
            bind(plan.parameters_of(action), given)
        except InvalidInput as problem:
            return Outcome(FAILED, error={"type": "input", "message": problem.message})
        return None

    def _outcome(self, job: JobState) -> Outcome:
        mock = self.case.outcomes.get(job.task)
        attempts: Attempts | None = None
        if mock is not None:
            by_node = mock.units.get(job.node) if self.world.plan.tasks[job.task].kind == "fanout" else None
            attempts = mock.units.get(str(job.unit)) or by_node or mock.others
        if attempts is None:
            if self.case.strict:
                unit = f" unit {job.unit}" if self.world.tasks[job.task].units > 1 else ""
                self.complaints.append(f"strict: {job.task}{unit} ran and no outcome is given")
            return Outcome()
        self._used.add(job.task)
        return _of_attempt(attempts, job)

    def _given(self, job: JobState) -> tuple[Mapping[str, Any], float | None]:
        """The rendered input of a job, and its timeout."""
        if job.given is not None:
            return job.given["input"], job.given["timeout"]
        task = self.world.tasks[job.task]
        return task.input or {}, task.timeout

    def _plan_answer(self, ask: Ask) -> None:
        answers = self.case.answers.get(ask.task)
        if answers is None:
            return
        self._used.add(ask.task)
        answer = _of_attempt(answers, self.world.jobs[ask.job])
        needed = ask.quorum if answer.decision == "approve" else 1
        people = dict.fromkeys(answer.by or _enough(ask.approvers, needed))
        strangers = [one for one in people if ask.approvers and one not in ask.approvers]
        if strangers:
            who = ", ".join(ask.approvers)
            self.complaints.append(f"answers.{ask.task}: {strangers[0]} may not decide, only {who}")
        elif answer.decision == "answer" and (problem := _misfit(ask.schema, answer.answer)):
            self.complaints.append(f"answers.{ask.task}: {problem}")
        elif answer.decision != "expire" and len(people) >= needed:
            self._plan(self.world.now + answer.after, _ANSWER, (ask.job, answer, tuple(people)))

    def _plan_child(self, job: JobState) -> None:
        ends = self.case.children.get(job.task)
        if ends is not None:
            self._used.add(job.task)
        elif self.case.strict:
            self.complaints.append(f"strict: {job.task} called a workflow and no end is given")
        end = _of_attempt(ends, job) if ends else ChildEnd()
        self._plan(self.world.now + end.after, _WORK, (job.id, end, ()))

    # what happens next

    def _intervene(self) -> bool:
        """Whether somebody did something because of a status."""
        for one in self._at:
            status = self.world.tasks[one.task].status if one.task else self.world.execution.status
            if status == one.status:
                self._at.remove(one)
                self._do(one)
                return True
        return False

    def _do(self, one: Intervention) -> None:
        if one.do == "pause":
            self.world.pause()
        elif one.do == "resume":
            self.world.resume()
            for key in self._held:
                self._plan(self.world.timers.get(key, 0.0), _TIMER, key)
            self._held.clear()
        else:
            self.world.cancel(forced=one.do == "force_cancel")

    def _next(self) -> bool:
        """The next thing that is due. False where nothing is."""
        while self._agenda:
            due, rank, _, what = heapq.heappop(self._agenda)
            if rank == _PERSON:
                self.world.now = max(self.world.now, due)
                self._do(what)
                return True
            if self._timer(what) if rank == _TIMER else self._job(due, *what):
                return True
        return False

    def _job(self, due: float, job: str, end: Outcome | ChildEnd | Answer, people: tuple[str, ...]) -> bool:
        """A job, a child or a question comes to its end. False where it has one."""
        world = self.world
        if not (world.is_open(job) or job in world.asks or job in world.children):
            return False
        world.now = max(world.now, due)
        if isinstance(end, Outcome):
            self._end(world.jobs[job], _STOPPED if job in world.stopped else end)
        elif isinstance(end, ChildEnd):
            world.end_child(job, end.status, end.output, end.message)
        else:
            world.decide(job, _DECIDED[end.decision], people, end.reason, end.answer)
        return True

    def _timer(self, key: TimerKey) -> bool:
        if key not in self.world.timers:
            return False
        if self.world.execution.intent == PAUSE and TimerDue(*key).is_a_start:
            self._held.append(key)
            return False
        self.world.fire_timer(key)
        return True

    def _end(self, job: JobState, outcome: Outcome) -> None:
        task = self.world.plan.tasks[job.task]
        if outcome.status == LOST and not task.idempotent:
            self.world.lose(job.id)
            return
        given, _ = self._given(job)
        action = self.world.plan.actions.get(task.action)
        fine = given.get("ok_codes") if action is None else action["ok_codes"]
        good = outcome.exit_code in (None, *(fine or (0,)))
        status = outcome.status or (SUCCEEDED if good else FAILED)
        status = FAILED if status == LOST else status
        error = outcome.error
        if action is not None and status == SUCCEEDED and outcome.result:
            error = misfit(action, outcome.result)
            status = FAILED if error else status
        own = {"message": given.get("message")} if task.action == "core.echo" else outcome.result
        code = outcome.exit_code
        if code is None and status in (SUCCEEDED, FAILED):
            code = 0 if status == SUCCEEDED or error is not outcome.error else 1
        streams = {"stdout": outcome.stdout.rstrip("\n"), "stderr": outcome.stderr.rstrip("\n")}
        result = {**own, "exit_code": code, **streams, "truncated": False}
        self.world.end(job.id, status, result, error or _error(outcome.status, status, code))


def _of_attempt(many: Sequence[_Given], job: JobState) -> _Given:
    """What is given for this attempt; the last one holds for all that follow."""
    return many[min(job.attempt, len(many)) - 1]


def _enough(approvers: Sequence[str], needed: int) -> list[str]:
    return list(approvers[:needed]) or [f"person-{number}" for number in range(1, needed + 1)]


def _error(asked: str, status: str, code: int | None) -> dict[str, Any] | None:
    """The error that a node, or the control side for it, reports of such an end."""
    if status == SUCCEEDED:
        return None
    if asked == LOST:
        return {"type": LOST, "message": "the node vanished"}
    if status == FAILED:
        return {"type": "exit", "message": f"exit code {code}"}
    kind = "timeout" if status == TIMED_OUT else status
    return {"type": kind, "message": kind}


def _misfit(schema: Any, answer: Any) -> str:
    """Why an answer does not fit the schema of its question, or ""."""
    if schema is None:
        return ""
    found = next(misfits(schema, answer), None)
    return (
        "" if found is None else f"the answer does not fit the schema: {found.pointer or '/'} {found.message}"
    )
