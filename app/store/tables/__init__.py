"""The tables, by what they are about. Names are plural; `*_at` are moments in UTC."""

from app.store.tables.approvals import Approval, Decision
from app.store.tables.executions import Event, Execution, Job, Output, Task, Timer, Variable
from app.store.tables.fleet import EnrolmentToken, Installation, Node
from app.store.tables.library import Pack, StoredPlan, WorkflowDefinition, WorkflowVersion
from app.store.tables.people import AuditEntry, DeadLetter, IdempotencyKey, Token, User
from app.store.tables.root import Base, table

__all__ = [
    "Approval",
    "AuditEntry",
    "Base",
    "DeadLetter",
    "Decision",
    "EnrolmentToken",
    "Event",
    "Execution",
    "IdempotencyKey",
    "Installation",
    "Job",
    "Node",
    "Output",
    "Pack",
    "StoredPlan",
    "Task",
    "Timer",
    "Token",
    "User",
    "Variable",
    "WorkflowDefinition",
    "WorkflowVersion",
    "table",
]
