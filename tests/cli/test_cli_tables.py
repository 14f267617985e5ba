"""Tables on a terminal: what may be broken over lines there, and what may not."""

from __future__ import annotations

import pytest

from app.cli import drawn
from app.cli.plain import columns

ID = "01K0000000000000000000000A"
NAMES = ["id", "status", "node", "detail"]
PROSE = "a long word about what became of it on that node, and why"
ROWS = [[ID, "failed", "web-1", PROSE], [ID, "succeeded", "web-2", "-"]]


def drawn_at(width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    monkeypatch.setenv("COLUMNS", str(width))
    drawn.print_table(NAMES, ROWS, {"failed": "red"})
    return capsys.readouterr().out


@pytest.mark.parametrize("width", [200, 120, 80])
def test_only_prose_is_broken(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = drawn_at(width, monkeypatch, capsys).splitlines()
    assert max(map(len, lines)) <= width
    first = next(at for at, line in enumerate(lines) if "web-1" in line)
    last = next(at for at, line in enumerate(lines) if "web-2" in line)
    assert lines[first].split()[:3] == [ID, "failed", "web-1"]
    assert lines[last].split() == [ID, "succeeded", "web-2", "-"]
    told = " ".join([*lines[first].split()[3:], *" ".join(lines[first + 1 : last]).split()])
    assert told == PROSE


@pytest.mark.parametrize("width", [70, 40, 1])
def test_where_there_is_no_room_nothing_is_broken(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert drawn_at(width, monkeypatch, capsys) == columns(NAMES, ROWS) + "\n"


def test_a_table_without_rows(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    drawn.print_table(NAMES, [], {})
    assert capsys.readouterr().out.split()[:4] == NAMES
