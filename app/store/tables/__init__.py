"""The tables, by what they are about. Names are plural; `*_at` are moments in UTC."""

from app.store.tables.approvals import Approval, Decision
from app.store.tables.automation import Script, ScriptVersion
from app.store.tables.executions import Event, Execution, Job, Output, Pin, Task, Timer, Variable
from app.store.tables.fleet import EnrolmentToken, Installation, Node
from app.store.tables.library import (
    Pack,
    PackAction,
    PackFile,
    StoredPlan,
    WorkflowDefinition,
    WorkflowVersion,
)
from app.store.tables.notifications import Notification
from app.store.tables.people import AuditChain, AuditEntry, DeadLetter, IdempotencyKey, Token, User
from app.store.tables.root import Base, table
from app.store.tables.schedules import Schedule, ScheduleTick
from app.store.tables.vault import KeyValue, Secret, SecretParameter
from app.store.tables.workspaces import (
    Artifact,
    Blob,
    BlobHolder,
    JobUpload,
    Snapshot,
    SnapshotPoster,
    WorkspaceStep,
)

__all__ = [
    "Approval",
    "Artifact",
    "AuditChain",
    "AuditEntry",
    "Base",
    "Blob",
    "BlobHolder",
    "DeadLetter",
    "Decision",
    "EnrolmentToken",
    "Event",
    "Execution",
    "IdempotencyKey",
    "Installation",
    "Job",
    "JobUpload",
    "KeyValue",
    "Node",
    "Notification",
    "Output",
    "Pack",
    "PackAction",
    "PackFile",
    "Pin",
    "Schedule",
    "ScheduleTick",
    "Script",
    "ScriptVersion",
    "Secret",
    "SecretParameter",
    "Snapshot",
    "SnapshotPoster",
    "StoredPlan",
    "Task",
    "Timer",
    "Token",
    "User",
    "Variable",
    "WorkflowDefinition",
    "WorkflowVersion",
    "WorkspaceStep",
    "table",
]
