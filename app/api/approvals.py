"""Questions that executions ask people, and the answers."""

from __future__ import annotations

from typing import Any

from flask_smorest import Blueprint

from app.api import asked, paging, shown, within
from app.api.gate import needs, person
from app.api.strict import Parser
from app.api.wiring import control, reading
from app.services import approvals as service
from app.services import scope
from app.services.approvals import Word

approvals = Blueprint("approvals", __name__, description="Questions to people, and what they decide.")
approvals.ARGUMENTS_PARSER = Parser()


@approvals.route("/automation/approvals", methods=["GET"])
@needs("viewer", within.ANYTHING)
@approvals.arguments(asked.ApprovalsQuery, location="query")
@approvals.response(200, shown.ApprovalsSchema)
def list_approvals(query: dict[str, Any]) -> Any:
    """Questions, the newest first; `?status=pending` is the inbox."""
    before = paging.behind(query["cursor"], str)
    with reading() as connection:
        found = service.list_approvals(
            connection,
            limit=query["limit"] + 1,
            before=before,
            status=query["status"],
            within=scope.approvals_of(person()),
        )
    return paging.answer(found, query["limit"], lambda row: [row["id"]])


@approvals.route("/automation/approvals/<ulid:id>", methods=["GET"])
@needs("viewer", within.APPROVAL)
@approvals.response(200, shown.ApprovalSchema)
def get_approval(id: str) -> dict[str, Any]:
    """One question: what would run where, and what was said to it."""
    with reading() as connection:
        return service.get(connection, id)


@approvals.route("/automation/approvals/<ulid:id>/approve", methods=["POST"])
@needs("approver", within.DECISION)
@approvals.arguments(asked.ReasonSchema)
@approvals.arguments(asked.DecisionQuery, location="query")
@approvals.response(200, shown.ApprovalSchema)
def approve(body: dict[str, Any], query: dict[str, Any], id: str) -> dict[str, Any]:
    """Approve; with a quorum it goes on once so many people have."""
    return service.decide(control(), id, Word(person().login, "approve", body["reason"] or query["reason"]))


@approvals.route("/automation/approvals/<ulid:id>/reject", methods=["POST"])
@needs("approver", within.DECISION)
@approvals.arguments(asked.ReasonSchema)
@approvals.arguments(asked.DecisionQuery, location="query")
@approvals.response(200, shown.ApprovalSchema)
def reject(body: dict[str, Any], query: dict[str, Any], id: str) -> dict[str, Any]:
    """Reject; one person is enough. The reason may stand in the body or in the query."""
    return service.decide(control(), id, Word(person().login, "reject", body["reason"] or query["reason"]))


@approvals.route("/automation/approvals/<ulid:id>/answer", methods=["POST"])
@needs("operator", within.ANSWER)
@approvals.arguments(asked.AnswerSchema)
@approvals.response(200, shown.ApprovalSchema)
def answer(body: dict[str, Any], id: str) -> dict[str, Any]:
    """Answer an inquiry; the answer must fit the question's schema."""
    return service.decide(control(), id, Word(person().login, "answer", body["reason"], body["answer"]))
