"""The chain of the audit trail: sealed in order, pruned from the front, and whatever is changed in it is found."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from desk import BOTH, Office, office_on
from sqlalchemy import delete, insert, select, text, update
from waiting import PATIENCE

from app.errors import Conflict, InvalidInput
from app.services import audit, chain, tick
from app.services.chain import Place
from app.services.control import Control
from app.store.tables import AuditChain, AuditEntry, table

entries = table(AuditEntry)


@pytest.fixture(params=BOTH)
def office(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Office]:
    with office_on(request.param, tmp_path, ["web-1"]) as made:
        yield made


def write(office: Office, number: int, **detail: Any) -> None:
    for one in range(number):
        with office.store.write() as connection:
            office.clock.now += 0.25
            audit.record(
                connection,
                "ada",
                "thing.change",
                f"thing-{one}",
                detail={"one": one, **detail},
                at=office.clock.now,
            )


def sealed(office: Office, number: int = 8) -> Place:
    """The head of a chain of so many entries."""
    write(office, number)
    chain.seal(office.control)
    found = chain.verify(office.control)
    assert (found.ok, found.entries, found.sealed, found.unsealed) == (True, number, number, 0)
    return found.chain.head


def numbers(office: Office) -> list[Any]:
    with office.store.read() as connection:
        return [
            tuple(row)
            for row in connection.execute(select(entries.c.seq, entries.c.id).order_by(entries.c.id))
        ]


def test_entries_are_written_unsealed_and_sealed_in_order(office: Office) -> None:
    write(office, 3)
    assert [seq for seq, _ in numbers(office)] == [None, None, None]
    assert chain.verify(office.control).unsealed == 3
    assert chain.seal(office.control) == 3
    assert [seq for seq, _ in numbers(office)] == [1, 2, 3]
    write(office, 2)
    assert chain.seal(office.control) == 2
    assert chain.seal(office.control) == 0
    found = chain.verify(office.control)
    assert (found.ok, found.entries, found.chain.head.seq) == (True, 5, 5)


def test_an_empty_trail_verifies(office: Office) -> None:
    found = chain.verify(office.control)
    assert (found.ok, found.entries, found.chain.head, found.next) == (True, 0, chain.START, None)


def test_the_tick_seals_and_tells_the_head_once_an_hour(
    office: Office, caplog: pytest.LogCaptureFixture
) -> None:
    write(office, 2)
    caplog.set_level("INFO")
    tick.tick(office.desk, "one")
    head = chain.verify(office.control).chain.head
    assert head.seq == 2
    told = [one for one in caplog.records if one.message == "head of the audit trail"]
    assert [one.muster for one in told] == [{"seq": 2, "hash": head.hash}]  # type: ignore[attr-defined]
    office.clock.now += 60
    tick.tick(office.desk, "one")
    office.clock.now += 3600
    tick.tick(office.desk, "one")
    assert len([one for one in caplog.records if one.message == "head of the audit trail"]) == 2


def test_what_one_tick_leaves_the_next_one_seals(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain, "AT_ONCE", 4)
    monkeypatch.setattr(chain, "MOST_SEALED", 8)
    write(office, 11)
    assert [chain.seal(office.control) for _ in range(3)] == [8, 3, 0]
    assert chain.verify(office.control, limit=3).entries == 3


def test_a_chain_is_verified_in_pages(office: Office) -> None:
    head = sealed(office, 7)
    looked, behind = [], None
    while True:
        found = chain.verify(office.control, behind=behind, limit=3)
        assert found.ok
        looked.append(found.entries)
        behind = found.next
        if behind is None:
            break
    assert (looked, found.chain.head) == ([3, 3, 1], head)
    assert not chain.verify(office.control, behind=Place(3, "0" * 64)).ok


# what is changed is found

_CHANGES = {
    "id": 999,
    "at": 1_700_000_000.000001,
    "person": "eve",
    "action": "thing.read",
    "subject": "thing-x",
    "outcome": "refused",
    "detail": {"one": "1"},
    "hash": "0" * 64,
    "seq": 50,
}


def test_every_column_is_tried() -> None:
    assert _CHANGES.keys() == {column.name for column in entries.columns}


def test_a_changed_column_is_found(office: Office) -> None:
    """Of the first, of one in the middle and of the last entry."""
    sealed(office)
    for column, value in _CHANGES.items():
        for seq in (1, 4, 8):
            with office.store.write() as connection:
                before = dict(
                    connection.execute(select(entries).where(entries.c.seq == seq)).mappings().one()
                )
                connection.execute(update(AuditEntry).where(entries.c.seq == seq).values({column: value}))
            wrong = chain.verify(office.control).first_wrong
            assert (wrong and wrong.seq) == seq, (column, seq)
            place = entries.c.seq == (value if column == "seq" else seq)
            with office.store.write() as connection:
                connection.execute(update(AuditEntry).where(place).values(before))
    assert chain.verify(office.control).ok


def test_a_moment_that_moves_by_a_microsecond_is_found(office: Office) -> None:
    sealed(office)
    with office.store.write() as connection:
        at = connection.execute(select(entries.c.at).where(entries.c.seq == 3)).scalar_one()
        connection.execute(update(AuditEntry).where(entries.c.seq == 3).values(at=at + 1e-6))
    assert not chain.verify(office.control).ok


def test_what_is_no_value_of_its_column_is_found(tmp_path: Path) -> None:
    """SQLite keeps anything."""
    for column in ("at", "detail"):
        with office_on("sqlite", tmp_path / column, []) as office:
            sealed(office)
            with office.store.write() as connection:
                connection.execute(text(f"UPDATE audit_entries SET {column} = 'gone' WHERE seq = 5"))
            wrong = chain.verify(office.control).first_wrong
            assert (wrong and wrong.seq) == 5


def test_a_deleted_entry_is_found(office: Office) -> None:
    sealed(office)
    for seq in (5, 1):
        with office.store.write() as connection:
            connection.execute(delete(AuditEntry).where(entries.c.seq == seq))
        assert chain.verify(office.control).first_wrong == chain.Wrong(seq, None, "it is missing")


def test_deleted_last_entries_are_found(office: Office) -> None:
    """By the row of the head; where that was set back too, by a head that was noted, also after more was sealed."""
    head = sealed(office)
    with office.store.write() as connection:
        connection.execute(delete(AuditEntry).where(entries.c.seq > 5))
    assert chain.verify(office.control).first_wrong == chain.Wrong(6, None, "it is missing")
    with office.store.write() as connection:
        kept = connection.execute(select(entries.c.hash).where(entries.c.seq == 5)).scalar_one()
        connection.execute(update(AuditChain).values(seq=5, hash=kept))
    assert chain.verify(office.control).ok
    wrong = chain.verify(office.control, head=head).first_wrong
    assert wrong == chain.Wrong(8, None, "it was noted as the head, and is missing")
    write(office, 6)
    chain.seal(office.control)
    assert chain.verify(office.control).ok
    wrong = chain.verify(office.control, head=head).first_wrong
    assert wrong == chain.Wrong(8, None, "it is not the head that was noted")


def test_a_chain_that_was_sealed_anew_is_found_by_a_noted_head(office: Office) -> None:
    head = sealed(office)
    with office.store.write() as connection:
        connection.execute(update(AuditEntry).where(entries.c.seq == 2).values(person="eve"))
        connection.execute(update(AuditEntry).values(seq=None, hash=""))
        connection.execute(update(AuditChain).values(seq=0, hash=""))
    chain.seal(office.control)
    assert chain.verify(office.control).ok
    assert not chain.verify(office.control, head=head).ok


def test_two_swapped_entries_are_found(office: Office) -> None:
    sealed(office)
    with office.store.write() as connection:
        hashes = {row.seq: row.hash for row in connection.execute(select(entries.c.seq, entries.c.hash))}
        for seq, other in ((3, 100), (6, 3), (100, 6)):
            connection.execute(update(AuditEntry).where(entries.c.seq == seq).values(seq=other))
        for seq in (3, 6):
            connection.execute(update(AuditEntry).where(entries.c.seq == seq).values(hash=hashes[seq]))
    wrong = chain.verify(office.control).first_wrong
    assert (wrong and wrong.seq) == 3


def forged(seq: int | None, hash_: str) -> dict[str, Any]:
    told = {"at": 1.0, "person": "eve", "action": "thing.change", "subject": "x", "outcome": "accepted"}
    return {**told, "detail": {}, "seq": seq, "hash": hash_}


def test_a_forged_entry_is_found(office: Office) -> None:
    sealed(office)
    for seq, what in (
        (0, "it stands in front of the anchor"),
        (-1, "it stands in front of the anchor"),
        (9, "it stands behind the head, and was not sealed here"),
        (12, "it stands behind the head, and was not sealed here"),
        (None, "it has a hash, and no place in the chain"),
    ):
        with office.store.write() as connection:
            connection.execute(insert(AuditEntry), forged(seq, "0" * 64))
        wrong = chain.verify(office.control).first_wrong
        assert (wrong and (wrong.seq, wrong.what)) == (seq, what)
        with office.store.write() as connection:
            connection.execute(delete(AuditEntry).where(entries.c.person == "eve"))


def test_nothing_is_sealed_behind_a_forged_entry(office: Office) -> None:
    sealed(office)
    write(office, 1)
    with office.store.write() as connection:
        connection.execute(insert(AuditEntry), forged(9, "0" * 64))
    with pytest.raises(Conflict, match="was not sealed here"):
        chain.seal(office.control)
    assert chain.verify(office.control).unsealed == 1


def test_a_head_that_was_taken_away_is_found(office: Office) -> None:
    sealed(office)
    with office.store.write() as connection:
        connection.execute(delete(AuditChain))
    assert not chain.verify(office.control).ok


# order


@pytest.mark.postgres
def test_an_entry_that_was_begun_earlier_and_committed_later_is_sealed_later(tmp_path: Path) -> None:
    with office_on("postgres", tmp_path, []) as office:
        begun, sealed_others = threading.Event(), threading.Event()

        def slow() -> None:
            with office.store.write() as connection:
                audit.record(connection, "slow", "thing.change", at=office.clock.now)
                begun.set()
                assert sealed_others.wait(PATIENCE)

        (thread := threading.Thread(target=slow)).start()
        assert begun.wait(PATIENCE)
        write(office, 2)
        assert chain.seal(office.control) == 2
        sealed_others.set()
        thread.join()
        assert chain.seal(office.control) == 1
        assert numbers(office) == [(3, 1), (1, 2), (2, 3)]
        assert chain.verify(office.control).ok


def test_writers_and_two_that_seal_make_one_chain(office: Office) -> None:
    """No gaps and no doubles, whoever holds the lease."""
    writers = [threading.Thread(target=write_apart, args=(office, number)) for number in range(4)]
    done = threading.Event()

    def keep_sealing() -> None:
        while not done.is_set():
            chain.seal(office.control)

    sealers = [threading.Thread(target=keep_sealing) for _ in range(2)]
    for thread in (*sealers, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    for thread in sealers:
        thread.join()
    chain.seal(office.control)
    found = chain.verify(office.control)
    assert (found.ok, found.entries, found.unsealed) == (True, 100, 0)


def test_writers_sealers_and_two_that_prune_leave_a_chain_that_verifies_at_any_time(office: Office) -> None:
    done, found = threading.Event(), []

    def prune() -> None:
        chain.prune(office.control, office.clock.now + 1)

    def verify() -> None:
        found.append(chain.verify(office.control).first_wrong)

    def keep(what: Callable[[], object]) -> None:
        while not done.is_set():
            try:
                what()
            except Exception as problem:
                found.append(problem)

    does: list[Callable[[], object]] = [lambda: chain.seal(office.control), prune, prune, verify]
    others = [threading.Thread(target=keep, args=(what,)) for what in does]
    writers = [threading.Thread(target=write_apart, args=(office, number)) for number in range(4)]
    for thread in (*others, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    for thread in others:
        thread.join()
    chain.seal(office.control)
    last = chain.verify(office.control)
    assert (last.ok, last.unsealed, set(found)) == (True, 0, {None})
    assert last.chain.head.seq >= 100


def write_apart(office: Office, number: int) -> None:
    for one in range(25):
        with office.store.write() as connection:
            audit.record(connection, f"p{number}", "thing.change", str(one), at=office.clock.now)


# retention


def test_entries_are_pruned_from_the_front_and_the_rest_verifies(office: Office) -> None:
    head = sealed(office)
    with office.store.read() as connection:
        fourth = connection.execute(select(entries.c.at, entries.c.hash).where(entries.c.seq == 4)).one()
    assert chain.prune(office.control, fourth.at + 0.1) == 4
    found = chain.verify(office.control, head=head)
    assert (found.ok, found.entries, found.sealed, found.unsealed) == (True, 4, 4, 1)
    assert found.chain.anchor == Place(4, fourth.hash)
    assert chain.verify(office.control, head=found.chain.anchor).ok
    with pytest.raises(InvalidInput) as refused:
        chain.verify(office.control, head=Place(3, "0" * 64))
    assert refused.value.code == "head-pruned"
    # A page that was asked for before goes on behind the anchor.
    assert chain.verify(office.control, behind=Place(2, "0" * 64)).ok
    with office.store.read() as connection:
        told = connection.execute(select(entries).order_by(entries.c.id.desc()).limit(1)).one()
    assert (told.person, told.action, told.detail["seq"]) == ("control", "audit.prune", 4)
    chain.seal(office.control)
    assert chain.verify(office.control).ok


def test_a_trail_that_is_pruned_whole_goes_on(office: Office) -> None:
    head = sealed(office)
    assert chain.prune(office.control, office.clock.now + 1) == 8
    chain.seal(office.control)
    found = chain.verify(office.control, head=head)
    assert (found.ok, found.entries, found.chain.anchor, found.chain.head.seq) == (True, 1, head, 9)


def test_nothing_is_pruned_that_is_not_as_it_was_sealed(office: Office) -> None:
    sealed(office)
    with office.store.write() as connection:
        connection.execute(update(AuditEntry).where(entries.c.seq == 3).values(person="eve"))
    with pytest.raises(Conflict, match="nothing is pruned"):
        chain.prune(office.control, office.clock.now + 1)
    assert len(numbers(office)) == 8


def test_the_setting_prunes_with_everything_else(office: Office) -> None:
    """And nothing goes where it is not set."""
    sealed(office)
    office.clock.now += 100 * 86400.0
    tick.tick(office.desk, "one")
    assert len(numbers(office)) == 8
    settings = replace(office.control.settings, audit_retention=86400.0)
    office.clock.now += 2 * 3600.0
    desk = replace(office.desk, control=Control(settings, office.store, clock=office.clock))
    tick.tick(desk, "one")
    assert chain.verify(office.control).chain.anchor.seq == 8
