"""Every figure that `/metrics` tells: what it is called, what it is split by, and what it means.

Labels are few and bounded: statuses, reasons, and the names of nodes and queues, which an administrator makes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["gauge", "counter", "histogram"]

_LONG = (0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 14400, 86400)
_SHORT = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


@dataclass(frozen=True, slots=True)
class Measure:
    """One family. Gauges are read when they are asked for; counters and histograms grow in Redis."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    means: str
    buckets: tuple[float, ...] = ()


EXECUTIONS = Measure("muster_executions", "gauge", ("status",), "Executions that are kept, by status")
JOBS = Measure("muster_jobs", "gauge", ("status",), "Jobs that no settle has folded yet, by status")
NODES = Measure("muster_nodes", "gauge", ("state",), "Nodes that are online, offline; and of those, draining")
QUEUE_JOBS = Measure(
    "muster_queue_jobs",
    "gauge",
    ("node", "status"),
    "Jobs that wait for a node: queued, or sent and not taken",
)
QUEUE_OLDEST = Measure(
    "muster_queue_oldest_seconds", "gauge", ("node", "status"), "How long the oldest of those has waited"
)
QUEUE_MESSAGES = Measure(
    "muster_queue_messages", "gauge", ("queue",), "Messages in a queue, where Redis is the broker"
)
DEAD_LETTERS = Measure(
    "muster_dead_letters", "gauge", ("queue", "reason"), "Messages refused and kept, by queue and reason"
)
NOTIFICATIONS = Measure(
    "muster_notifications", "gauge", ("status",), "Notifications that were not sent: pending, or given up"
)
SSH_NODES = Measure(
    "muster_ssh_nodes",
    "gauge",
    ("breaker",),
    "Nodes over SSH, by the state of the breaker of their connection; untrusted are without a host key",
)
TICK_LAG = Measure(
    "muster_tick_lag_seconds", "gauge", (), "How much more than a second ago the last tick began"
)
REDIS_UP = Measure(
    "muster_redis_up", "gauge", (), "1 if Redis answered; else what is counted there is left out"
)

CREATED = Measure("muster_executions_created_total", "counter", (), "Executions accepted")
FINISHED = Measure("muster_executions_finished_total", "counter", ("status",), "Executions ended, by status")
OUTCOMES = Measure("muster_outcomes_total", "counter", ("status",), "Jobs ended and folded, by status")
RETRIED = Measure(
    "muster_retries_total", "counter", (), "Attempts after the first, as `retry` of a task asks for"
)
RESENT = Measure("muster_resent_orders_total", "counter", (), "Orders sent again, as no node had taken them")
REFUSED = Measure(
    "muster_refused_orders_total", "counter", ("node",), "Messages that nodes say they did not obey"
)
SSH_CONNECTIONS = Measure(
    "muster_ssh_connections_total",
    "counter",
    ("node", "result"),
    "Connections over SSH, by what became of them: made, failed, refused",
)

SCHEDULE_TICKS = Measure(
    "muster_schedule_ticks_total",
    "counter",
    ("status",),
    "Times of schedules that were seen to: fired, queued, skipped, missed",
)
SCHEDULE_ALARMS = Measure(
    "muster_schedule_alarms_total", "counter", (), "Schedules that skipped three times in a row"
)
SCHEDULE_LAG = Measure(
    "muster_schedule_lag_seconds", "histogram", (), "How much later than due a schedule fired", _LONG
)

EXECUTION_SECONDS = Measure(
    "muster_execution_duration_seconds",
    "histogram",
    ("status",),
    "From acceptance to end of an execution",
    _LONG,
)
TASK_SECONDS = Measure(
    "muster_task_duration_seconds", "histogram", ("status",), "From start to end of a task", _LONG
)
SETTLE_SECONDS = Measure(
    "muster_settle_seconds",
    "histogram",
    ("function",),
    "Time that a control worker takes for an outcome (collect) and for a fold (settle)",
    _SHORT,
)
TICK_SECONDS = Measure("muster_tick_seconds", "histogram", (), "Time that a tick takes", _SHORT)

MEASURES = tuple(value for value in list(globals().values()) if isinstance(value, Measure))
COUNTED = {one.name: one for one in MEASURES if one.kind != "gauge"}
