"""Fifty people decide one request at once: one wins, whatever the database, as often as they like."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from desk import ALWAYS_BOTH, Office
from gate_office import gate_office, state
from gated import execute, questions, runnable
from sqlalchemy import func, select
from waiting import PATIENCE

from app.errors import Conflict
from app.services.approvals import Word, decide
from app.store.tables import Decision, table

decisions = table(Decision)

PEOPLE = 50
FEW, MANY = 10, 1000


@pytest.fixture(params=ALWAYS_BOTH)
def office(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Office]:
    with gate_office(request.param, tmp_path) as made:
        yield made


def one_wins(office: Office, rounds: int) -> None:
    together = threading.Barrier(PEOPLE)
    found = runnable(["web-1"])

    def say(question: str, number: int) -> str:
        word = Word(f"person-{number}", "approve" if number % 2 else "reject")
        together.wait(PATIENCE)
        try:
            return str(decide(office.control, question, word)["status"])
        except Conflict as problem:
            return problem.code

    with ThreadPoolExecutor(PEOPLE) as pool:
        for number in range(rounds):
            execution = execute(office.control, found)
            (row,) = questions(office.control, execution)
            came = Counter(pool.map(say, [row.id] * PEOPLE, range(PEOPLE)))
            (won,) = came.keys() - {"already-decided"}
            assert came == {won: 1, "already-decided": PEOPLE - 1}, f"round {number}: {came}"
            assert won in ("approved", "rejected")
            assert state(office, execution) == ("running" if won == "approved" else "rejected", won)
            with office.store.read() as connection:
                mine = select(func.count()).where(decisions.c.approval == row.id)
                assert connection.execute(mine).scalar_one() == 1


def test_one_of_fifty_wins(office: Office) -> None:
    one_wins(office, FEW)


@pytest.mark.chaos
@pytest.mark.timeout(3600)
def test_one_of_fifty_wins_a_thousand_times(office: Office) -> None:
    one_wins(office, MANY)
