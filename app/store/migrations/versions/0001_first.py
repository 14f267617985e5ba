"""Every table of the first version.

Column types are spelled out here: a migration must not change when the code does.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

JSON = sa.JSON(none_as_null=True)

EXECUTION_STATUSES = (
    "status IN ('requested', 'scheduling', 'running', 'waiting', 'pausing', 'paused', 'cancelling', "
    "'completed', 'failed', 'cancelled', 'rejected')"
)
TASK_STATUSES = (
    "status IN ('pending', 'running', 'waiting', 'succeeded', 'failed', 'timed_out', 'skipped', "
    "'cancelled', 'not_reached')"
)
JOB_STATUSES = (
    "status IN ('queued', 'dispatched', 'accepted', 'running', 'suspect', 'unknown', 'succeeded', 'failed', "
    "'timed_out', 'cancelled', 'skipped', 'not_reached')"
)


def _columns(kind: Any, names: tuple[str, ...], null: bool) -> list[Any]:
    return [sa.Column(name, kind, nullable=null) for name in names]


def _texts(length: int | None, *names: str) -> list[Any]:
    return _columns(sa.String(length) if length else sa.Text(), names, False)


def _numbers(*names: str, null: bool = False) -> list[Any]:
    return _columns(sa.Integer(), names, null)


def _flags(*names: str) -> list[Any]:
    return _columns(sa.Boolean(), names, False)


def _doubles(*names: str, null: bool = False) -> list[Any]:
    return _columns(sa.Double(), names, null)


def _moments(*names: str, null: bool = False) -> list[Any]:
    return _columns(sa.DateTime(timezone=True), names, null)


def _json(*names: str, null: bool = False) -> list[Any]:
    return _columns(JSON, names, null)


def upgrade() -> None:
    _people()
    _audit()
    _fleet()
    _library()
    _executions()
    _tasks()
    _jobs()
    _history()
    _approvals()
    _notifications()
    _vault()
    _automation()
    _schedules()
    _workspaces()


def downgrade() -> None:
    for table in (
        "workspace_steps", "artifacts", "job_uploads", "snapshot_posters", "snapshots", "blob_holders", "blobs",
        "schedule_ticks", "schedules",
        "script_versions", "scripts",
        "secret_parameters", "secrets", "kv",
        "notifications",
        "approval_decisions", "approvals", "outputs", "pins", "events", "timers", "variables", "jobs", "tasks",
        "executions", "workflow_versions", "workflow_definitions", "plans", "pack_actions", "pack_files",
        "packs", "enrolment_tokens", "nodes", "installation",
        "dead_letters", "audit_chain", "audit_entries", "idempotency_keys", "tokens", "users",
    ):  # fmt: skip
        op.drop_table(table)


def _people() -> None:
    """Who may ask."""
    op.create_table(
        "users",
        *_numbers("id"),
        *_texts(64, "login"),
        *_texts(16, "role"),
        *_json("grants", null=True),
        *_flags("enabled"),
        *_moments("created_at"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_users")),
        sa.UniqueConstraint("login", name=op.f("uq_users_login")),
    )
    op.create_table(
        "tokens",
        *_texts(26, "id"),
        *_texts(64, "sha256"),
        *_numbers("user_id"),
        *_texts(64, "name"),
        *_moments("created_at"),
        *_moments("expires_at", "revoked_at", "used_at", null=True),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_tokens_user_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tokens")),
        sa.UniqueConstraint("sha256", name=op.f("uq_tokens_sha256")),
    )
    op.create_index(op.f("ix_tokens_user_id"), "tokens", ["user_id"])


def _audit() -> None:
    """What was asked and refused."""
    op.create_table(
        "idempotency_keys",
        *_texts(64, "person"),
        *_texts(128, "key"),
        *_texts(64, "request_digest"),
        *_texts(26, "execution"),
        *_moments("created_at"),
        sa.PrimaryKeyConstraint("person", "key", name=op.f("pk_idempotency_keys")),
    )
    op.create_index(op.f("ix_idempotency_keys_created_at"), "idempotency_keys", ["created_at"])
    op.create_table(
        "audit_entries",
        *_numbers("id"),
        *_moments("at"),
        *_texts(64, "person", "action"),
        *_texts(255, "subject"),
        *_texts(16, "outcome"),
        *_json("detail"),
        sa.Column("seq", sa.BigInteger(), nullable=True),
        *_texts(64, "hash"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_entries")),
        sa.UniqueConstraint("seq", name=op.f("uq_audit_entries_seq")),
    )
    op.create_index(op.f("ix_audit_entries_action"), "audit_entries", ["action"])
    op.create_index(op.f("ix_audit_entries_at"), "audit_entries", ["at"])
    op.create_index(op.f("ix_audit_entries_subject"), "audit_entries", ["subject"])
    op.create_table(
        "audit_chain",
        *_numbers("id"),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        *_texts(64, "hash", "anchor_hash"),
        sa.Column("anchor_seq", sa.BigInteger(), nullable=False),
        *_moments("noted_at", null=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_chain")),
    )
    op.create_table(
        "dead_letters",
        *_numbers("id"),
        *_moments("at"),
        *_texts(128, "queue"),
        *_texts(64, "reason"),
        *_texts(128, "worker"),
        *_texts(None, "item"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_dead_letters")),
    )
    op.create_index(op.f("ix_dead_letters_at"), "dead_letters", ["at"])


def _fleet() -> None:
    """The machines and this installation."""
    op.create_table(
        "installation",
        *_texts(26, "id"),
        *_json("control_keys"),
        *_moments("created_at"),
        *_texts(64, "tick_holder"),
        *_moments("tick_until", "tick_since", "pruned_at", "swept_at", null=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_installation")),
    )
    op.create_table(
        "nodes",
        *_texts(64, "name"),
        *_texts(8, "transport"),
        *_texts(16, "state"),
        *_json("labels"),
        *_texts(255, "address"),
        *_json("public_keys"),
        *_texts(64, "sign_kid", "epoch"),
        *_json("left_epochs"),
        *_numbers("sequence", "slots", "free"),
        *_json("shells", "versions"),
        *_moments("last_seen", "heard_at", null=True),
        *_moments("enrolled_at"),
        *_texts(64, "enrolled_by"),
        *_json("ssh"),
        *_texts(None, "host_key", "offered_key"),
        *_json("breaker"),
        sa.CheckConstraint("state IN ('active', 'draining', 'removed')", name=op.f("ck_nodes_state")),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_nodes")),
    )
    op.create_index(op.f("ix_nodes_sign_kid"), "nodes", ["sign_kid"])
    op.create_table(
        "enrolment_tokens",
        *_texts(64, "sha256", "node"),
        *_json("labels"),
        *_flags("replaces"),
        *_texts(64, "created_by"),
        *_moments("created_at", "expires_at"),
        *_moments("used_at", null=True),
        *_texts(None, "note"),
        sa.PrimaryKeyConstraint("sha256", name=op.f("pk_enrolment_tokens")),
    )


def _library() -> None:
    """What is kept to be run."""
    op.create_table(
        "packs",
        *_numbers("id"),
        *_texts(64, "ref"),
        *_texts(255, "label"),
        *_texts(None, "description"),
        *_texts(50, "version"),
        *_texts(255, "author"),
        *_json("tags"),
        *_numbers("revision"),
        *_json("config_schema", null=True),
        *_json("config"),
        *_moments("created_at", "updated_at"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_packs")),
        sa.UniqueConstraint("ref", name=op.f("uq_packs_ref")),
    )
    op.create_table(
        "pack_files",
        *_numbers("pack_id"),
        *_texts(200, "path"),
        *_numbers("bytes"),
        *_texts(64, "sha256"),
        *_texts(None, "content"),
        sa.ForeignKeyConstraint(
            ["pack_id"], ["packs.id"], name=op.f("fk_pack_files_pack_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("pack_id", "path", name=op.f("pk_pack_files")),
    )
    op.create_table(
        "pack_actions",
        *_numbers("id"),
        *_texts(129, "ref"),
        *_numbers("pack_id", "revision"),
        *_texts(64, "digest"),
        *_json("body"),
        *_flags("enabled"),
        *_moments("created_at", "updated_at"),
        sa.ForeignKeyConstraint(
            ["pack_id"], ["packs.id"], name=op.f("fk_pack_actions_pack_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_pack_actions")),
        sa.UniqueConstraint("ref", name=op.f("uq_pack_actions_ref")),
    )
    op.create_index(op.f("ix_pack_actions_pack_id"), "pack_actions", ["pack_id"])
    op.create_table(
        "plans",
        *_texts(64, "digest"),
        *_numbers("plan_version"),
        *_texts(None, "body", "source"),
        *_moments("used_at"),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_plans")),
    )
    op.create_index("ix_plans_used_at", "plans", ["used_at"])
    op.create_table(
        "workflow_definitions",
        *_numbers("id"),
        *_texts(129, "ref"),
        *_numbers("pack_id"),
        *_texts(64, "pack_ref"),
        *_texts(255, "label"),
        *_texts(None, "description"),
        *_texts(50, "version"),
        *_numbers("revision"),
        *_json("tags", "param_schema"),
        *_json("out_schema", null=True),
        *_flags("enabled", "registered"),
        *_moments("created_at", "updated_at"),
        sa.ForeignKeyConstraint(
            ["pack_id"], ["packs.id"], name=op.f("fk_workflow_definitions_pack_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workflow_definitions")),
        sa.UniqueConstraint("ref", name=op.f("uq_workflow_definitions_ref")),
    )
    op.create_index(op.f("ix_workflow_definitions_pack_id"), "workflow_definitions", ["pack_id"])
    op.create_table(
        "workflow_versions",
        *_numbers("id", "workflow_id", "revision"),
        *_texts(50, "version"),
        *_texts(None, "source"),
        *_texts(64, "plan_digest", "author"),
        *_moments("created_at"),
        sa.ForeignKeyConstraint(
            ["plan_digest"], ["plans.digest"], name=op.f("fk_workflow_versions_plan_digest")
        ),
        sa.ForeignKeyConstraint(
            ["workflow_id"],
            ["workflow_definitions.id"],
            name=op.f("fk_workflow_versions_workflow_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workflow_versions")),
        sa.UniqueConstraint(
            "workflow_id", "revision", name=op.f("uq_workflow_versions_workflow_id_revision")
        ),
    )


def _executions() -> None:
    """Executions."""
    op.create_table(
        "executions",
        *_texts(26, "id"),
        *_texts(129, "workflow_ref"),
        *_numbers("workflow_revision", null=True),
        *_texts(26, "script"),
        *_numbers("script_version"),
        *_texts(64, "plan_digest", "requester"),
        *_texts(32, "trace_id"),
        *_texts(16, "parent_span"),
        *_columns(sa.String(26), ("schedule", "parent"), True),
        *_columns(sa.String(200), ("parent_job",), True),
        *_numbers("depth"),
        *_flags("held"),
        *_texts(16, "status"),
        *_texts(8, "kind", "origin", "guard", "intent", "gate"),
        *_texts(16, "halt"),
        *_numbers("gates", "live", "waiting", "unhandled", "handled"),
        *_texts(64, "workspace"),
        *_texts(32, "ended_badly"),
        *_texts(None, "error_message"),
        *_numbers("finally_at", "var_seq", "var_bytes", "event_seq"),
        *_json("askers", "parameters", "config"),
        *_json("output", null=True),
        *_flags("degraded"),
        *_moments("created_at"),
        *_moments("started_at", "ended_at", null=True),
        sa.CheckConstraint(EXECUTION_STATUSES, name=op.f("ck_executions_status")),
        sa.ForeignKeyConstraint(["plan_digest"], ["plans.digest"], name=op.f("fk_executions_plan_digest")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_executions")),
        sa.UniqueConstraint("parent_job", name=op.f("uq_executions_parent_job")),
    )
    op.create_index(op.f("ix_executions_parent"), "executions", ["parent"])
    op.create_index("ix_executions_ended_at", "executions", ["ended_at"])
    op.create_index("ix_executions_kind_id", "executions", ["kind", "id"])
    op.create_index("ix_executions_schedule_status", "executions", ["schedule", "status"])
    op.create_index("ix_executions_script_id", "executions", ["script", "id"])
    op.create_index("ix_executions_status_id", "executions", ["status", "id"])
    op.create_index("ix_executions_workflow_ref_id", "executions", ["workflow_ref", "id"])


def _tasks() -> None:
    """Tasks of executions."""
    op.create_table(
        "tasks",
        *_texts(26, "execution"),
        *_texts(64, "name"),
        *_numbers("task_index"),
        *_flags("is_finally"),
        *_texts(16, "status", "wait_reason"),
        *_numbers("open", "fired", "units", "started", "over", "succeeded", "failed", "skipped", "cancelled"),
        *_texts(16, "stopping"),
        *_json("input", "nodes", null=True),
        *_numbers("total", "window"),
        *_json("items", null=True),
        *_doubles("timeout", null=True),
        *_json("result", "error", "went", null=True),
        *_moments("started_at", "ended_at", null=True),
        *_numbers("first_attempt", "base_attempt", "retry_count", "max_retries"),
        *_columns(sa.String(64), ("snapshot",), True),
        sa.CheckConstraint(TASK_STATUSES, name=op.f("ck_tasks_status")),
        sa.ForeignKeyConstraint(
            ["execution"], ["executions.id"], name=op.f("fk_tasks_execution"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("execution", "name", name=op.f("pk_tasks")),
    )


def _jobs() -> None:
    """What travels through queues."""
    op.create_table(
        "jobs",
        *_texts(200, "id"),
        *_texts(26, "execution"),
        *_texts(64, "task"),
        *_numbers("unit", "attempt"),
        *_texts(64, "node"),
        *_texts(16, "status"),
        *_flags("settled"),
        *_texts(64, "digest", "canvas_digest", "first_canvas_digest", "epoch"),
        *_numbers("sends"),
        *_moments("send_after", "order_expires_at", null=True),
        *_doubles("queue_timeout"),
        *_json("given", "along", null=True),
        *_columns(sa.String(64), ("snapshot",), True),
        *_moments("give_up_at", null=True),
        *_numbers("missing"),
        *_moments("stop_asked_at", "stop_sent_at", null=True),
        *_flags("effect_unknown"),
        *_numbers("exit_code", null=True),
        *_json("result", "error", "late", null=True),
        *_moments("created_at"),
        *_moments("dispatched_at", "accepted_at", "started_at", null=True),
        *_doubles("time_limit", null=True),
        *_moments("backstop_at", "ended_at", "recorded_at", null=True),
        sa.CheckConstraint(JOB_STATUSES, name=op.f("ck_jobs_status")),
        sa.ForeignKeyConstraint(
            ["execution"], ["executions.id"], name=op.f("fk_jobs_execution"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_jobs")),
    )
    op.create_index("ix_jobs_execution_task", "jobs", ["execution", "task", "status", "unit"])
    op.create_index("ix_jobs_node_status", "jobs", ["node", "status", "created_at", "id"])
    op.create_index("ix_jobs_settled_status", "jobs", ["settled", "status"])
    op.create_index("ix_jobs_status", "jobs", ["status", "node"])


def _history() -> None:
    """Variables, timers, events and output of an execution."""
    op.create_table(
        "variables",
        *_texts(26, "execution"),
        *_numbers("seq"),
        *_texts(64, "name"),
        *_json("value", null=True),
        *_texts(64, "task"),
        *_flags("void"),
        sa.ForeignKeyConstraint(
            ["execution"], ["executions.id"], name=op.f("fk_variables_execution"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("execution", "seq", name=op.f("pk_variables")),
    )
    op.create_index("ix_variables_execution_name_seq", "variables", ["execution", "name", "seq"])
    op.create_table(
        "timers",
        *_texts(26, "execution"),
        *_texts(64, "task"),
        *_numbers("unit"),
        *_texts(16, "kind"),
        *_moments("due_at"),
        sa.ForeignKeyConstraint(
            ["execution"], ["executions.id"], name=op.f("fk_timers_execution"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("execution", "task", "unit", "kind", name=op.f("pk_timers")),
    )
    op.create_index(op.f("ix_timers_due_at"), "timers", ["due_at"])
    op.create_table(
        "events",
        *_texts(26, "execution"),
        *_numbers("seq"),
        *_texts(32, "kind"),
        *_moments("at"),
        *_json("data"),
        sa.ForeignKeyConstraint(
            ["execution"], ["executions.id"], name=op.f("fk_events_execution"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("execution", "seq", name=op.f("pk_events")),
    )
    op.create_table(
        "pins",
        *_texts(26, "execution"),
        *_numbers("seq"),
        *_texts(64, "plan_digest"),
        sa.ForeignKeyConstraint(
            ["execution"], ["executions.id"], name=op.f("fk_pins_execution"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["plan_digest"], ["plans.digest"], name=op.f("fk_pins_plan_digest")),
        sa.PrimaryKeyConstraint("execution", "seq", name=op.f("pk_pins")),
    )
    op.create_table(
        "outputs",
        *_texts(200, "job"),
        *_texts(8, "stream"),
        *_texts(26, "execution"),
        *_columns(sa.BigInteger(), ("bytes", "kept"), False),
        *_texts(64, "sha256"),
        *_flags("truncated", "verified"),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["job"], ["jobs.id"], name=op.f("fk_outputs_job"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job", "stream", name=op.f("pk_outputs")),
    )
    op.create_index(op.f("ix_outputs_execution"), "outputs", ["execution"])
    op.create_index(
        "ix_outputs_unverified",
        "outputs",
        ["job"],
        sqlite_where=sa.text("verified IS 0"),
        postgresql_where=sa.text("verified IS false"),
    )


def _approvals() -> None:
    """Questions to people."""
    op.create_table(
        "approvals",
        *_texts(26, "id", "execution"),
        *_texts(64, "task"),
        *_numbers("unit"),
        *_texts(200, "job"),
        *_texts(16, "kind"),
        *_texts(None, "prompt"),
        *_json("approvers"),
        *_numbers("quorum"),
        *_json("answer_schema", null=True),
        *_texts(None, "subject"),
        *_texts(64, "digest", "requester"),
        *_texts(16, "status"),
        *_json("answer", null=True),
        *_moments("created_at"),
        *_moments("expires_at", "decided_at", null=True),
        sa.ForeignKeyConstraint(
            ["execution"], ["executions.id"], name=op.f("fk_approvals_execution"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_approvals")),
        sa.UniqueConstraint("job", name=op.f("uq_approvals_job")),
    )
    op.create_index(op.f("ix_approvals_execution"), "approvals", ["execution"])
    op.create_index("ix_approvals_status_id", "approvals", ["status", "id"])
    op.create_table(
        "approval_decisions",
        *_texts(26, "approval"),
        *_texts(64, "person"),
        *_texts(16, "decision"),
        *_texts(None, "reason"),
        *_moments("at"),
        sa.ForeignKeyConstraint(
            ["approval"], ["approvals.id"], name=op.f("fk_approval_decisions_approval"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("approval", "person", name=op.f("pk_approval_decisions")),
    )


def _notifications() -> None:
    """Words to people outside."""
    op.create_table(
        "notifications",
        *_texts(26, "id"),
        *_texts(64, "kind"),
        *_texts(255, "subject"),
        *_json("data"),
        *_texts(16, "status"),
        *_json("ways", null=True),
        *_numbers("attempts"),
        *_texts(None, "error"),
        *_moments("created_at", "due_at"),
        *_moments("sent_at", null=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_notifications")),
    )
    op.create_index("ix_notifications_status_due_at", "notifications", ["status", "due_at"])


def _vault() -> None:
    """What workflows read while they run."""
    op.create_table(
        "kv",
        *_texts(255, "key"),
        *_json("value", null=True),
        *_numbers("revision"),
        *_texts(64, "updated_by"),
        *_moments("updated_at"),
        *_moments("expires_at", null=True),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_kv")),
    )
    op.create_index(op.f("ix_kv_expires_at"), "kv", ["expires_at"])
    op.create_table(
        "secrets",
        *_texts(255, "name"),
        *_texts(None, "ciphertext"),
        *_texts(16, "key_id"),
        *_numbers("version"),
        *_json("users"),
        *_texts(64, "updated_by"),
        *_moments("created_at", "updated_at"),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_secrets")),
    )
    op.create_index(op.f("ix_secrets_key_id"), "secrets", ["key_id"])
    op.create_table(
        "secret_parameters",
        *_texts(26, "execution"),
        *_texts(64, "name"),
        *_texts(None, "ciphertext"),
        *_texts(16, "key_id"),
        *_texts(255, "secret"),
        sa.ForeignKeyConstraint(
            ["execution"], ["executions.id"], name=op.f("fk_secret_parameters_execution"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("execution", "name", name=op.f("pk_secret_parameters")),
    )
    op.create_index(op.f("ix_secret_parameters_key_id"), "secret_parameters", ["key_id"])


def _automation() -> None:
    """Saved scripts."""
    op.create_table(
        "scripts",
        *_texts(26, "id"),
        *_texts(64, "name"),
        *_texts(None, "description"),
        *_json("tags"),
        *_numbers("version"),
        *_doubles("timeout"),
        *_flags("requires_approval"),
        *_json("approval"),
        *_numbers("revision"),
        *_texts(64, "updated_by"),
        *_moments("created_at", "updated_at"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_scripts")),
        sa.UniqueConstraint("name", name=op.f("uq_scripts_name")),
    )
    op.create_table(
        "script_versions",
        *_texts(26, "script_id"),
        *_numbers("version"),
        *_texts(32, "shell"),
        *_texts(None, "body"),
        *_json("parameters"),
        *_texts(8, "substitution"),
        *_texts(64, "digest", "author"),
        *_moments("created_at"),
        sa.ForeignKeyConstraint(
            ["script_id"], ["scripts.id"], name=op.f("fk_script_versions_script_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("script_id", "version", name=op.f("pk_script_versions")),
    )


def _schedules() -> None:
    """What starts by itself."""
    op.create_table(
        "schedules",
        *_texts(26, "id"),
        *_texts(64, "name"),
        *_texts(None, "description"),
        *_texts(8, "kind"),
        *_texts(129, "ref"),
        *_json("version", null=True),
        *_json("nodes", "parameters"),
        *_texts(200, "cron"),
        *_texts(64, "zone"),
        *_flags("enabled"),
        *_texts(8, "misfire", "overlap"),
        *_numbers("most", "skips", "revision"),
        *_doubles("grace", "jitter"),
        *_texts(64, "owner", "last_reason", "written_by", "updated_by"),
        *_moments("next_run", "due_at", "waiting", "last_run", null=True),
        *_texts(16, "last_status", "seen"),
        *_columns(sa.String(26), ("last_execution",), True),
        *_moments("created_at", "updated_at"),
        sa.CheckConstraint("kind IN ('workflow', 'script')", name=op.f("ck_schedules_kind")),
        sa.CheckConstraint("misfire IN ('skip', 'once', 'all')", name=op.f("ck_schedules_misfire")),
        sa.CheckConstraint(
            "overlap IN ('allow', 'skip', 'queue', 'cancel')", name=op.f("ck_schedules_overlap")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_schedules")),
        sa.UniqueConstraint("name", name=op.f("uq_schedules_name")),
    )
    op.create_index("ix_schedules_due_at", "schedules", ["due_at"])
    op.create_table(
        "schedule_ticks",
        *_texts(26, "schedule"),
        *_moments("fire_time"),
        *_texts(8, "status"),
        *_texts(64, "reason"),
        *_texts(None, "detail"),
        *_columns(sa.String(26), ("execution",), True),
        *_moments("at"),
        sa.CheckConstraint(
            "status IN ('fired', 'queued', 'skipped', 'missed')", name=op.f("ck_schedule_ticks_status")
        ),
        sa.ForeignKeyConstraint(
            ["schedule"], ["schedules.id"], name=op.f("fk_schedule_ticks_schedule"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("schedule", "fire_time", name=op.f("pk_schedule_ticks")),
    )
    op.create_index("ix_schedule_ticks_at", "schedule_ticks", ["at"])


def _workspaces() -> None:
    """Files of executions."""
    op.create_table(
        "blobs",
        *_texts(64, "digest"),
        sa.Column("size", sa.BigInteger(), nullable=False),
        *_moments("created_at", "used_at"),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_blobs")),
    )
    op.create_table(
        "blob_holders",
        *_texts(205, "holder"),
        *_texts(64, "digest"),
        *_moments("at"),
        sa.ForeignKeyConstraint(
            ["digest"], ["blobs.digest"], name=op.f("fk_blob_holders_digest"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("holder", "digest", name=op.f("pk_blob_holders")),
    )
    op.create_index("ix_blob_holders_digest", "blob_holders", ["digest"])
    op.create_table(
        "snapshots",
        *_texts(64, "digest"),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        *_numbers("files"),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        *_moments("created_at", "used_at"),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_snapshots")),
    )
    op.create_table(
        "snapshot_posters",
        *_texts(64, "digest", "login"),
        sa.ForeignKeyConstraint(
            ["digest"], ["snapshots.digest"], name=op.f("fk_snapshot_posters_digest"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("digest", "login", name=op.f("pk_snapshot_posters")),
    )
    op.create_table(
        "job_uploads",
        *_texts(200, "job"),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["job"], ["jobs.id"], name=op.f("fk_job_uploads_job"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job", name=op.f("pk_job_uploads")),
    )
    op.create_table(
        "artifacts",
        *_texts(26, "id", "execution"),
        *_texts(64, "task"),
        *_texts(200, "job"),
        *_texts(64, "node"),
        *_texts(None, "path"),
        *_numbers("mode"),
        sa.Column("size", sa.BigInteger(), nullable=False),
        *_texts(64, "sha256"),
        *_texts(8, "kind"),
        *_moments("created_at"),
        sa.CheckConstraint("kind IN ('artifact', 'kept')", name=op.f("ck_artifacts_kind")),
        sa.ForeignKeyConstraint(
            ["execution"], ["executions.id"], name=op.f("fk_artifacts_execution"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_artifacts")),
    )
    op.create_index("ix_artifacts_execution_id", "artifacts", ["execution", "id"])
    op.create_index("ix_artifacts_sha256", "artifacts", ["sha256"])
    op.create_table(
        "workspace_steps",
        *_texts(26, "execution"),
        *_numbers("seq"),
        *_texts(64, "task"),
        *_texts(200, "job"),
        *_texts(64, "node", "base"),
        sa.Column("changes", sa.LargeBinary(), nullable=False),
        *_texts(64, "snapshot"),
        *_moments("created_at"),
        sa.ForeignKeyConstraint(
            ["execution"], ["executions.id"], name=op.f("fk_workspace_steps_execution"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("execution", "seq", name=op.f("pk_workspace_steps")),
    )
