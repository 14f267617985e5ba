"""Faults as data, and a copy of the program with one of them in it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import yaml

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
WANTED = 24


class Misfit(ValueError):
    """A fault that does not fit the program any more."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """In `file`, `new` in place of `old`."""

    name: str
    file: str
    old: str
    new: str

    def text(self) -> str:
        """The file with the fault. Raises Misfit unless `old` stands in it exactly once."""
        text = (ROOT / self.file).read_text("utf-8")
        if text.count(self.old) != 1:
            raise Misfit(f"{self.name}: its text stands {text.count(self.old)} times in {self.file}")
        return text.replace(self.old, self.new)

    def build(self, directory: Path) -> None:
        """A copy of `app` with the fault, to be put on the path."""
        shutil.copytree(ROOT / "app", directory / "app", ignore=shutil.ignore_patterns("__pycache__"))
        (directory / self.file).write_text(self.text(), "utf-8")


def mutants() -> list[Mutant]:
    return [Mutant(**one) for one in yaml.safe_load((HERE / "mutants.yaml").read_text("utf-8"))]
