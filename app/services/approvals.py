"""People decide: approve, reject, answer. One winner by the lock of the execution; every word is kept."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, RowMapping, insert, select, update

from app.engine.events import Decided
from app.errors import Conflict, InvalidInput, NotAllowed, NotFound
from app.language.fitting import misfits
from app.services import audit, questions, subjects
from app.services.control import Control
from app.services.run import Run
from app.store.approvals import PENDING, STATUSES
from app.store.tables import Approval, Decision, Execution, table

approvals, decisions, executions = table(Approval), table(Decision), table(Execution)

STATUS_NAMES = STATUSES
"""What a question may be."""

MOST_TOLD = 50
"""Ways in which an answer does not fit that are told at once."""

_SUMMARY = [column for column in approvals.c if column.name != "subject"]
_OUTCOME = {"approve": "approved", "reject": "rejected", "answer": "answered"}
_VERBS = {"approval": ("approve", "reject"), "inquiry": ("answer",)}


@dataclass(frozen=True, slots=True)
class Word:
    """What a person says: `decision` is approve, reject or answer."""

    person: str
    decision: str
    reason: str = ""
    answer: Any = None


def decide(control: Control, approval: str, word: Word) -> dict[str, Any]:
    """Count one person's word, and let the execution go on if it was the one that was needed. Returns the question.

    Raises NotFound; Conflict (`already-decided`, `approval-expired`, `said-already`, `subject-changed`); NotAllowed
    (`own-request`, `not-approver`); InvalidInput where it is no such question, or the answer does not fit its schema.
    """
    action = f"approval.{word.decision}"
    detail = {"reason": word.reason}
    with audit.writing(control, word.person, action, approval, detail) as connection:
        execution = _row(connection, approval).execution
        run = Run.lock(control, connection, execution)
        # Again, now that nobody else can change it.
        row = _row(connection, approval)
        detail["digest"] = row.digest
        _check(row, word, run)
        if word.person in _people(connection, approval):
            hint = "others must decide"
            raise Conflict(f"{word.person} has decided this already", hint=hint, code="said-already")
        said = {"approval": approval, "person": word.person, "decision": word.decision}
        connection.execute(insert(decisions).values(**said, reason=word.reason, at=run.now))
        people = _people(connection, approval) if word.decision == "approve" else [word.person]
        if word.decision != "approve" or len(people) >= row.quorum:
            outcome = _OUTCOME[word.decision]
            connection.execute(
                update(approvals)
                .where(approvals.c.id == approval)
                .values(status=outcome, answer=word.answer, decided_at=run.now)
            )
            run.take(Decided(row.job, outcome, tuple(people), word.reason, word.answer))
            questions.tell_decided(connection, run.head, row, outcome, people, run.now)
        found = _shown(connection, approval)
    control.nudge([execution])
    return found


def _check(row: Row[Any], word: Word, run: Run) -> None:
    if row.status != PENDING:
        raise Conflict(
            f"approval {row.id} is {row.status}", hint="nothing is left to decide", code="already-decided"
        )
    if row.expires_at is not None and row.expires_at <= run.now:
        raise Conflict(
            f"approval {row.id} has expired", hint="nothing is left to decide", code="approval-expired"
        )
    if word.decision not in _VERBS[row.kind]:
        known = " or ".join(_VERBS[row.kind])
        raise InvalidInput(f"this is an {row.kind}: {known} it", code="wrong-kind")
    if row.approvers and word.person not in row.approvers:
        message = f"{word.person} is not among those who may decide this"
        raise NotAllowed(message, hint=f"ask {', '.join(row.approvers[:5])}", code="not-approver")
    if row.kind == "approval" and word.person in subjects.askers(run):
        raise NotAllowed("nobody approves their own request", hint="ask somebody else", code="own-request")
    if row.kind == "inquiry" and row.answer_schema is not None:
        _check_answer(row.answer_schema, word.answer)
    if word.decision == "approve" and not row.task:
        questions.check_unchanged(run.connection, row, run.head.plan_digest)


def _check_answer(schema: Any, answer: Any) -> None:
    errors = [
        {"pointer": f"/answer{one.pointer}", "detail": one.message, "code": one.rule}
        for one in islice(misfits(schema, answer), MOST_TOLD)
    ]
    if errors:
        raise InvalidInput(
            "the answer does not fit the schema of the question", code="bad-answer", errors=errors
        )


def _people(connection: Connection, approval: str) -> list[str]:
    """Who has said something: as long as a question is pending, all of them approved."""
    query = select(decisions.c.person).where(decisions.c.approval == approval)
    return list(connection.execute(query.order_by(decisions.c.at, decisions.c.person)).scalars())


def _row(connection: Connection, approval: str) -> Row[Any]:
    row = connection.execute(select(approvals).where(approvals.c.id == approval)).first()
    if row is None:
        raise unknown(approval)
    return row


def unknown(approval: str) -> NotFound:
    """That there is no such question."""
    return NotFound(f"there is no approval {approval}", code="unknown-approval")


def get(connection: Connection, approval: str) -> dict[str, Any]:
    """One question with what was said to it. Raises NotFound."""
    _row(connection, approval)
    return _shown(connection, approval)


def _shown(connection: Connection, approval: str) -> dict[str, Any]:
    query = select(approvals, executions.c.workflow_ref, executions.c.plan_digest).join(
        executions, executions.c.id == approvals.c.execution
    )
    row = connection.execute(query.where(approvals.c.id == approval)).one()
    said = select(decisions).where(decisions.c.approval == approval).order_by(decisions.c.at)
    said_by = [dict(one) for one in connection.execute(said).mappings()]
    return {**row._mapping, "decisions": said_by, "about": questions.about(connection, row)}


def list_approvals(
    connection: Connection,
    *,
    limit: int,
    before: str | None = None,
    status: str | None = None,
    within: ColumnElement[bool] | None = None,
) -> list[RowMapping]:
    """Questions, the newest first; those for which `within` holds."""
    query = select(*_SUMMARY, executions.c.workflow_ref).join(
        executions, executions.c.id == approvals.c.execution
    )
    if status is not None:
        query = query.where(approvals.c.status == status)
    if before is not None:
        query = query.where(approvals.c.id < before)
    if within is not None:
        query = query.where(within)
    return list(connection.execute(query.order_by(approvals.c.id.desc()).limit(limit)).mappings())
