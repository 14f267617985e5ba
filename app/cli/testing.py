"""`muster test`: tests of workflows, in virtual time, without a server."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import click

from app.cli import folder
from app.cli.files import read_text
from app.cli.options import knows_packs, wants_json
from app.cli.plain import as_json as json_text
from app.cli.plain import safe, seconds
from app.errors import InvalidInput
from app.language.problems import Problem, as_json, render_text
from app.rehearse.coverage import Coverage, edges, fired
from app.rehearse.judge import MISSING, Difference, differences
from app.rehearse.load import load
from app.rehearse.model import Case, Suite
from app.rehearse.play import play

MOST_FILES = 1000
_SHORT = 100
_SHOWN_EDGES = 5


@dataclass(slots=True)
class _Result:
    case: Case
    status: str
    took: float
    differences: list[Difference]
    complaints: list[str]

    @property
    def passed(self) -> bool:
        return not self.differences and not self.complaints


@dataclass(slots=True)
class _File:
    name: str
    problems: Sequence[Problem] = ()
    results: list[_Result] = field(default_factory=list)


@click.command(short_help="Run the tests of workflows; no server, no nodes.")
@click.argument("paths", nargs=-1, required=True, metavar="FILE|DIR...")
@click.option(
    "--coverage-min", type=click.FloatRange(0, 100), metavar="N", help="Fail below N % of the edges."
)
@knows_packs
@wants_json
def test(paths: Sequence[str], coverage_min: float | None, folders: Sequence[str], as_json: bool) -> int:
    """Run the tests of workflows through the real engine, in virtual time: no server, no nodes.

    Of a directory all `*.test.yaml`, and what is in directories called `tests`. Exits with 1 if a test failed or
    too few edges fired, with 2 if a file has an error.
    """
    report = run(_found(paths), folders, coverage_min=coverage_min, aloud=not as_json)
    if as_json:
        click.echo(json_text(report.told))
    return report.code


@dataclass(slots=True)
class Report:
    """What came of test files. `low` are the workflows of which too few edges fired."""

    files: list[_File] = field(default_factory=list)
    covered: dict[str, Coverage] = field(default_factory=dict)
    low: list[Coverage] = field(default_factory=list)

    @property
    def failed(self) -> int:
        """How many tests failed."""
        return sum(not one.passed for file in self.files for one in file.results)

    @property
    def code(self) -> int:
        """What the process exits with."""
        if any(file.problems for file in self.files):
            return 2
        return 1 if self.failed or self.low else 0

    @property
    def told(self) -> dict[str, Any]:
        """For programs."""
        shown = [_told_coverage(one) for _, one in sorted(self.covered.items())]
        return {"ok": not self.code, "files": [_told(file) for file in self.files], "coverage": shown}


def run(
    names: Sequence[str], folders: Sequence[str], *, coverage_min: float | None = None, aloud: bool
) -> Report:
    """Run test files; `aloud` tells what came of each as it is over."""
    report = Report()
    for name in names:
        report.files.append(_run(name, report.covered, folders))
        if aloud:
            _tell(report.files[-1])
    least = -1.0 if coverage_min is None else coverage_min
    report.low = [one for _, one in sorted(report.covered.items()) if one.percent < least]
    if aloud and names:
        _tell_coverage(report.covered, report.low, coverage_min)
        count = sum(len(file.results) for file in report.files)
        passed = f"{count - report.failed} passed, {report.failed} failed"
        click.echo(f"{count} {'test' if count == 1 else 'tests'}: {passed}")
    return report


def _found(paths: Sequence[str]) -> list[str]:
    """The files meant, each once. Raises InvalidInput where a directory has none, or all have too many."""
    found: dict[str, None] = {}
    for path in paths:
        inside = [path] if not Path(path).is_dir() else sorted(str(one) for one in _in_directory(Path(path)))
        if not inside:
            hint = "tests are files called *.test.yaml, or YAML files in a directory called tests"
            raise InvalidInput(f"{path}: there are no tests in it", hint=hint)
        found.update(dict.fromkeys(inside))
    if len(found) > MOST_FILES:
        raise InvalidInput(f"more than {MOST_FILES} test files", hint="name a directory further down")
    return list(found)


def _in_directory(directory: Path) -> Iterator[Path]:
    there = (
        path
        for path in directory.rglob("*.yaml")
        if path.name.endswith(".test.yaml") or path.absolute().parent.name == "tests"
    )
    return islice(there, MOST_FILES + 1)


def _run(name: str, covered: dict[str, Coverage], folders: Sequence[str]) -> _File:
    """The results of one file; what its tests fired is added to `covered`, by workflow."""
    directory = Path(name).parent
    known = folder.known_for(name, folders)
    loaded = load(read_text(name), name, lambda path: read_text(str(directory / path)), known=known)
    if loaded.suite is None:
        own = [one if one.file == name else _beside(one, directory) for one in loaded.problems]
        return _File(name, own)
    coverage = covered.setdefault(
        f"{loaded.suite.plan.ref} {loaded.suite.plan.digest}",
        Coverage(loaded.suite.plan.ref, edges(loaded.suite.plan)),
    )
    return _File(name, results=[_result(loaded.suite, case, coverage) for case in loaded.suite.cases])


def _beside(problem: Problem, directory: Path) -> Problem:
    return replace(problem, file=os.path.normpath(directory / problem.file))


def _result(suite: Suite, case: Case, coverage: Coverage) -> _Result:
    played = play(suite.plan, case)
    coverage.fired |= fired(played.world)
    found = differences(case.expect, played)
    return _Result(case, played.world.execution.status, played.took, found, played.complaints)


# for people


def _tell(file: _File) -> None:
    if file.problems:
        click.echo(safe(render_text(file.problems), keep="\n"))
    for one in file.results:
        head = f"{'ok   ' if one.passed else 'FAIL '} {safe(file.name)}: {safe(one.case.name)}"
        click.echo(f"{head} ({one.status}, {seconds(one.took)})")
        for line in (*one.complaints, *(line for each in one.differences for line in _difference(each))):
            click.echo(f"      {safe(line)}")


def _difference(one: Difference) -> list[str]:
    """Short values on one line, long ones as a diff of their JSON."""
    expected, found = _text(one.expected), _text(one.found)
    if len(expected) + len(found) <= _SHORT:
        return [f"{one.at}: expected {expected}, got {found}" + (f" ({one.why})" if one.why else "")]
    before, after = _lines(one.expected), _lines(one.found)
    changed = [line.rstrip("\n") for line in difflib.ndiff(before, after) if not line.startswith("?")]
    return [f"{one.at}: - expected, + got", *(f"  {line}" for line in changed)]


def _text(value: Any) -> str:
    if value is MISSING:
        return "nothing"
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)


def _lines(value: Any) -> list[str]:
    if isinstance(value, list | tuple):
        return [_text(one) for one in value]
    if isinstance(value, str):
        return value.splitlines()
    return json.dumps(value, ensure_ascii=False, indent=1, sort_keys=True).splitlines()


def _tell_coverage(covered: dict[str, Coverage], low: Sequence[Coverage], least: float | None) -> None:
    for _, one in sorted(covered.items()):
        never = [str(edge) for edge in one.never]
        more = f", and {len(never) - _SHOWN_EDGES} more" if len(never) > _SHOWN_EDGES else ""
        rest = f": never fired: {', '.join(never[:_SHOWN_EDGES])}{more}" if never else ""
        click.echo(f"edges {len(one.all) - len(never)}/{len(one.all)} of {one.ref}{rest}")
    for one in low:
        click.echo(f"FAIL  {one.ref}: {one.percent:.0f} % of the edges fired, {least:g} % are wanted")


# for programs


def _told(file: _File) -> dict[str, Any]:
    tests = [
        {
            "name": one.case.name,
            "line": one.case.line,
            "ok": one.passed,
            "status": one.status,
            "took": round(one.took, 3),
            "complaints": one.complaints,
            "differences": [_told_difference(each) for each in one.differences],
        }
        for one in file.results
    ]
    return {"file": file.name, "problems": [as_json(one) for one in file.problems], "tests": tests}


def _told_difference(one: Difference) -> dict[str, Any]:
    """Without `expected` or `found` where there is no value."""
    values = {"at": one.at, "expected": one.expected, "found": one.found, "why": one.why}
    return {name: value for name, value in values.items() if value is not MISSING}


def _told_coverage(one: Coverage) -> dict[str, Any]:
    return {
        "workflow": one.ref,
        "edges": len(one.all),
        "fired": len(one.all) - len(one.never),
        "percent": round(one.percent, 1),
        "never_fired": [str(edge) for edge in one.never],
    }
