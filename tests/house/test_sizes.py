"""A module is one idea, a function one screen."""

from __future__ import annotations

from repository import functions, is_migration, lines, modules, named

MODULE_LINES = 400
FUNCTION_LINES = 60
PARAMETERS = 7

LONGER_FUNCTIONS: set[str] = set()
"""`path:function` of what is longer than it should be. Only ever shrinks."""


def test_modules_are_short() -> None:
    long = {
        named(path): count
        for path in modules("app", "workers", "tests", "bench")
        if (count := len(lines(path))) > MODULE_LINES and not is_migration(path)
    }
    assert not long


def test_functions_are_short() -> None:
    long = {
        f"{named(path)}:{node.name}"
        for path in modules("app", "workers", "bench")
        for node in functions(path)
        if (node.end_lineno or 0) - node.lineno + 1 > FUNCTION_LINES and not is_migration(path)
    }
    assert long == LONGER_FUNCTIONS


def test_functions_take_few_positional_parameters() -> None:
    many = {
        f"{named(path)}:{node.name}"
        for path in modules()
        for node in functions(path)
        if len(node.args.args) > PARAMETERS and not node.decorator_list
    }
    assert not many


def test_one_idea_has_a_name() -> None:
    nameless = {"utils", "util", "helpers", "helper", "manager", "managers", "base", "common", "misc", "lib"}
    wrong = [
        named(path)
        for path in modules("app", "workers", "tests", "bench")
        if nameless & {path.stem, path.parent.name}
    ]
    assert not wrong
