"""A policy in TOML: what a node reads with the standard library alone."""

from __future__ import annotations

import tomllib

from app.allow.policy import Policy
from app.allow.reading import Path, read


def load(text: str) -> tuple[Policy | None, tuple[str, ...]]:
    """The policy in a text, None where there is a problem; and the problems, each with its place in words."""
    try:
        data = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        return None, (f"it is no TOML: {error}",)
    problems: list[str] = []

    def report(path: Path, code: str, message: str, hint: str) -> None:
        problems.append(f"{_named(path)}{message} [{code}]" + (f" ({hint})" if hint else ""))

    policy = read(data, report)
    return (None if problems else policy), tuple(problems)


def _named(path: Path) -> str:
    """`entries 2, command: `; positions count from 1, as entries do in messages."""
    words = [f"{step + 1}" if isinstance(step, int) else f", {step}" for step in path]
    return " ".join(words).removeprefix(", ").replace(" ,", ",") + ": " if words else ""
