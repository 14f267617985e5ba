"""What must not stand in the source, found by its syntax tree, each with the reason."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from repository import ROOT, functions, imported, is_migration, lines, modules, named, text_files, tree

CHILD_ENVIRONMENTS = {
    "app/cli/home.py": "where sockets may lie: XDG_RUNTIME_DIR",
    "app/cli/node_start.py": "the caller's environment, cleaned, is that of the node",
    "app/cli/terminal.py": "what the terminal can show: NO_COLOR, TERM",
    "app/cli/up.py": "the caller's environment, cleaned, is that of the children",
    "app/node/endpoint.py": "where sockets may lie: XDG_RUNTIME_DIR",
    "app/node/launch.py": "what a script inherits of the runner's environment",
    "app/node/shells.py": "PATH, to find shells as the scripts would",
    "app/settings.py": "the one reader of settings",
}
"""Modules that look at the environment, and why. No other does."""

IMPURE = {
    "asyncio",
    "datetime",
    "io",
    "logging",
    "os",
    "pathlib",
    "random",
    "secrets",
    "shutil",
    "socket",
    "subprocess",
    "sys",
    "tempfile",
    "threading",
    "time",
    "uuid",
}
"""What allow, language, compiler, engine and rehearse do not import: the clock, chance, files and other processes."""


def calls(path: Path) -> Iterator[tuple[int, str, ast.Call]]:
    """(line, dotted name, node) of every call."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call):
            yield node.lineno, ast.unparse(node.func), node


def test_no_imports_inside_functions() -> None:
    """They hide what a module needs. The command line's loader imports by name, which this does not see."""
    wrong = {
        f"{named(path)}:{inner.lineno}"
        for path in modules()
        for node in functions(path)
        for inner in ast.walk(node)
        if isinstance(inner, ast.Import | ast.ImportFrom)
    }
    assert not wrong


def test_by_name_only_three_loaders_import() -> None:
    wrong = {
        named(path)
        for path in modules()
        for _, name, _ in calls(path)
        if name.endswith(("import_module", "__import__"))
    }
    assert wrong == {"app/cli/loading.py", "app/services/spans.py", "app/store/blobs/__init__.py"}, (
        "a command's module, and extras that may be missing"
    )


def test_a_broad_except_says_which_edge_it_is() -> None:
    """One that raises again only tidies up, and need not say it."""
    wrong = []
    for path in modules():
        text = ["", *lines(path), ""]
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ExceptHandler) and _is_broad(node) and not _raises_again(node):
                near = text[node.lineno - 1 : node.lineno + 2]
                own = near[1].partition("#")[2].strip().removeprefix("noqa: BLE001").strip(" -")
                if not own and not near[0].strip().startswith("#") and not near[2].strip().startswith("#"):
                    wrong.append(f"{named(path)}:{node.lineno}")
    assert not wrong, "say why on the line, above or below it: " + ", ".join(wrong)


def _raises_again(node: ast.ExceptHandler) -> bool:
    last = node.body[-1]
    return isinstance(last, ast.Raise) and last.exc is None


def _is_broad(node: ast.ExceptHandler) -> bool:
    return node.type is None or ast.unparse(node.type) in ("Exception", "BaseException")


REFUSED_CALLS = {
    "eval": "runs data",
    "exec": "runs data",
    "os.system": "runs text by a shell",
    "os.popen": "runs text by a shell",
    "yaml.load": "builds objects; the composer with our resolver is what reads YAML",
    "yaml.unsafe_load": "builds objects",
    "extractall": "writes where an archive says",
    "pickle.loads": "runs data",
    "pickle.load": "runs data",
    "marshal.loads": "runs data",
}


def test_refused_calls() -> None:
    wrong = []
    for path in modules():
        for line, name, node in calls(path):
            if name in REFUSED_CALLS or name.split(".")[-1] in ("extractall", "get_result"):
                wrong.append(f"{named(path)}:{line} {name}")
            if any(keyword.arg == "shell" and _is_true(keyword.value) for keyword in node.keywords):
                wrong.append(f"{named(path)}:{line} shell=True")
    assert not wrong, "\n".join(wrong)


def _is_true(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is True


@pytest.mark.parametrize("name", ["pickle", "marshal", "shelve", "requests", "httpx"])
def test_refused_imports(name: str) -> None:
    wrong = [named(path) for path in modules() for _, full in imported(path) if full.split(".")[0] == name]
    assert not wrong


def test_the_environment_has_one_reader() -> None:
    found = set()
    for path in modules():
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Attribute) and ast.unparse(node) in ("os.environ", "os.getenv"):
                found.add(named(path))
    assert found == CHILD_ENVIRONMENTS.keys()


def test_pure_floors_import_nothing_impure() -> None:
    wrong = [
        f"{named(path)}:{line} {name}"
        for part in ("allow", "language", "compiler", "engine", "rehearse")
        for path in modules(f"app/{part}")
        for line, name in imported(path)
        if name.split(".")[0] in IMPURE
    ]
    assert not wrong, "\n".join(wrong)


def test_pure_floors_open_and_print_nothing() -> None:
    wrong = [
        f"{named(path)}:{line} {name}"
        for part in ("allow", "language", "compiler", "engine", "rehearse")
        for path in modules(f"app/{part}")
        for line, name, _ in calls(path)
        if name in ("open", "print", "input")
    ]
    assert not wrong


def test_queue_and_job_function_names_stand_in_one_place() -> None:
    """transport/queues.py names them; the compiler, which imports no transport, repeats five; a test compares."""
    spelled = re.compile(r"^(control\.(collect|settle|report|heartbeat|tick|keep_output)|node\.order)$")
    found = {
        named(path)
        for path in modules()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and spelled.match(node.value)
    }
    assert found == {"app/transport/queues.py", "app/compiler/canvas.py"}


def test_nothing_waits_for_a_celery_result() -> None:
    wrong = [
        f"{named(path)}:{line}"
        for path in modules()
        for line, name, _ in calls(path)
        if name.split(".")[-1] in ("AsyncResult", "allow_join_result", "GroupResult")
    ]
    assert not wrong


HOSTS = (
    "pypi" + ".org",
    "pythonhosted" + ".org",
    "registry.npmjs" + ".org",
    "docker" + ".io",
    "ghcr" + ".io",
)
"""Addresses of registries: where packages come from is the business of whoever installs."""


def test_no_file_names_a_registry_host() -> None:
    wrong = [
        f"{named(path)}: {host}"
        for path in text_files()
        for host in HOSTS
        if host in path.read_text(encoding="utf-8", errors="replace")
    ]
    assert not wrong, "\n".join(wrong)


def test_nothing_is_left_to_do() -> None:
    marks = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X|HA" + r"CK)\b")
    wrong = [
        f"{named(path)}:{number}"
        for path in modules("app", "workers", "tests", "bench")
        if not is_migration(path)
        for number, line in enumerate(lines(path), 1)
        if marks.search(line)
    ]
    assert not wrong, "\n".join(wrong)


def test_no_path_of_one_machine() -> None:
    """What works in one directory only does not work."""
    wrong = [
        named(path)
        for path in text_files()
        if str(ROOT) in path.read_text(encoding="utf-8", errors="replace")
    ]
    assert not wrong
