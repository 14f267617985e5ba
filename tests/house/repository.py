"""The repository as the house tests read it: files, modules, syntax trees."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ("app", "workers")
NOT_OURS = {".venv", ".git", "__pycache__", ".hypothesis", ".pytest_cache", ".mypy_cache", ".ruff_cache"}


def named(path: Path) -> str:
    """The path as messages tell it."""
    return path.relative_to(ROOT).as_posix()


@cache
def modules(*tops: str) -> tuple[Path, ...]:
    """Every Python file of these top directories; by default of the product itself."""
    found = (path for top in tops or SOURCE for path in sorted((ROOT / top).rglob("*.py")))
    return tuple(path for path in found if not NOT_OURS & set(path.parts))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), named(path))


def is_migration(path: Path) -> bool:
    """Alembic loads these by path and calls `upgrade`; they state tables, nothing else."""
    return "migrations" in path.parts


def text_files() -> Iterator[Path]:
    """Every file that is ours and is text: source, tests, documents, data."""
    for directory, inner, files in os.walk(ROOT):
        inner[:] = [name for name in inner if name not in NOT_OURS and not name.endswith(".egg-info")]
        for name in files:
            path = Path(directory) / name
            if path.suffix not in (".pyc", ".gz", ".png", ".db") and not path.is_symlink():
                yield path


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines()


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """(line, dotted name) for every import in a module, wherever it stands."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, f"{node.module or ''}.{alias.name}") for alias in node.names)


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node
