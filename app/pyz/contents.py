"""What goes into `muster.pyz`: the modules that its verbs lead to, the packages in Python that those need, and data."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from app.errors import MusterError

ENTRY: Final = "app.cli.bare"
_ROOTS: Final = (ENTRY, "app.node.runner")
"""Modules that nothing else imports: the runner is started by its name."""

VENDORED: Final = {"yaml": "PyYAML", "jinja2": "Jinja2", "markupsafe": "MarkupSafe"}
"""Package -> the distribution that it is of."""

_LEFT_OUT: Final = frozenset({"yaml/cyaml.py"})
"""What only leads to a compiled module."""

_PLACE: Final = re.compile(r"(app(?:\.[a-z_]+)+):\w+")
"""How `app.cli.loading` is told of a module."""

_TOP: Final = Path(__file__).resolve().parents[2]

_MAIN: Final = """import sys

if sys.version_info < (3, 11):
    sys.exit("error: this needs Python 3.11 or newer, and is run by %d.%d" % sys.version_info[:2])

from {entry} import main

sys.exit(main({version!r}))
"""


class NotSelfContained(MusterError):
    """Something that the archive would need is not to be had, or not as Python."""

    code = "not-self-contained"


def modules() -> dict[str, bytes]:
    """Every module by its path in the archive, but the one that is run. Raises NotSelfContained."""
    ours = [_path_of(name) for name in _names()]
    found = {path.relative_to(_TOP).as_posix(): path.read_bytes() for path in ours}
    for package in VENDORED:
        found.update(_package(package))
    return found


def rest() -> dict[str, bytes]:
    """What else there is: the module that is run, the packs that come with Muster, and licences. Raises
    NotSelfContained."""
    main = _MAIN.format(entry=ENTRY, version=metadata.version("muster"))
    licences = {f"licenses/{one}.txt": _licence(one) for one in VENDORED.values()}
    return {"__main__.py": main.encode(), **licences, **_under(_TOP / "config" / "packs", "config/packs")}


def _names() -> set[str]:
    """The modules of ours that the roots lead to, however they import them."""
    found: set[str] = set()
    ahead = [*_ROOTS]
    while ahead:
        name = ahead.pop()
        if name in found:
            continue
        found.add(name)
        if "." in name:
            ahead.append(name.rpartition(".")[0])
        for other in _imported(name):
            first = other.partition(".")[0]
            if first == "app":
                ahead.append(other)
            elif not (first.startswith("_") or first in sys.stdlib_module_names or first in VENDORED):
                # One that begins with `_` is Python's own, of this version or another.
                raise NotSelfContained(
                    f"{name} imports {first}, which is neither Python's own nor packed along"
                )
    return found


def _imported(name: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(_path_of(name).read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            inner = (f"{node.module}.{alias.name}" for alias in node.names)
            yield from (one for one in inner if one.startswith("app.") and _is_module(one))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            place = _PLACE.fullmatch(node.value)
            if place is not None:
                yield place[1]


def _is_module(name: str) -> bool:
    place = _TOP / name.replace(".", "/")
    return place.with_suffix(".py").is_file() or (place / "__init__.py").is_file()


def _path_of(name: str) -> Path:
    place = _TOP / name.replace(".", "/")
    return place / "__init__.py" if place.is_dir() else place.with_suffix(".py")


def _package(name: str) -> dict[str, bytes]:
    """A package as it is installed here, its compiled modules left out: each does without."""
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise NotSelfContained(
            f"{name} is not installed here", hint="install what Muster needs: `make setup`"
        )
    home = Path(spec.submodule_search_locations[0])
    found = {f"{name}/{path.relative_to(home).as_posix()}": path.read_bytes() for path in home.rglob("*.py")}
    return {path: data for path, data in found.items() if path not in _LEFT_OUT}


def _licence(distribution: str) -> bytes:
    """The licence, which has to go where the package goes."""
    for path in metadata.files(distribution) or ():
        if path.name.upper().startswith("LICENSE"):
            return path.read_binary()
    raise NotSelfContained(f"{distribution} is installed without its licence", hint="install it anew")


def _under(folder: Path, name: str) -> dict[str, bytes]:
    return {
        f"{name}/{path.relative_to(folder).as_posix()}": path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
