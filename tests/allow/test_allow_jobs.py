"""What a template made is held to the allowlist when a job is told its node: what is refused is never sent."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import yaml
from allow_cases import CASES, SHIPPED
from guarded_world import Guarded
from sqlalchemy import select, update

from app.allow.programs import SEARCH_PATH
from app.services import collect, installation, room
from app.services.collect import Desk
from app.services.handover import Parcel
from app.services.orders import Signer
from app.services.outcomes import NodeKeys
from app.store.tables import Job, Node, Task, table
from app.transport import messages
from app.transport.canvas import Member
from app.transport.keys import KeyPair, Public
from app.transport.output import OutputReader, connect
from app.transport.sealing import open_order

jobs, tasks, nodes = table(Job), table(Task), table(Node)
RENDERED: list[dict[str, Any]] = yaml.safe_load((CASES / "rendered.yaml").read_text())
EPOCH = "e1"


@dataclass
class Line:
    """A control worker's desk, and a node that keeps what it is sent."""

    guarded: Guarded
    desk: Desk
    node: KeyPair
    control: Public
    sent: list[str] = field(default_factory=list)

    def told(self) -> list[messages.Job]:
        """The jobs that the node was told to run, opened as it would open them."""
        found = [
            open_order(
                token,
                self.node,
                [self.control],
                installation=self.desk.signer.installation,
                node="web-1",
                epoch=EPOCH,
                now=time.time(),
            )
            for token in self.sent
        ]
        return [job for order in found for job in order.jobs]

    def row(self, model: Any, execution: str) -> Any:
        with self.desk.control.store.read() as connection:
            return connection.execute(select(model).where(model.c.execution == execution)).one()


@pytest.fixture(scope="module")
def desk_and_node(guarded: Guarded) -> Line:
    control = guarded.world.control
    data_dir = control.settings.data_dir
    installed = installation.ensure(control.store, data_dir, time.time())
    pair = KeyPair.generate()
    guarded.world.add_node("web-1", public_keys=pair.public(), sign_kid=pair.kid, epoch=EPOCH, slots=100)
    signer = Signer.load(control.settings, installed.id)
    sent: list[str] = []

    def send(lines: Sequence[tuple[Member, str]]) -> None:
        sent.extend(token for _, token in lines)

    streams = OutputReader(connect(control.settings.redis_url))
    desk = Desk(control, signer, NodeKeys(control.store), send, lambda node, token: None, streams)
    return Line(guarded, desk, pair, Public.from_json(installed.public), sent)


@pytest.fixture
def line(desk_and_node: Line) -> Line:
    desk_and_node.sent.clear()
    desk_and_node.guarded.allow(SHIPPED)
    with desk_and_node.desk.control.store.write() as connection:
        connection.execute(update(nodes).where(nodes.c.name == "web-1").values(last_seen=time.time()))
    return desk_and_node


def definition(case: dict[str, Any]) -> dict[str, Any]:
    action = case.get("action") or ("core.script" if "script" in case["input"] else "core.shell")
    task = {"name": "a", "action": action, "delegate_to": "web-1", "input": case["input"]}
    if "nodes" in case["input"]:
        task = {"name": "a", "type": "distributed_shell", "input": case["input"]}
    kinds = {dict: "object", list: "array"}
    return {"parameters": {"x": {"type": kinds.get(type(case.get("x")), "string")}}, "tasks": [task]}


def start(line: Line, case: dict[str, Any]) -> str:
    answer = line.guarded.post(definition(case), x=case["x"])
    assert answer.status_code == 201, answer.text
    return str(answer.get_json()["id"])


@pytest.mark.parametrize("case", RENDERED, ids=lambda case: case["name"])
def test_what_templates_make(case: dict[str, Any], line: Line) -> None:
    execution = start(line, case)
    collect.settle(line.desk, execution)
    if case.get("allowed"):
        assert len(line.told()) == 1
        return
    assert line.sent == []
    job = line.row(jobs, execution)
    assert (job.status, job.error["type"]) == ("failed", "not_allowed")
    entry = line.guarded.trail("job.check", 1)[0]
    assert (entry["subject"], entry["outcome"], entry["person"]) == (job.id, "refused", "author")
    end = line.guarded.trail("execution.end", 1)[0]
    assert (end["subject"], end["outcome"], end["detail"]["origin"]) == (execution, "failed", "inline")
    assert [(one["node"], one["exit_code"]) for one in end["detail"]["jobs"]] == [("web-1", None)]


def test_a_job_that_waited_as_a_row_is_looked_at_too(line: Line) -> None:
    """`promote` hands over what nobody settled: the same check stands before it."""
    execution = start(line, RENDERED[0])
    parcel = Parcel()
    with line.desk.control.store.write() as connection:
        assert room.promote(line.desk.control, connection, "web-1", parcel) == 0
    assert parcel.members == []
    assert parcel.woken == {execution}
    collect.settle(line.desk, execution)
    assert line.row(jobs, execution).error["type"] == "not_allowed"
    assert line.sent == []


def test_where_it_is_enforced_programs_are_looked_for_in_a_fixed_path(line: Line) -> None:
    execution = start(line, {"input": {"command": ["uptime"]}, "x": ""})
    collect.settle(line.desk, execution)
    assert [dict(job.env) for job in line.told()] == [{"PATH": SEARCH_PATH}]


def test_a_mode_that_got_stricter_holds_for_what_waits(line: Line) -> None:
    line.guarded.allow(SHIPPED.replace("mode: enforce", "mode: audit"))
    execution = start(line, {"input": {"command": ["rm", "x"]}, "x": ""})
    line.guarded.allow(SHIPPED)
    collect.settle(line.desk, execution)
    assert line.sent == []
    assert line.row(jobs, execution).error["type"] == "not_allowed"


def test_a_mode_that_got_looser_does_not_loosen_what_was_accepted(line: Line) -> None:
    execution = start(line, RENDERED[0])
    line.guarded.allow(SHIPPED.replace("mode: enforce", "mode: off"))
    collect.settle(line.desk, execution)
    assert line.sent == []
    assert line.row(tasks, execution).status == "failed"


def test_watched_only_it_is_sent_and_told_once(line: Line) -> None:
    line.guarded.allow(SHIPPED.replace("mode: enforce", "mode: audit"))
    execution = start(line, RENDERED[0])
    collect.settle(line.desk, execution)
    collect.settle(line.desk, execution)
    assert [job.argv for job in line.told()] == [("cat", "/etc/shadow")]
    mine = [one for one in line.guarded.trail("job.check") if one["subject"].startswith(execution)]
    assert [(one["outcome"], one["detail"]["argv"]) for one in mine] == [
        ("would_refuse", ["cat", "/etc/shadow"])
    ]
