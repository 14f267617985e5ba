"""What the fleet adds up to, counted in the database when it is asked."""

from __future__ import annotations

from sqlalchemy import Connection, func, select

from app.engine.status import DISPATCHED, QUEUED
from app.services import notify
from app.services.control import Control
from app.services.fleet import SSH
from app.services.installation import LEASE
from app.services.measures import (
    DEAD_LETTERS,
    EXECUTIONS,
    JOBS,
    NODES,
    NOTIFICATIONS,
    QUEUE_JOBS,
    QUEUE_OLDEST,
    SSH_NODES,
    TICK_LAG,
    Measure,
)
from app.services.tally import Sums
from app.store.tables import DeadLetter, Execution, Installation, Job, Node, Notification, table

executions, jobs, nodes = table(Execution), table(Job), table(Node)
notifications = table(Notification)
letters, installations = table(DeadLetter), table(Installation)

Gauges = dict[Measure, Sums]

TICK_EVERY = 1.0
MOST_LETTERS = 500
"""Kinds of dead letters that are told apart: the reasons are few, the queues are as many as the nodes."""


def figures(control: Control, connection: Connection) -> Gauges:
    """Values by labels for every gauge that the database answers for. Eight statements, none reads what is over."""
    now = control.clock()
    by_execution = select(executions.c.status, func.count()).group_by(executions.c.status)
    by_job = select(jobs.c.status, func.count()).where(jobs.c.settled.is_(False)).group_by(jobs.c.status)
    by_letter = (
        select(letters.c.queue, letters.c.reason, func.count())
        .group_by(letters.c.queue, letters.c.reason)
        .order_by(func.count().desc())
        .limit(MOST_LETTERS)
    )
    unsent = notifications.c.status.in_((notify.PENDING, notify.FAILED))
    by_notice = select(notifications.c.status, func.count()).where(unsent).group_by(notifications.c.status)
    counted = (
        (EXECUTIONS, by_execution),
        (JOBS, by_job),
        (DEAD_LETTERS, by_letter),
        (NOTIFICATIONS, by_notice),
    )
    found: Gauges = {
        measure: {tuple(labels): number for *labels, number in connection.execute(query)}
        for measure, query in counted
    }
    found[NODES] = _nodes(connection, now - control.settings.offline_after)
    found[SSH_NODES] = _ssh_nodes(connection)
    found[QUEUE_JOBS], found[QUEUE_OLDEST] = _queues(connection, now)
    until = connection.execute(select(installations.c.tick_until)).scalar()
    if until is not None:
        found[TICK_LAG] = {(): max(0.0, now - (until - LEASE) - TICK_EVERY)}
    return found


def _nodes(connection: Connection, oldest: float) -> Sums:
    found: Sums = {("online",): 0, ("offline",): 0, ("draining",): 0}
    for row in connection.execute(select(nodes.c.state, nodes.c.last_seen).where(nodes.c.state != "removed")):
        found[("online" if row.last_seen is not None and row.last_seen > oldest else "offline",)] += 1
        found[("draining",)] += row.state == "draining"
    return found


def _ssh_nodes(connection: Connection) -> Sums:
    found: Sums = {("closed",): 0, ("half-open",): 0, ("open",): 0, ("untrusted",): 0}
    query = select(nodes.c.host_key, nodes.c.breaker).where(
        nodes.c.transport == SSH, nodes.c.state != "removed"
    )
    for row in connection.execute(query):
        state = (row.breaker or {}).get("state", "closed") if row.host_key else "untrusted"
        found[(state,)] = found.get((state,), 0) + 1
    return found


def _queues(connection: Connection, now: float) -> tuple[Sums, Sums]:
    """How many jobs wait for each node and for how long: since their birth, or since they were sent."""
    query = (
        select(
            jobs.c.node,
            jobs.c.status,
            func.count().label("number"),
            func.min(jobs.c.created_at).label("born"),
            func.min(jobs.c.dispatched_at).label("sent"),
        )
        .where(jobs.c.status.in_((QUEUED, DISPATCHED)))
        .group_by(jobs.c.node, jobs.c.status)
    )
    depth: Sums = {}
    oldest: Sums = {}
    for row in connection.execute(query):
        depth[row.node, row.status] = row.number
        since = row.born if row.status == QUEUED or row.sent is None else row.sent
        oldest[row.node, row.status] = max(0.0, now - since)
    return depth, oldest


def consumed(connection: Connection) -> list[str]:
    """The names of the nodes whose queues are looked at."""
    query = select(nodes.c.name).where(nodes.c.state != "removed").order_by(nodes.c.name)
    return list(connection.execute(query).scalars())
