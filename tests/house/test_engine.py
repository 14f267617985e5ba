"""The engine has one table of transitions, and it is whole."""

from __future__ import annotations

import ast
import re

import pytest
from repository import modules, named, tree

from app.engine import status
from app.engine.moves import EXECUTION, JOB, MOVES, OVER, TASK, ForbiddenMove, check_move, may_move

STATUSES = {
    EXECUTION: (status.EXECUTION_STATUSES, status.REQUESTED),
    TASK: (status.TASK_STATUSES, status.PENDING),
    JOB: (status.JOB_STATUSES, status.QUEUED),
}


@pytest.mark.parametrize("what", STATUSES)
def test_every_status_has_its_row_and_can_be_reached(what: str) -> None:
    statuses, first = STATUSES[what]
    assert MOVES[what].keys() == set(statuses)
    reached, ahead = {first}, [first]
    while ahead:
        for after in MOVES[what][ahead.pop()] - reached:
            reached.add(after)
            ahead.append(after)
    assert reached == set(statuses)


@pytest.mark.parametrize("what", STATUSES)
def test_what_is_over_stays_over_unless_its_execution_is_tried_again(what: str) -> None:
    for before in OVER[what]:
        assert not any(may_move(what, before, after) for after in MOVES[what] if after != before)
        assert not any(after in OVER[what] for after in MOVES[what][before])
    with pytest.raises(ForbiddenMove):
        check_move(what, "it", min(OVER[what]), STATUSES[what][1])


def test_there_is_no_other_table() -> None:
    """Nothing else maps a status to statuses: not two of them as keys with sets of statuses behind."""
    words = {word for statuses, _ in STATUSES.values() for word in statuses}
    names = {name for name, value in vars(status).items() if isinstance(value, str) and value in words}
    wrong = []
    for path in modules("app"):
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Dict):
                mapped = [
                    (_word(key, words, names), _set_of(value, words, names)) for key, value in _pairs(node)
                ]
                if sum(is_status and is_set for is_status, is_set in mapped) >= 2:
                    wrong.append(f"{named(path)}:{node.lineno}")
    assert {re.sub(r":\d+$", "", place) for place in wrong} == {"app/engine/moves.py"}, wrong


def _pairs(node: ast.Dict) -> list[tuple[ast.expr, ast.expr]]:
    return [(key, value) for key, value in zip(node.keys, node.values, strict=True) if key is not None]


def _word(node: ast.expr, words: set[str], names: set[str]) -> bool:
    is_word = isinstance(node, ast.Constant) and node.value in words
    return is_word or (isinstance(node, ast.Name) and node.id in names)


def _set_of(node: ast.expr, words: set[str], names: set[str]) -> bool:
    """Whether an expression is made of statuses in a collection, or of names of such collections."""
    inner = [one for one in ast.walk(node) if isinstance(one, ast.Name | ast.Constant)]
    is_many = not isinstance(node, ast.Name | ast.Constant)
    return is_many and any(_word(one, words, names) for one in inner)
