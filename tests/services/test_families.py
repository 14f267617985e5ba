"""Executions and the executions that they call: whatever is lost or comes twice, each learns of the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from desk import BOTH, Office, executions, office_on
from sqlalchemy import select

from app.errors import Conflict
from app.services import again, cancel, collect, families, hold, library, tick

CHILD = """
ref: family.child
tasks:
  - {name: work, action: core.shell, delegate_to: web-1, input: {command: ['true']}}
"""
EMPTY = """
ref: family.empty
tasks:
  - {name: nothing, action: core.noop}
"""
PARENT = """
tasks:
  - {name: call, type: workflow, action: family.child}
"""


@pytest.fixture(params=BOTH)
def office(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Office]:
    with office_on(request.param, tmp_path, ["web-1"], slots=400) as made:
        for source in (CHILD, EMPTY):
            library.store_workflow(made.control, "family", source, "ada")
        yield made


def children(office: Office, execution: str) -> list[Any]:
    with office.store.read() as connection:
        query = select(executions).where(executions.c.parent == execution).order_by(executions.c.id)
        return list(connection.execute(query))


def time_passes(office: Office, seconds: float = 2.0) -> None:
    office.clock.now += seconds
    office.hear("web-1", last_seen=office.clock.now)
    assert tick.tick(office.desk, "control-1")


def start_child(office: Office, source: str = PARENT) -> tuple[str, Any]:
    """A parent and its child, whose only job is out on its node."""
    parent = office.submit(source)
    (child,) = children(office, parent)
    collect.settle(office.desk, child.id)
    return parent, child


def end_child(office: Office, status: str) -> None:
    """The newest job that was sent ends; the parent is told of nothing yet."""
    office.take_in(office.sent[-1], status)


@contextmanager
def between(module: Any, name: str, act: Callable[[], object]) -> Iterator[None]:
    """`act` happens once, just before a function is called for the first time: what it was given is old by then."""
    inner, acts = getattr(module, name), [act]

    def late(*given: Any, **more: Any) -> Any:
        if acts:
            acts.pop()()
        return inner(*given, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, name, late)
        yield
    assert not acts


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> int:
    """As many calls as are seen to at once: fewer than usual."""
    monkeypatch.setattr(families, "AT_ONCE", 10)
    return 10


def test_a_loop_of_many_calls_comes_to_its_end(office: Office, few: int) -> None:
    count = 2 * few + 1
    parent = office.submit(
        f"tasks:\n  - name: all\n    type: workflow\n    action: family.empty\n    with_items: {list(range(count))}\n"
    )
    for _ in range(8):
        for child in children(office, parent):
            if child.status != "completed":
                collect.settle(office.desk, child.id)
        time_passes(office)
        collect.settle(office.desk, parent)
    assert len(children(office, parent)) == count
    assert office.execution(parent).status == "completed"


def test_calls_beside_many_that_sleep_are_made(office: Office, few: int) -> None:
    items = list(range(few + 1))
    parent = office.submit(
        f"tasks:\n  - {{name: nap, action: core.sleep, input: {{seconds: 600}}, with_items: {items}}}\n"
        "  - {name: call, type: workflow, action: family.child}\n"
    )
    time_passes(office)
    assert len(children(office, parent)) == 1


@pytest.mark.parametrize("nudged", [True, False])
def test_a_child_follows_pause_and_resume(office: Office, nudged: bool) -> None:
    parent, child = start_child(office)
    for asked, wanted in ((hold.pause, "pause"), (hold.resume, "run")):
        asked(office.control, parent, "ada")
        if nudged:
            collect.settle(office.desk, parent)
        else:
            time_passes(office)
        assert office.execution(child.id).intent == wanted


def test_a_pause_that_comes_late_holds_no_child_for_ever(office: Office) -> None:
    parent, child = start_child(office)
    hold.pause(office.control, parent, "ada")
    hold.resume(office.control, parent, "ada")
    # A worker that had read the pause tells the child of it only now.
    hold.pause(office.control, child.id, "ada", "the execution that called it is paused", held=True)
    time_passes(office)
    assert office.execution(child.id).intent == "run"


def test_a_child_that_a_person_paused_stays_so(office: Office) -> None:
    parent, child = start_child(office)
    hold.pause(office.control, child.id, "ada")
    for asked in (hold.pause, hold.resume):
        asked(office.control, parent, "ada")
        time_passes(office)
        assert office.execution(child.id).intent == "pause"


def test_no_child_is_born_to_who_was_cancelled(office: Office) -> None:
    parent = office.hand_in(PARENT)
    with between(families, "_start", lambda: cancel.cancel(office.control, parent, "ada")):
        collect.settle(office.desk, parent)
    assert office.execution(parent).status == "cancelled"
    assert children(office, parent) == []


def test_a_child_is_born_once(office: Office) -> None:
    parent = office.hand_in(PARENT)
    with between(families, "_start", lambda: families.align(office.control, parent)):
        collect.settle(office.desk, parent)
    assert len(children(office, parent)) == 1


def test_a_retry_goes_on_with_the_child(office: Office) -> None:
    parent, child = start_child(office)
    end_child(office, "failed")
    collect.settle(office.desk, parent)
    assert office.execution(parent).status == "failed"
    again.retry(office.control, parent, "ada", again.Wanted())
    # Another worker looks at the family while the child is being linked to the new attempt.
    with between(again, "retry", lambda: families.align(office.control, parent)):
        families.align(office.control, parent)
    assert office.execution(parent).status in ("running", "waiting")
    assert office.execution(child.id).status in ("running", "waiting")
    collect.settle(office.desk, child.id)
    end_child(office, "succeeded")
    collect.settle(office.desk, parent)
    assert [office.execution(one).status for one in (child.id, parent)] == ["completed"] * 2


def test_an_end_that_is_no_end_any_more_is_not_handed_back(office: Office) -> None:
    parent, child = start_child(office)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(families, "align", lambda *_: None)
        end_child(office, "failed")
    assert office.execution(child.id).status == "failed"
    # A person tries the child again just as a worker is about to say that it failed.
    with between(
        families, "_hand_back", lambda: again.retry(office.control, child.id, "ada", again.Wanted())
    ):
        families.align(office.control, parent)
    assert office.execution(parent).status in ("running", "waiting")
    collect.settle(office.desk, child.id)
    end_child(office, "succeeded")
    time_passes(office)
    assert office.execution(parent).status == "completed"


def test_a_child_for_which_nobody_waits_is_not_tried_again(office: Office) -> None:
    parent, child = start_child(office)
    end_child(office, "failed")
    collect.settle(office.desk, parent)
    with pytest.raises(Conflict) as refused:
        again.retry(office.control, child.id, "ada", again.Wanted())
    assert refused.value.code == "parent-does-not-wait"
    assert parent in refused.value.message
    assert office.execution(child.id).status == "failed"


def test_a_family_that_cannot_be_seen_to_keeps_no_other_waiting(
    office: Office, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = sorted(office.hand_in(PARENT) for _ in range(2))
    inner = families.align

    def align(control: Any, execution: str) -> None:
        assert execution != first, "made up"
        inner(control, execution)

    monkeypatch.setattr(families, "align", align)
    time_passes(office)
    assert len(children(office, second)) == 1
    assert first in caplog.text
