"""That the faults made by hand still fit the program; `make mutants` lets the simulation look for them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import hunt
from mutate import WANTED, Misfit, Mutant, mutants


def test_each_fits_exactly_once_and_is_still_a_program() -> None:
    found = mutants()
    assert len({one.name for one in found}) == len(found) == WANTED
    for one in found:
        compile(one.text(), one.file, "exec")
        assert one.old != one.new


def test_one_that_does_not_fit_is_told() -> None:
    with pytest.raises(Misfit, match="stands 0 times"):
        Mutant("made up", "app/engine/loop.py", "no such text", "").text()


def test_one_is_found() -> None:
    assert hunt.hunt(mutants()[0]).found
