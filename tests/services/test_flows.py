"""Flows by their rows: taken together, leased, recorded one by one, given up. A real database and a real sshd."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from desk import executions, tasks
from sqlalchemy import select, update
from waiting import PATIENCE, wait_until

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "flows"))

from yard import Yard, carried, opened, real_tool

from app.compiler.build import build
from app.engine.events import TimerDue
from app.errors import NotAllowed
from app.language.known import Known
from app.language.model import Action, Parameter
from app.language.parse import load_or_raise
from app.services import calling, flows, guard, people
from app.services.cancel import cancel
from app.services.run import Run
from app.services.submit import Submission, submit


@pytest.fixture
def yard(sshd_program: str, tmp_path: Path) -> Iterator[Yard]:
    with opened(tmp_path) as found:
        yield found


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


def test_a_cancel_ends_them_on_their_hosts(yard: Yard) -> None:
    execution = yard.submit(a={"sleep": 100}, b={"sleep": 100}, c={"sleep": 100})
    thread = carried(yard)
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
    thread = carried(yard)
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
    real_tool(yard)
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
    real_tool(yard)
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
