"""Orders with several jobs, on a station with a real journal and runner and no broker."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from station_place import Place
from waiting import PATIENCE, wait_until

from app.node import lines
from app.node.journal import Entry, Promise
from app.node.voice import by_order, collect
from app.transport.gate import Canvas
from app.transport.messages import Job, Order

CANVAS = Canvas(chain=[{"task": "control.collect", "options": {}}])
"""What an order came with: here nobody reads it."""
WRITES = """echo '{"found": 1}' > "$MUSTER_OUTPUT\""""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.close()


def line(place: Place, **scripts: str) -> list[Job]:
    """Jobs `a`, `b` and `c`, each of which says its name unless it has another script."""
    return [place.job(name, scripts.get(name, "")) for name in "abc"]


def gated(place: Place, name: str) -> str:
    """The script of a job that says its name and waits for `open_gate`."""
    return f"echo {name} >> {place.effects}; until [ -e {place.directory}/{name}.gate ]; do sleep 0.02; done"


def open_gate(place: Place, name: str) -> None:
    (place.directory / f"{name}.gate").touch()


def begin(place: Place, *jobs: Job, at_once: bool = False) -> threading.Thread:
    worker = threading.Thread(
        target=place.station.run, args=(place.order(*jobs, at_once=at_once), CANVAS), daemon=True
    )
    worker.start()
    return worker


def statuses(place: Place, *jobs: Job) -> list[str]:
    """How each job ended, "" where nothing was promised of it, "accepted" where it has not ended."""
    entries = [place.station.journal.find("INST", job.id) for job in jobs]
    return [
        "" if entry is None else place.outcome(job).status if entry.outcome else entry.status
        for job, entry in zip(jobs, entries, strict=True)
    ]


def canvas_of(place: Place, job: Job) -> Canvas:
    entry = place.station.journal.find("INST", job.id)
    assert entry is not None
    return Canvas.from_json(json.loads(entry.canvas)["canvas"])


def test_each_begins_as_the_one_before_it_has_succeeded(place: Place) -> None:
    a, b, c = line(place)
    place.station.run(place.order(a, b, c), CANVAS)
    assert place.ran() == ["a", "b", "c"]
    said = [(place.outcome(job).after, place.outcome(job).then) for job in (a, b, c)]
    assert said == [("", b.id), (a.id, c.id), (b.id, "")]
    assert [canvas_of(place, job) for job in (a, b, c)] == [Canvas(), Canvas(), CANVAS]


@pytest.mark.parametrize(
    ("script", "status"), [("exit 3", "failed"), ("kill -9 $$", "failed"), (WRITES, "succeeded")]
)
def test_nothing_follows_what_control_has_to_judge(place: Place, script: str, status: str) -> None:
    """Behind what failed something else may follow; what a script wrote may fit no schema."""
    a, b, c = line(place, b=script)
    place.station.run(place.order(a, b, c), CANVAS)
    assert statuses(place, a, b, c) == ["succeeded", status, ""]
    assert (place.outcome(b).after, place.outcome(b).then) == (a.id, "")
    assert place.ran() == ["a"]


def test_a_pause_lets_nothing_follow(place: Place) -> None:
    a, b, c = line(place, a=gated(place, "a"))
    worker = begin(place, a, b, c)
    wait_until(lambda: place.ran() == ["a"])
    place.say("hold", a)
    open_gate(place, "a")
    worker.join(PATIENCE)
    assert statuses(place, a, b, c) == ["succeeded", "", ""]
    assert place.outcome(a).then == ""
    # What was kept back comes in an order of its own.
    place.station.run(place.order(b, c), CANVAS)
    assert statuses(place, a, b, c) == ["succeeded"] * 3


def test_a_pause_that_comes_first_is_kept(place: Place) -> None:
    """Before the order is begun, and over a worker that is started anew."""
    a, b, c = line(place, b=gated(place, "b"))
    place.say("hold", b)
    worker = begin(place, a, b, c)
    wait_until(lambda: place.ran() == ["a", "b"])
    place.let_go()
    worker.join(PATIENCE)
    place.station = place.new_station()
    open_gate(place, "b")
    place.station._take_up(place.station.journal.held()[0])
    assert statuses(place, a, b, c) == ["succeeded", "succeeded", ""]


def test_a_cancel_of_what_is_over_stops_what_followed_it(place: Place) -> None:
    """Whoever cancels may not have heard yet that the node went on."""
    a, b, c = line(place, b=gated(place, "b"))
    worker = begin(place, a, b, c)
    wait_until(lambda: place.ran() == ["a", "b"])
    place.cancel(a)
    worker.join(PATIENCE)
    assert statuses(place, a, b, c) == ["succeeded", "cancelled", ""]


def test_a_cancel_of_what_follows_is_kept_until_it_has_its_turn(place: Place) -> None:
    a, b, c = line(place, a=gated(place, "a"))
    worker = begin(place, a, b, c)
    wait_until(lambda: place.ran() == ["a"])
    place.cancel(c)
    open_gate(place, "a")
    worker.join(PATIENCE)
    assert statuses(place, a, b, c) == ["succeeded", "succeeded", "cancelled"]


def test_a_second_copy_of_the_order_changes_nothing(place: Place) -> None:
    a, b, c = line(place, b=gated(place, "b"))
    worker = begin(place, a, b, c)
    wait_until(lambda: place.ran() == ["a", "b"])
    place.station.run(place.order(a, b, c), CANVAS)
    place.station.run(place.order(b, c), CANVAS)
    assert place.ran() == ["a", "b"]
    open_gate(place, "b")
    worker.join(PATIENCE)
    place.station.run(place.order(a, b, c), CANVAS)
    assert place.ran() == ["a", "b", "c"]


def test_what_is_known_already_is_not_run_as_a_follower(place: Place) -> None:
    a, b, c = line(place)
    place.station.run(place.order(b), Canvas())
    place.station.run(place.order(a, b, c), CANVAS)
    assert place.ran() == ["b", "a"]
    assert place.outcome(a).then == ""


def test_a_worker_that_is_started_anew_goes_on_with_the_line(place: Place) -> None:
    a, b, c = line(place, b=gated(place, "b"))
    worker = begin(place, a, b, c)
    wait_until(lambda: place.ran() == ["a", "b"])
    place.let_go()
    worker.join(PATIENCE)
    place.station = place.new_station()
    (left,) = place.station.journal.held()
    assert left.job == b.id
    open_gate(place, "b")
    place.station._take_up(left)
    assert place.ran() == ["a", "b", "c"]
    assert (place.outcome(b).then, canvas_of(place, c)) == (c.id, CANVAS)


def test_a_line_is_taken_up_though_its_order_has_expired(place: Place) -> None:
    """It was opened in time. What it says of a job that nobody can open any more is that nobody knows."""
    a, b, c = line(place)
    order = Order("Oa", "INST", "web-1", place.station.journal.epoch, "run", 0.0, 1.0, jobs=(a, b, c))
    token, journal, now = place.order(a, b, c), place.station.journal, time.time()
    journal.accept("INST", *lines.promise(order, a, token, CANVAS.to_json()), now)
    journal.ended("INST", a.id, "outcome", now, None, lines.promise(order, b, "", CANVAS.to_json()))
    with journal._transaction() as db:
        db.execute("UPDATE jobs SET accepted_at = ? WHERE job = ?", (now + 3600, b.id))
    place.station._take_up(journal.held()[0])
    assert place.ran() == ["b", "c"]
    journal.accept(
        "INST", "E.x.0.1", "0" * 64, "Ox", json.dumps({"token": "", "canvas": {}, "boot": ""}), now
    )
    place.station._take_up(journal.held()[0])
    assert [entry.job for entry in journal.held()] == []
    assert place.outcome(replace(a, id="E.x.0.1")).status == "unknown"


def test_what_was_promised_and_not_begun_is_begun_by_the_next_worker(place: Place) -> None:
    """The end of a job and the promise of the next are one transaction: between the two there is nothing."""
    a, b, c = line(place)
    order = Order("Oa", "INST", "web-1", place.station.journal.epoch, "run", 0.0, 1.0, jobs=(a, b, c))
    token, carried, now = place.order(a, b, c), CANVAS.to_json(), time.time()
    place.station.journal.accept("INST", *lines.promise(order, a, token, carried), now)
    place.station.journal.ended("INST", a.id, "outcome", now, None, lines.promise(order, b, "", carried))
    (left,) = place.station.journal.held()
    place.station._take_up(left)
    assert place.ran() == ["b", "c"]


def test_all_at_once_is_at_once(place: Place) -> None:
    """The first ends only once the last has begun."""
    a, b, c = line(
        place, a=f"until grep -q c {place.effects}; do sleep 0.02; done; echo a >> {place.effects}"
    )
    place.effects.touch()
    begin(place, a, b, c, at_once=True).join(PATIENCE)
    wait_until(lambda: statuses(place, a, b, c) == ["succeeded"] * 3)
    assert sorted(place.ran()) == ["a", "b", "c"]
    assert {(place.outcome(job).after, place.outcome(job).then) for job in (a, b, c)} == {("", "")}
    assert [canvas_of(place, job) for job in (a, b, c)] == [Canvas(), Canvas(), CANVAS]


def test_what_runs_at_once_is_promised_as_it_begins(place: Place) -> None:
    """What waits for a slot when its worker ends is nobody's promise: control sends it again."""
    a, b, c = line(place, a=gated(place, "a"))
    place.let_go()
    place.station = place.new_station(node_slots=1)
    waiting: list[Callable[[], None]] = []
    place.station.spread = waiting.append
    worker = begin(place, a, b, c, at_once=True)
    wait_until(lambda: place.ran() == ["a"] and len(waiting) == 2)
    assert [entry.job for entry in place.station.journal.held()] == [a.id]
    waiting[0]()
    place.station.leave()
    waiting[1]()
    open_gate(place, "a")
    worker.join(PATIENCE)
    assert statuses(place, a, b, c) == ["accepted", "succeeded", ""]


def test_a_member_finds_its_order_again_though_the_first_came_otherwise(place: Place) -> None:
    """The first was sent again alone before, so that its entry does not hold the order of the others."""
    a, b, c = line(place, b=gated(place, "b"))
    place.station.run(place.order(a), Canvas())
    begin(place, a, b, c, at_once=True)
    # A script that has begun is not yet one whose end is in the journal.
    wait_until(lambda: statuses(place, a, c) == ["succeeded"] * 2 and sorted(place.ran()) == ["a", "b", "c"])
    place.let_go()
    place.station = place.new_station()
    open_gate(place, "b")
    (left,) = place.station.journal.held()
    place.station._take_up(left)
    assert statuses(place, a, b, c) == ["succeeded"] * 3


def test_one_of_several_at_once_is_cancelled_alone(place: Place) -> None:
    a, b, c = line(place, a=gated(place, "a"), b=gated(place, "b"))
    worker = begin(place, a, b, c, at_once=True)
    wait_until(lambda: sorted(place.ran()) == ["a", "b", "c"])
    place.cancel(b)
    wait_until(lambda: statuses(place, b) == ["cancelled"])
    open_gate(place, "a")
    worker.join(PATIENCE)
    assert statuses(place, a, b, c) == ["succeeded", "cancelled", "succeeded"]


def test_the_canvas_comes_with_the_last_outcome_of_a_message() -> None:
    """Of what runs at once its bearer may be over before others."""

    def entry(job: str, canvas: Canvas) -> Entry:
        kept = json.dumps({"canvas": canvas.to_json()})
        return Entry("INST", *Promise(job, "", "O1", kept), "ended", f"outcome of {job}", 0, 0.0, 1.0)

    link = {"task": "control.collect", "options": {"task_id": "c.collect"}}
    message = collect([entry("c", Canvas([link])), entry("a", Canvas()), entry("b", Canvas())])
    assert (message.id, message.args) == ("c.collect", ["outcome of a", "outcome of b", "outcome of c"])


def test_outcomes_go_together_by_order_and_no_further_than_a_message_may_be_long() -> None:
    def entry(order: str, job: str, size: int) -> Entry:
        return Entry("INST", *Promise(job, "", order, "{}"), "ended", "o" * size, 0, 0.0, 1.0)

    given = [entry("O1", "a", 10), entry("O2", "x", 10), entry("O1", "b", 600_000), entry("O1", "c", 10)]
    assert [[one.job for one in found] for found in by_order(given)] == [["a", "b"], ["x"], ["c"]]
