"""Flows by their rows: taken together, leased, recorded one by one, given up. A real database and a real sshd."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from desk import executions, jobs, tasks
from sqlalchemy import select, update
from sqlalchemy.exc import DataError, OperationalError
from waiting import PATIENCE, wait_until

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "flows"))

from exchange import Exchange
from odd_server import odd_server
from site_of_flows import Site
from sshd import Sshd

from app.compiler.build import build
from app.engine.events import TimerDue
from app.errors import NotAllowed
from app.flows.model import Flow, Result, Terms, Watch
from app.flows.remote import RemoteExecutor
from app.language.known import Known
from app.language.model import Action, Parameter
from app.language.parse import load_or_raise
from app.services import answers, calling, flows, guard, people
from app.services.answers import Answer
from app.services.cancel import cancel
from app.services.control import Control
from app.services.run import Run
from app.services.submit import Submission, submit

WORKFLOW = """
parameters:
  pids: {type: string, required: true}
  only: {type: object, default: {}}
  token: {type: secret}
vars: {first: 1}
settings:
  parallel:
    strategy: remote
    SETTINGS
    remote: {hosts: [HOSTS], workdir: WORKDIR, basefile: ./tool.pyz, method: ssh}
tasks:
  - {name: before, action: core.noop, on_success: many, publish: {said: "before"}}
  - {name: beside, action: core.noop, delay: 50, publish: {late: true}}
  - name: many
    type: parallel
    on_success: after
    tasks:
      - {name: a, action: core.shell, input: {command: "echo {{ vars.said }}"}}
      - {name: b, action: core.shell, input: {command: "false"}, when: "{{ false }}", OPTIONS}
      - {name: c, action: core.shell, input: {command: "true"}, with_items: [1, 2]}
  - {name: after, action: core.noop}
output_map: {many: "{{ task.many.result }}"}
"""


class Yard:
    """An exchange whose flows go to a site."""

    def __init__(self, directory: Path, site: Site, exchange: Exchange) -> None:
        self.site, self.exchange = site, exchange
        office = exchange.office
        settings = replace(
            office.control.settings, flow_basefiles=str(site.tools), flow_ssh_config=str(site.config)
        )
        office.control = replace(office.control, settings=settings)
        exchange.caller = exchange.life()

    def text(self, settings: str = "", options: str = "") -> str:
        hosts = ", ".join(self.site.hosts)
        found = WORKFLOW.replace("SETTINGS", settings).replace(", OPTIONS", options and f", {options}")
        return found.replace("HOSTS", hosts).replace("WORKDIR", str(self.site.workdir))

    def submit(self, settings: str = "", options: str = "", **only: Any) -> str:
        return self.exchange.submit(self.text(settings, options), pids=str(self.site.pids), only=only)

    def jobs(self, execution: str) -> dict[str, Any]:
        """The flows' jobs by task and attempt."""
        with self.exchange.office.store.read() as connection:
            found = connection.execute(select(jobs).where(jobs.c.execution == execution, jobs.c.node == "io"))
            return {f"{row.task}{row.attempt}": row for row in found}


@pytest.fixture
def yard(sshd_program: str, tmp_path: Path) -> Iterator[Yard]:
    with Sshd(tmp_path, addresses=("127.0.0.2", "127.0.0.3")) as sshd, odd_server() as server:
        exchange = Exchange(tmp_path, server)
        yield Yard(tmp_path, Site(tmp_path, sshd), exchange)
        exchange.office.store.close()


def test_the_flows_of_a_block_are_taken_together_with_the_state_so_far(
    yard: Yard, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    execution = yard.submit(b={"as": {"status": "skipped", "result": None}})
    assert len(yard.exchange.rung) == 3
    yard.exchange.make()

    assert caplog.text.count("3 flows go by SSH") == 1, "one command for all of them"
    found = yard.jobs(execution)
    assert {name: row.status for name, row in found.items()} == {
        "a1": "succeeded",
        "b1": "skipped",
        "c1": "succeeded",
    }
    given = found["a1"].result["given"]
    assert given["vars"] == {"first": 1, "said": "before"}
    assert given["task"] == {"before": {"status": "succeeded", "result": {}, "error": None}}
    assert given["parameters"]["token"] is None, "secrets stay here"
    assert found["a1"].result["workflow"] == yard.text(), "the whole text as it was submitted"
    assert found["c1"].result["words"][2:6] == ["--entry-point", "c", "--exit-point", "after"]
    assert found["a1"].result["cwd"].endswith(f"{execution}-a-1")
    assert [found[one].result["address"] for one in ("a1", "c1")] == [["127.0.0.2"]] * 2, "hosts in turn"
    block = yard.exchange.office.statuses(tasks, execution)
    assert (block["many"], block["b"], block["after"]) == ("succeeded", "skipped", "succeeded")


def test_what_a_child_came_to_is_what_its_task_comes_to(yard: Yard) -> None:
    execution = yard.submit(
        a={
            "as": {
                "status": "failed",
                "result": {"exit_code": 7},
                "error": {"type": "exit_code", "message": "7"},
            }
        },
        b={"as": {"status": "timed_out", "error": {"type": "timeout", "message": "too long"}}},
        c={"as": {"status": "odd"}},
    )
    yard.exchange.make()
    found = yard.jobs(execution)
    assert (found["a1"].status, found["a1"].result, found["a1"].error["type"]) == (
        "failed",
        {"exit_code": 7},
        "exit_code",
    )
    assert found["a1"].error["host"] == yard.site.hosts[0]
    assert (found["b1"].status, found["b1"].error["message"]) == ("timed_out", "too long")
    assert (found["c1"].status, found["c1"].error["type"]) == ("failed", "remote")
    assert yard.exchange.office.statuses(tasks, execution)["many"] == "failed"


def test_a_flow_that_fails_is_tried_again_in_another_directory(yard: Yard) -> None:
    execution = yard.submit("retry: {count: 1}", a={"exit": 3, "say": "no"})
    yard.exchange.make()
    found = yard.jobs(execution)
    assert {name: row.status for name, row in found.items()} == {
        "a1": "failed",
        "a2": "failed",
        "b1": "succeeded",
        "c1": "succeeded",
    }
    assert found["a2"].error == {**found["a1"].error}
    assert "no" in found["a1"].error["stderr"]


@pytest.mark.parametrize("kind", ["no_basefile", "bad_result"])
def test_what_another_try_would_only_meet_again_is_final(yard: Yard, kind: str) -> None:
    if kind == "no_basefile":
        (yard.site.tools / "tool.pyz").unlink()
    execution = yard.submit("retry: {count: 3}", a={"write": "{"}, b={"write": "{"}, c={"write": "{"})
    yard.exchange.make()
    found = yard.jobs(execution)
    assert {name: row.error["type"] for name, row in found.items()} == dict.fromkeys(("a1", "b1", "c1"), kind)


def test_the_time_of_a_flow_is_measured_on_its_host(yard: Yard) -> None:
    execution = yard.submit("timeout: 1.5", b={"sleep": 100})
    yard.exchange.tick(10)
    assert {row.status for row in yard.jobs(execution).values()} == {"dispatched"}, "no backstop here"
    yard.exchange.make()
    found = yard.jobs(execution)
    assert found["b1"].status == "timed_out"
    assert found["b1"].error["message"] == "timed out after 1.5s"
    assert not yard.site.running()


def test_what_a_host_says_of_a_failure_is_held_to_its_form(yard: Yard) -> None:
    """A type that is no text would be met by whatever asks for it, for ever."""
    odd = {"status": "failed", "error": {"type": [], "message": {"a": 1}, "code": 7, "much": {"b": []}}}
    long = {"status": "failed", "error": {"type": "x" * 5000, "message": "y" * 5000}}
    deep: Any = 1
    for _ in range(190):
        deep = [deep]
    execution = yard.submit(
        "retry: {count: 1}", a={"as": odd}, b={"as": long}, c={"as": {"status": "succeeded", "result": deep}}
    )
    yard.exchange.make()
    found = yard.jobs(execution)
    said = {"type": "remote", "message": "a ended as failed", "code": 7, "host": yard.site.hosts[0]}
    assert found["a2"].error == said
    assert (len(found["b2"].error["type"]), len(found["b2"].error["message"])) == (100, 2000)
    assert (found["c1"].status, found["c1"].result) == ("succeeded", deep), "as deep as on a node"
    assert yard.exchange.office.statuses(tasks, execution)["many"] == "failed"


@pytest.mark.parametrize("value", ["1e999", "[" * 250 + "]" * 250, '"\\ud800"'])
def test_a_value_that_cannot_be_kept_is_no_result(yard: Yard, value: str) -> None:
    written = f'{{"task": {{"a": {{"status": "succeeded", "result": {value}}}}}}}'
    execution = yard.submit(a={"write": written})
    yard.exchange.make()
    found = yard.jobs(execution)
    assert (found["a1"].status, found["a1"].error["type"]) == ("failed", "bad_result")
    assert "task.a.result" in found["a1"].error["message"]
    assert found["b1"].status == "succeeded"


def test_a_fault_here_fails_what_is_still_open(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    def execute(_: RemoteExecutor, wanted: Sequence[Flow], terms: Terms, watch: Watch) -> list[Result]:
        watch.tell(wanted[0], Result({"task": {"a": {"status": "succeeded", "result": 1}}}))
        raise LookupError("odd")

    monkeypatch.setattr(RemoteExecutor, "execute", execute)
    execution = yard.submit()
    yard.exchange.make()
    found = yard.jobs(execution)
    assert (found["a1"].status, found["b1"].status, found["c1"].status) == ("succeeded", "failed", "failed")
    assert found["b1"].error["type"] == "internal"
    assert "LookupError('odd')" in found["b1"].error["message"]


def test_a_database_that_fails_for_a_while_loses_nothing(
    yard: Yard, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(flows, "_LOOK", 0.05)
    refused: list[str] = []

    def record(control: Control, execution: str, job: str, answer: Answer) -> None:
        if refused.count(job) < 2:
            refused.append(job)
            raise OperationalError("update", {}, OSError("gone"))
        answers.record(control, execution, job, answer)

    monkeypatch.setattr(flows, "record", record)
    execution = yard.submit()
    yard.exchange.make()
    assert {row.status for row in yard.jobs(execution).values()} == {"succeeded"}
    assert len(refused) == 6
    assert "gone" in caplog.text


def test_what_a_database_never_takes_is_no_result(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flows, "_LOOK", 0.01)
    monkeypatch.setattr(flows, "_TRIES", 2)

    def record(control: Control, execution: str, job: str, answer: Answer) -> None:
        if answer.error is None:
            raise DataError("update", {}, ValueError("odd"))
        answers.record(control, execution, job, answer)

    monkeypatch.setattr(flows, "record", record)
    execution = yard.submit()
    yard.exchange.make()
    assert {row.error["type"] for row in yard.jobs(execution).values()} == {"bad_result"}


def test_a_database_that_fails_for_a_while_does_not_keep_a_cancel_from_flows(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flows, "_LOOK", 0.05)
    looked: list[float] = []
    really = flows._look_after

    def look_after(*args: Any) -> float:
        looked.append(args[-1])
        if len(looked) == 1:
            raise OperationalError("select", {}, OSError("gone"))
        return really(*args)

    monkeypatch.setattr(flows, "_look_after", look_after)
    execution = yard.submit(a={"sleep": 100}, b={"sleep": 100}, c={"sleep": 100})
    thread = _carried(yard)
    wait_until(lambda: looked)
    cancel(yard.exchange.office.control, execution, "ada")
    thread.join(PATIENCE)
    assert not yard.site.running()
    assert {row.status for row in yard.jobs(execution).values()} == {"cancelled"}


def _carried(yard: Yard) -> threading.Thread:
    """Flows on their way, with another thread at them."""
    rung, yard.exchange.rung[:] = yard.exchange.rung[:], []
    thread = threading.Thread(target=calling.look, args=(yard.exchange.caller, rung[0]))
    thread.start()
    wait_until(yard.site.running)
    return thread


def test_a_cancel_ends_them_on_their_hosts(yard: Yard) -> None:
    execution = yard.submit(a={"sleep": 100}, b={"sleep": 100}, c={"sleep": 100})
    thread = _carried(yard)
    cancel(yard.exchange.office.control, execution, "ada")
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert not yard.site.running()
    assert not yard.site.left()
    assert {row.status for row in yard.jobs(execution).values()} == {"cancelled"}
    assert yard.exchange.status(execution) == "cancelled"


def test_the_lease_is_renewed_and_another_life_gives_up(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flows, "_LOOK", 0.05)
    execution = yard.submit("", "idempotent: true", a={"sleep": 100}, b={"sleep": 100}, c={"sleep": 100})
    thread = _carried(yard)
    clock = yard.exchange.office.clock
    first = yard.jobs(execution)["a1"].order_expires_at
    clock.now += 40
    wait_until(lambda: yard.jobs(execution)["a1"].order_expires_at == first + 40)

    assert calling.inherit(yard.exchange.life()) == 3
    found = yard.jobs(execution)
    assert (found["a1"].status, found["b1"].status) == ("unknown", "failed"), "b is idempotent"
    thread.join(PATIENCE)
    assert not yard.site.running(), "nobody waits for them any more"


def test_one_that_is_tried_again_alone_sees_the_same_state(yard: Yard) -> None:
    execution = yard.submit("retry: {count: 1, delay: 100}", a={"exit": 3})
    yard.exchange.make()
    with yard.exchange.office.store.write() as connection:
        changed = {"only": {}, "pids": str(yard.site.pids)}
        connection.execute(update(executions).where(executions.c.id == execution).values(parameters=changed))
    office = yard.exchange.office
    for task, kind in (("beside", "delay"), ("a", "retry.1")):
        office.clock.now += 100
        with office.store.write() as connection:
            Run.lock(office.control, connection, execution).take(TimerDue(task, 0, kind))
        yard.exchange.settle_all()
    yard.exchange.make()
    again = yard.jobs(execution)["a2"]
    assert again.status == "succeeded", again.error
    assert again.result["given"]["vars"] == {"first": 1, "said": "before"}, "as when the block started"
    assert "beside" not in again.result["given"]["task"]


@pytest.mark.parametrize(
    ("command", "said"),
    [("[reboot]", "may not run"), ('"{{ parameters.pids }}"', "in a flow a template decides what it is")],
)
def test_what_people_make_up_on_the_spot_is_held_to_the_allowlist(
    yard: Yard, command: str, said: str
) -> None:
    text = yard.text().replace('"echo {{ vars.said }}"', command)
    control = yard.exchange.office.control
    plan = build(load_or_raise(text))
    examined = guard.examine(control, plan, "inline")
    assert isinstance(examined.error, NotAllowed)
    assert said in str(examined.problems)
    assert examined.told[0]["nodes"] == yard.site.hosts[0]
    assert not guard.examine(control, plan, "stored").refused


def test_who_is_held_to_nodes_has_no_flows(yard: Yard) -> None:
    """Neither at submission nor, where that was narrowed since or a called workflow has them, when they would go."""
    control = yard.exchange.office.control
    execution = yard.submit("retry: {count: 3}")
    grants = [{"role": "operator", "packs": ["inline"], "labels": {"kind": "web"}}]
    people.create_user(control, "ada", None, "admin", grants=grants)
    control.scoped.forget()
    yard.exchange.make()
    found = yard.jobs(execution)
    assert {name: row.error["type"] for name, row in found.items()} == dict.fromkeys(
        ("a1", "b1", "c1"), "not_allowed"
    )
    assert not yard.site.started()
    with pytest.raises(NotAllowed) as caught:
        yard.submit()
    assert "it is no node" in caught.value.message


PACKED = """
ref: tools.spread
settings: {parallel: {strategy: remote, remote: {hosts: [HOSTS], workdir: WORKDIR, basefile: here, method: ssh}}}
tasks:
  - name: many
    type: parallel
    tasks:
      - {name: a, action: tools.greet, input: {who: "Grace O'Malley"}}
      - {name: b, action: core.shell, with_items: [1, 2], input: {command: "echo {{ item }}; exit {{ item - 1 }}"}}
  - {name: other, action: tools.stored, when: "{{ false }}"}
"""


def _real_tool(yard: Yard) -> None:
    """The tool `here`, which is this Muster."""
    tool = yard.site.tools / "here"
    tool.write_text(
        f'#!/bin/sh\nPYTHONPATH={Path(__file__).parents[2]} exec {sys.executable} -m app.cli.main "$@"\n'
    )


LAST = """
settings: {parallel: {strategy: remote, remote: {hosts: [HOSTS], workdir: WORKDIR, basefile: here, method: ssh}}}
tasks: [{name: first, action: core.noop, publish: [{said: "it's"}]}]
finally:
  - name: many
    type: parallel
    tasks:
      - {name: a, action: core.shell, input: {command: "echo {{ vars.said }} {{ system.execution_id }}"}}
      - {name: b, action: core.echo, input: {message: "{{ system.timestamp }} {{ system.identity.login }}"}}
"""


def test_flows_in_finally_with_what_the_execution_is(yard: Yard) -> None:
    """By the real tool."""
    _real_tool(yard)
    text = LAST.replace("HOSTS", ", ".join(yard.site.hosts)).replace("WORKDIR", str(yard.site.workdir))
    execution = yard.exchange.submit(text)
    yard.exchange.make()
    found = yard.jobs(execution)
    assert {name: row.error for name, row in found.items()} == {"a1": None, "b1": None}
    assert found["a1"].result["stdout"] == f"it's {execution}"
    with yard.exchange.office.store.read() as connection:
        row = connection.execute(select(executions).where(executions.c.id == execution)).one()
    assert found["b1"].result["message"] == f"{row.created_at} {row.requester}"
    assert row.status == "completed"


def test_actions_of_packs_go_along_as_the_server_has_them(yard: Yard) -> None:
    """A pack that the host does not know, and a workflow of it that only the server has. By the real tool."""
    _real_tool(yard)
    greet = Action("tools.greet", "sh", 'echo "hello $who"', parameters=(Parameter("who", required=True),))
    text = PACKED.replace("HOSTS", ", ".join(yard.site.hosts)).replace("WORKDIR", str(yard.site.workdir))
    known = Known({greet.ref: greet}, workflows=frozenset({"tools.stored"}))
    plan = build(load_or_raise(text, known=known))
    office = yard.exchange.office
    execution = submit(office.control, Submission(plan, text, "ada", {})).execution
    yard.exchange.settle_all()
    yard.exchange.make()
    found = yard.jobs(execution)
    assert (found["a1"].status, found["a1"].error) == ("succeeded", None)
    assert found["a1"].result["stdout"] == "hello Grace O'Malley"
    assert found["b1"].status == "failed"
    assert [one["exit_code"] for one in found["b1"].result] == [0, 1]
    assert found["b1"].error["host"] == yard.site.hosts[1]
