"""A control worker's desk on a real database, without processes: what is sent is kept, and a node's answer made up."""

from __future__ import annotations

import atexit
import base64
import hashlib
import os
import secrets
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any
from typing import cast as typed

import migrated
import pytest
from sqlalchemy import URL, String, cast, create_engine, event, insert, make_url, select, text, update

from app.compiler.build import build
from app.language.parse import load_or_raise
from app.services import collect, installation
from app.services.control import Control
from app.services.intake import Canvas, Collected
from app.services.orders import Signer
from app.services.outcomes import NodeKeys
from app.services.submit import Submission, submit
from app.settings import Settings
from app.store import migrate, prepared
from app.store.db import Store
from app.store.tables import Execution, Job, Node, Task, table
from app.transport.canvas import Member
from app.transport.keys import KeyPair, Public
from app.transport.messages import SHARED, Order, Outcome, Stream
from app.transport.output import OutputReader
from app.transport.sealing import open_order, seal_outcome

EPOCH = "0123456789ABCDEFGHJKMNPQRS"

executions, jobs, nodes, tasks = table(Execution), table(Job), table(Node), table(Task)


ALWAYS_BOTH = ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)]
"""The databases that a test may ask for by name: for what is about several at once, where they differ most."""

BOTH = ["sqlite", pytest.param("postgres", marks=[pytest.mark.postgres, pytest.mark.long])]
"""The same for all others: PostgreSQL with `make test-all`."""


@contextmanager
def office_on(database: str, directory: Path, names: Sequence[str], slots: int = 8) -> Iterator[Office]:
    """An office on a database of its own, of one of the kinds in `BOTH`."""
    with _empty(database) as url:
        made = Office(directory, names, slots, url)
        try:
            yield made
        finally:
            made.store.close()


@contextmanager
def _empty(database: str) -> Iterator[str]:
    """The URL of a migrated database of PostgreSQL, "" for SQLite, which needs none."""
    if database == "sqlite":
        yield ""
        return
    name = f"muster_desk_{secrets.token_hex(4)}"
    _on_server(f"CREATE DATABASE {name} TEMPLATE {_template()}")
    try:
        yield _server().set(database=name).render_as_string(hide_password=False)
    finally:
        _on_server(f"DROP DATABASE {name} WITH (FORCE)")


def _server() -> URL:
    return make_url(os.environ["MUSTER_TEST_DATABASE_URL"]).set(drivername="postgresql+psycopg")


def _on_server(statement: str) -> None:
    engine = create_engine(_server(), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()


@cache
def _template() -> str:
    """A migrated database without a row: copying it takes a tenth of what migrating takes. Dropped with the process."""
    name = f"muster_desk_{secrets.token_hex(4)}"
    _on_server(f"CREATE DATABASE {name}")
    atexit.register(_on_server, f"DROP DATABASE {name} WITH (FORCE)")
    store = Store(_server().set(database=name).render_as_string(hide_password=False))
    migrate.upgrade(store)
    store.close()
    return name


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True, slots=True)
class Step:
    """Where a line is: `token` is the order of its `position`-th task, "" where the chain was cut or is over."""

    member: Member
    position: int
    token: str
    collected: Collected | None = None

    @property
    def links(self) -> list[dict[str, Any]]:
        return [dict(link) for link in (self.member.order, *self.member.rest)]

    @property
    def node(self) -> str:
        return str(self.links[2 * self.position]["options"]["queue"]).removeprefix("node.")

    @property
    def rest(self) -> list[dict[str, Any]]:
        """What the `collect` of this task carries."""
        return self.links[2 * self.position + 2 :]


class Office:
    """`sent` are the lines that left, each with its sealed order, `told` what nodes were told about jobs; `statements`
    counts what went to the database.

    On SQLite in `directory`, unless `url` names a migrated database without a row.
    """

    def __init__(self, directory: Path, names: Sequence[str], slots: int = 8, url: str = "") -> None:
        self.clock = Clock()
        settings = Settings(data_dir=str(directory))
        self.store = Store(url or migrated.sqlite(directory / "muster.db"))
        self.keys = {name: KeyPair.generate() for name in names}
        self.installed = installation.ensure(self.store, settings.data_dir, self.clock.now)
        self.public = Public.from_json(self.installed.public)
        for name, keys in self.keys.items():
            row = {
                "name": name,
                "public_keys": keys.public(),
                "sign_kid": keys.kid,
                "epoch": EPOCH,
                "slots": slots,
                "free": slots,
                "versions": {"orders": SHARED},
                "last_seen": self.clock.now,
                "enrolled_at": self.clock.now,
            }
            with self.store.write() as connection:
                connection.execute(insert(nodes).values(row))
        self.sent: list[tuple[Member, str]] = []
        self.told: list[tuple[str, str]] = []
        self.control = Control(settings, self.store, clock=self.clock)
        self.desk = collect.Desk(
            self.control,
            Signer.load(settings, self.installed.id),
            NodeKeys(self.store),
            self.sent.extend,
            lambda node, token: self.told.append((node, token)),
            # Nothing here writes output.
            typed(OutputReader, None),
        )
        for keys in self.keys.values():
            # Known for some seconds, as those of a node that has just answered are.
            self.desk.node_keys(keys.kid)

    def submit(self, source: str, **parameters: Any) -> str:
        """A new execution, settled once: what may run has been sent."""
        execution = self.hand_in(source, **parameters)
        collect.settle(self.desk, execution)
        return execution

    def hand_in(self, source: str, **parameters: Any) -> str:
        """A new execution that nobody has settled yet."""
        plan = build(load_or_raise(source, "test.yaml"))
        return submit(self.control, Submission(plan, source, "ada", parameters)).execution

    def take_in(
        self, sent: tuple[Member, str] | Step, status: str = "succeeded", *, redelivered: bool = False
    ) -> Step:
        """The node's answer to an order comes in with its canvas; what control then does."""
        step = sent if isinstance(sent, Step) else Step(sent[0], 0, sent[1])
        collected = self.hear_of(step, self.answer(step.node, step.token, status), redelivered=redelivered)
        return Step(step.member, step.position + 1, collected.order or "", collected)

    def hear_of(self, step: Step, answer: str, *, redelivered: bool = False) -> Collected:
        """An answer comes in with the canvas of its step."""
        canvas = Canvas(step.rest, step.member.body, step.member.group_id)
        return collect.collect(self.desk, [answer], canvas, redelivered=redelivered)

    def order(self, node: str, token: str) -> Order:
        """The order as its node opens it."""
        return open_order(
            token,
            self.keys[node],
            [self.public],
            installation=self.installed.id,
            node=node,
            epoch=EPOCH,
            now=self.clock.now,
        )

    def go_through(self, sent: tuple[Member, str], *said: str) -> list[str]:
        """What the node says of so many jobs of an order: it went on from each that succeeded to the next."""
        node = Step(sent[0], 0, sent[1]).node
        jobs_ = self.order(node, sent[1]).jobs
        found = []
        for place, status in enumerate(said):
            after = jobs_[place - 1].id if place else ""
            then = jobs_[place + 1].id if status == "succeeded" and place + 1 < len(jobs_) else ""
            found.append(self.answer(node, sent[1], status, nth=place, after=after, then=then))
        return found

    def take_in_all(self, answers: Sequence[str], sent: tuple[Member, str] | None = None) -> Collected:
        """Outcomes come in together, with the canvas of their order if the last of its jobs is among them."""
        member = sent and sent[0]
        canvas = (
            Canvas([dict(link) for link in member.rest[1:]], member.body, member.group_id)
            if member
            else Canvas()
        )
        return collect.collect(self.desk, answers, canvas, redelivered=False)

    def answer(
        self,
        node: str,
        token: str,
        status: str,
        output: bytes = b"",
        *,
        nth: int = 0,
        after: str = "",
        then: str = "",
    ) -> str:
        """What the node says of a job that it was ordered to run, which wrote `output`."""
        keys = self.keys[node]
        job, now = self.order(node, token).jobs[nth], self.clock.now
        code = {"succeeded": 0, "failed": 1}.get(status)
        problem = None if code == 0 else {"type": status, "message": "made up"}
        about = (job.id, job.digest, self.installed.id, node, EPOCH)
        wrote = Stream(
            len(output),
            len(output),
            hashlib.sha256(output).hexdigest(),
            head=base64.b64encode(output).decode(),
        )
        outcome = Outcome(*about, status, code, error=problem, ended_at=now, stdout=wrote)
        outcome = replace(outcome, after=after, then=then)
        return seal_outcome(outcome, keys, self.public)

    def job(self, job: str) -> Any:
        with self.store.read() as connection:
            return connection.execute(select(jobs).where(jobs.c.id == job)).one()

    def statuses(self, of: Any, execution: str) -> dict[str, str]:
        """By task and unit (jobs) or by name (tasks)."""
        key = of.c.task + "." + cast(of.c.unit, String) if of is jobs else of.c.name
        with self.store.read() as connection:
            query = select(key, of.c.status).where(of.c.execution == execution)
            return {row[0]: row[1] for row in connection.execute(query)}

    def execution(self, execution: str) -> Any:
        with self.store.read() as connection:
            return connection.execute(select(executions).where(executions.c.id == execution)).one()

    def hear(self, node: str, **columns: Any) -> None:
        """Change what is known of a node."""
        with self.store.write() as connection:
            connection.execute(update(nodes).where(nodes.c.name == node).values(columns))

    @contextmanager
    def statements(self) -> Iterator[Counter[str]]:
        """What is given to the database inside, by its first two words."""
        found: Counter[str] = Counter()

        def note(sql: str) -> None:
            words = sql.replace("\n", " ").split(" FROM ")[-1 if sql.startswith("SELECT") else 0].split()
            found["SELECT " + words[0] if sql.startswith("SELECT") else " ".join(words[:3])] += 1

        def noted(connection: Any, cursor: Any, sql: str, *_: Any) -> None:
            note(sql)

        inner = prepared.hand_over

        def hand_over(connection: Any, sql: str, *given: Any, **more: Any) -> Any:
            note(sql)
            return inner(connection, sql, *given, **more)

        event.listen(self.store.engine, "before_cursor_execute", noted)
        prepared.hand_over = hand_over
        try:
            yield found
        finally:
            prepared.hand_over = inner
            event.remove(self.store.engine, "before_cursor_execute", noted)
