"""Imports go down, never up (design: the house)."""

from __future__ import annotations

import sys
from pathlib import Path

from repository import ROOT, imported, modules, named

PURE = {"allow", "language", "compiler", "engine"}
PLAIN = {"cycles", "errors", "ids", "logs", "marks", "masking", "powershell", "settings"}
BELOW = PURE | PLAIN
SERVER = {"store", "transport", "services", "node"}

MAY_IMPORT = {
    "cycles": set(),
    "errors": set(),
    "ids": set(),
    "marks": set(),
    "masking": set(),
    "powershell": set(),
    "settings": {"errors"},
    "logs": {"errors", "settings"},
    "allow": {"errors"},
    "language": {"allow", "errors", "marks", "powershell"},
    "compiler": {"language", "errors", "marks"},
    "engine": {"compiler", "language", "errors", "marks"},
    "rehearse": {"engine", "compiler", "language", "errors", "marks"},
    "files": {"errors"},
    "store": BELOW | {"files"},
    "transport": PLAIN,
    "ssh": {"files", "node", "transport", *PLAIN},
    "jobs": BELOW | {"transport"},
    "flows": {"errors", "language", "ssh"},
    "services": BELOW | {"files", "store", "transport", "jobs", "flows", "ssh"},
    "node": {"allow", "files", "transport", *PLAIN},
    "gateway": BELOW | {"files", "store", "transport", "services", "node", "ssh"},
    "local": BELOW | {"files", "transport", "node", "jobs"},
    "api": BELOW | {"files", "store", "transport", "services"},
    "pyz": {"errors"},
    "cli": BELOW | {"files", "rehearse", "local", "pyz"},
}
"""Part of `app` -> the parts that it may import beside itself. A part that is not here may not exist."""

SERVER_SIDE_OF_CLI = {
    "prepare": "up, demo, setup",
    "setup": "setup",
    "rotate": "secret rotate",
    "runners": "up, demo, node start",
    "enroll": "node enroll",
    "own_node": "node enroll, node start, up, demo",
    "rabbit_check": "doctor",
}
"""Modules of the command line that are a server's side, not a client's, and the verbs that they serve."""


def part_of(path: Path) -> str:
    """`app/store/db.py` -> `store`; `app/settings.py` -> `settings`."""
    return path.relative_to(ROOT / "app").parts[0].removesuffix(".py")


def app_imports(path: Path) -> list[tuple[int, str]]:
    """(line, part) for every import of another part of `app`."""
    found = []
    for line, name in imported(path):
        first, _, rest = name.partition(".")
        if first == "app" and rest:
            part = rest.split(".")[0]
            # `from app import settings` names a part; `import app` and names in it are `app` itself, which is empty.
            found.append((line, part))
    return found


def test_what_runs_on_other_machines_stands_alone() -> None:
    """`app.ssh.far` is sent as one text: its files have each other and the standard library."""
    wrong = [
        f"{named(path)}:{line}: {name}"
        for path in sorted((ROOT / "app" / "ssh" / "far").glob("*.py"))
        for line, name in imported(path)
        if name.partition(".")[0] not in sys.stdlib_module_names and not name.startswith("app.ssh.far.")
    ]
    assert not wrong, wrong


def test_every_part_has_a_floor() -> None:
    parts = {part_of(path) for path in modules("app")} - {"__init__"}
    assert parts <= MAY_IMPORT.keys()


def test_imports_go_down() -> None:
    wrong = []
    for path in modules("app"):
        part = part_of(path)
        if part == "__init__":
            continue
        allowed = MAY_IMPORT[part] | {part}
        if part == "cli" and path.stem in SERVER_SIDE_OF_CLI:
            allowed |= SERVER
        wrong += [
            f"{named(path)}:{line} imports {other}"
            for line, other in app_imports(path)
            if other not in allowed
        ]
    assert not wrong, "\n".join(wrong)


def test_nothing_imports_the_entry_points() -> None:
    wrong = [
        f"{named(path)}:{line}"
        for path in modules("app")
        for line, name in imported(path)
        if name.split(".")[0] == "workers"
    ]
    assert not wrong, "\n".join(wrong)


def test_the_table_of_server_side_modules_only_shrinks() -> None:
    """A name in the table that imports no server part, or is gone, leaves it."""
    idle = set()
    for name in SERVER_SIDE_OF_CLI:
        path = ROOT / "app" / "cli" / f"{name}.py"
        others = {part for _, part in app_imports(path)} if path.exists() else set()
        if not others & SERVER:
            idle.add(name)
    assert not idle


def test_app_itself_is_empty() -> None:
    """A node imports `app`: anything in it would be loaded there."""
    assert not (ROOT / "app" / "__init__.py").read_text()


def test_no_relative_imports() -> None:
    wrong = [
        f"{named(path)}:{line}"
        for path in modules("app", "workers", "bench")
        for line, name in imported(path)
        if name.startswith(".")
    ]
    assert not wrong
