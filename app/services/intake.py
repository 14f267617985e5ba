"""The outcomes of one message, taken in within one transaction: recorded, folded, and what follows handed over.

The rule (prototyped under kill -9 and duplicates): a fresh and foreseen outcome goes on with the chain; one that is
not fresh goes on only if the broker marked the message redelivered and the next job is still dispatched and
unaccepted; everything else cuts. A duplicate sends nothing.

A message holds several outcomes where their jobs came in one order: its node went on from each to the next by itself.
Then the row of each is born as the one before it is folded, and has its outcome as it is born.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sqlalchemy import Connection

from app.compiler.canvas import Signature
from app.engine.state import JobState
from app.engine.status import (
    DISPATCHED,
    EXECUTION_OVER,
    JOB_OVER,
    PAUSE,
    SUCCEEDED,
    UNKNOWN,
)
from app.logs import scope
from app.services import dispatched, handover, outcomes, queued, telling, workspaces
from app.services.along import Along
from app.services.approved import NotApproved
from app.services.control import Control
from app.services.dead_letters import letter
from app.services.handover import Parcel
from app.services.lost import lose
from app.services.orders import Recipient
from app.services.run import Run
from app.services.telling import Told
from app.services.vault import SecretRefused
from app.services.workspaces import Papers
from app.store import executions as rows
from app.store import jobs as job_rows
from app.store.head import Head
from app.store.jobs import JobRow
from app.store.tables import Job, table
from app.transport.canvas import rest_digest
from app.transport.gate import Poison
from app.transport.messages import Outcome

log = logging.getLogger(__name__)
jobs = table(Job)


@dataclass(frozen=True, slots=True)
class Canvas:
    """What came back with an outcome, taken off the message: links (next one first), and the chord it counts for."""

    rest: Sequence[Signature] = ()
    body: Signature | None = None
    group_id: str | None = None

    @property
    def digest(self) -> str:
        return rest_digest(self.rest, self.body, self.group_id)


_NO_CANVAS = Canvas()


@dataclass(slots=True)
class Collected:
    """What the `collect` job function is to do: `order` goes to the next link, or the chain is cut.

    `counts` says that the chord may count this member. `early` are the outcomes from the first on whose job is not born
    yet, as that of the job before is still to be taken in: they are to come again, with the canvas.
    """

    order: str | None = None
    counts: bool = False
    fetch: tuple[str, ...] = ()
    settle: set[str] = field(default_factory=set)
    early: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Came:
    """One outcome of a message: as it came, opened, and the documents that it names."""

    token: str
    outcome: Outcome
    papers: Papers


@dataclass(frozen=True, slots=True)
class Recall:
    """A node went on with a job that is not to run: `cancel` it, or `hold` what is behind it."""

    kind: str
    job: str
    node: str


def in_order(came: Sequence[Came]) -> list[Came]:
    """Each behind the one that it follows; otherwise as they came."""
    left, found = {one.outcome.job: one for one in came}, list[Came]()
    while left:
        placed = [one for one in left.values() if one.outcome.after not in left]
        for one in placed or list(left.values()):
            found.append(left.pop(one.outcome.job))
    return found


class Intake:
    """Takes the outcomes of one message in. `canvas` came with it, and belongs to the last of them.

    After `take`: `answer` says what is to be done, `next` what the next link is to carry, `parcel` holds what leaves,
    `recalls` what nodes are to be told, `crowded` those of the nodes for which jobs wait.
    """

    def __init__(
        self, control: Control, connection: Connection, canvas: Canvas, *, redelivered: bool
    ) -> None:
        self.answer = Collected()
        self.parcel = Parcel()
        self.next: tuple[Told, Recipient] | None = None
        self.recalls: list[Recall] = []
        self.crowded: set[str] = set()
        self._control = control
        self._connection = connection
        self._canvas = canvas
        self._redelivered = redelivered
        self._now = control.clock()
        self._execution = ""
        self._run: Run | None = None
        self._gathered = ExitStack()
        self._printed: list[tuple[JobRow, Outcome]] = []

    def take(self, came: Sequence[Came]) -> None:
        with self._gathered:
            for one in came:
                if self.answer.early:
                    # They stand in the order in which they ran.
                    self.answer.early.append(one.token)
                    continue
                self._one(one, self._canvas if one is came[-1] else _NO_CANVAS, alone=len(came) == 1)
        for row, outcome in self._printed:
            outcomes.keep_output(self._connection, row, outcome)
        if self._run is not None:
            note_end(self._run, self.parcel)
            if self._run.stops:
                # Whoever settles tells the nodes.
                self.answer.settle.add(self._run.execution)

    def _one(self, came: Came, canvas: Canvas, *, alone: bool) -> None:
        outcome, answer = came.outcome, self.answer
        row, head = self._find(outcome, canvas)
        if row is None:
            self._without_row(came)
            return
        if not outcomes.belongs(row, outcome) or row.execution != self._execution:
            self._letter("other-job", outcome)
            return
        scope.note(execution=row.execution, task=row.task, job=row.id, node=row.node, trace_id=row.trace_id)
        genuine = _is_genuine(canvas, row)
        if not genuine:
            self._letter("other-canvas", outcome)
        answer.counts = canvas.body is not None and genuine
        if row.crowded:
            self.crowded.add(row.node)
        if outcomes.is_incomplete(outcome):
            answer.fetch = (*answer.fetch, outcome.job)
        if alone and answer.counts and outcome.status != UNKNOWN:
            self._member(row, outcome)
            return
        run = self._run or self._begin(row, head)
        self.next = self._line(run, row, came, canvas.rest if genuine else ())

    def _find(self, outcome: Outcome, canvas: Canvas) -> tuple[JobRow | None, Head | None]:
        """The job's row, with its execution's where the outcome moves it: a chord's member takes its job row only.

        The first that is found says which execution the message is about: no other is locked for it.
        """
        unborn = self._run.unborn(outcome.job) if self._run else None
        if self._run and unborn is not None:
            return _row_of(self._run, outcome.job, unborn), None
        if self._run and self._run.is_touched(outcome.job):
            self._run.flush()
        if self._execution or canvas.body is not None:
            row, head = job_rows.find(self._connection, outcome.job), None
        else:
            row, head = job_rows.lock_execution_of(self._connection, outcome.job) or (None, None)
        self._execution = self._execution or (row.execution if row else "")
        return row, head

    def _begin(self, row: JobRow, head: Head | None) -> Run:
        plan = rows.plan(self._connection, row.plan_digest)
        head = head or rows.lock(self._connection, row.execution)
        self._run = run = Run(self._control, self._connection, head, plan)
        self._gathered.enter_context(run.gathered())
        return run

    def _member(self, row: JobRow, outcome: Outcome) -> None:
        """A chord's member touches its own row only; the body settles. What cannot wait nudges a settle at once."""
        given = partial(job_rows.input_of, self._connection, row)
        fresh = outcomes.record(self._connection, row, outcome, self._now, given, settled=False)
        if fresh and outcome.status != SUCCEEDED:
            self.answer.settle.add(row.execution)

    def _line(
        self, run: Run, row: JobRow, came: Came, rest: Sequence[Signature]
    ) -> tuple[Told, Recipient] | None:
        """The last `collect` of a line settles in its own transaction; in mid-line the chain goes on."""
        outcome = came.outcome
        told = Along.read(row.along)
        gone = told if told is not None and outcome.then == told.first else None
        job = self._recorded(run, row, came)
        if job is None:
            if gone is not None and job_rows.find(self._connection, gone.first) is None:
                # It was given up here, and its node goes on from it.
                self.recalls.append(Recall("cancel", gone.first, row.node))
            return _again(run, rest) if self._redelivered else None
        if outcome.status == UNKNOWN:
            lose(run, row.id)
        else:
            run.fold(job, went_on=gone is not None)
        if gone is not None:
            self._gone(run, row, gone, outcome.ended_at or self._now)
        run.dispatch += queued.next_of(run, row.task)
        follower = handover.admit(run, self.parcel, rest)
        return self.parcel.orders.get(follower) if follower else None

    def _recorded(self, run: Run, row: JobRow, came: Came) -> JobState | None:
        """The job with its outcome, None where it had one."""
        outcome = came.outcome

        def given() -> Mapping[str, Any]:
            return row.given["input"] if row.given is not None else run.input_of(row.task)[0]

        unborn = run.unborn(row.id)
        if unborn is not None and outcome.status != UNKNOWN:
            job = run.slice.jobs[row.id]
            for name, value in outcomes.columns_of(run.plan, row, outcome, self._now, given).items():
                if name == "recorded_at":
                    run.mark(job, {name: value})
                else:
                    setattr(job, name, value)
            self._printed.append((row, outcome))
            return job
        if unborn is not None:
            run.flush()
        filing = workspaces.Filing(run, row, outcome, came.papers)
        written = outcomes.record(self._connection, row, outcome, self._now, given, filing, settled=True)
        return None if written is None else _as_state(row, written)

    def _gone(self, run: Run, row: JobRow, told: Along, ended_at: float) -> None:
        """Its node has begun the next job: its row says so, if the engine bore it; else it must not go on."""
        job = run.slice.jobs.get(told.first)
        if job is None or run.unborn(job.id) is None:
            self.recalls.append(Recall("cancel", told.first, row.node))
            return
        job.started_at = ended_at
        timeout = run.input_of(job.task)[1]
        run.mark(job, dispatched.of_gone(run.control, told, timeout, row.epoch, ended_at, run.now))
        state, node = run.head.state, run.slice.fleet.get(row.node)
        if (state.intent == PAUSE and not state.halt) or node is None or node.state != "active":
            self.recalls.append(Recall("hold", told.first, row.node))

    def _without_row(self, came: Came) -> None:
        """A job of which nothing is known here: its node went on with it, or somebody made it up."""
        outcome = came.outcome
        if self._run is not None:
            self._run.flush()
        before = job_rows.find(self._connection, outcome.after) if outcome.after else None
        if outcome.after and (before is None or before.status not in JOB_OVER):
            self.answer.early.append(came.token)
        elif before is None or not _was_told(before, outcome):
            self._letter("no-such-job", outcome)
        else:
            # What came before it was settled without its node's word: a timeout, a lost node, a person.
            self._letter("ran-ahead", outcome)

    def _letter(self, reason: str, outcome: Outcome) -> None:
        letter(self._connection, "results", reason, outcome.job, self._now)


def _was_told(before: JobRow, outcome: Outcome) -> bool:
    """Whether the node of this job was told of the one of the outcome, behind it."""
    told = Along.read(before.along)
    mine = told is not None and told.jobs[0] == (outcome.job, outcome.digest)
    return mine and (before.node, before.epoch) == (outcome.node, outcome.epoch)


def _row_of(run: Run, job: str, marked: Mapping[str, Any]) -> JobRow | None:
    """The row that a job will have which was born in this transaction, if its node has it."""
    state = run.slice.jobs[job]
    if not marked.get("epoch"):
        return None
    return JobRow(
        id=state.id,
        execution=run.execution,
        task=state.task,
        unit=state.unit,
        attempt=state.attempt,
        node=state.node,
        queue_timeout=state.queue_timeout,
        given=state.given,
        along=marked["along"],
        snapshot=state.snapshot,
        status=state.status,
        effect_unknown=False,
        has_late=False,
        epoch=marked["epoch"],
        digest=marked["digest"],
        canvas_digest=marked["canvas_digest"],
        first_canvas_digest="",
        plan_digest=run.head.plan_digest,
        trace_id=run.head.trace_id,
        crowded=False,
    )


def _is_genuine(canvas: Canvas, row: JobRow) -> bool:
    """Whether the canvas that came back is, link for link, one that went out with this job's orders.

    A job that was sent again has two: what it was sent with at first, and the line of its own that it was sent
    with later. A node that takes but one job of an order sends its canvas back with that one.
    """
    told = Along.read(row.along)
    known = (row.canvas_digest, row.first_canvas_digest, told.canvas if told else "")
    try:
        return canvas.digest in known
    except Poison:
        return False


def _as_state(row: JobRow, written: Mapping[str, Any]) -> JobState:
    """The job as it stands now, but for `settled`, which the engine has still to say."""
    outcome = {name: value for name, value in written.items() if name != "recorded_at"}
    return JobState(
        row.id,
        row.task,
        row.unit,
        row.attempt,
        row.node,
        queue_timeout=row.queue_timeout,
        given=row.given,
        **outcome,
    )


def _again(run: Run, rest: Sequence[Signature]) -> tuple[Told, Recipient] | None:
    """A redelivered message whose next job no node has seen: the same job once more."""
    if not rest:
        return None
    state = rows.load_job(run.connection, rest[0]["options"]["task_id"])
    if state is None or state.status != DISPATCHED:
        return None
    place = handover.places(run.connection, {state.node}, run.now, run.control.settings.offline_after).get(
        state.node
    )
    if place is None:
        return None
    try:
        about, given = telling.of_run(run), run.given_to(state)
        told = telling.again(run.control, run.connection, about, run.plan, state, given)
        return told, place.recipient
    except (SecretRefused, NotApproved):
        # As where an order is sent again: it waits until the one that was sent has expired.
        return None


def note_end(run: Run, parcel: Parcel) -> None:
    """Whether the execution is over by now, or somebody else is to be told of it."""
    if run.children:
        parcel.families.add(run.execution)
    if run.head.state.status in EXECUTION_OVER:
        parcel.over.add(run.execution)
        if run.head.parent is not None:
            parcel.families.add(run.head.parent)
