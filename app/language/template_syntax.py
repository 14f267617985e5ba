"""Which part of Jinja's grammar a template may use: the tree is checked before anything is compiled.

Compiling folds constants, so that even to compile a hostile template can take gigabytes; parsing does not.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateSyntaxError, nodes
from jinja2.visitor import NodeTransformer

from app.language.filters import FILTERS, MAX_RANGE, arguments_fit
from app.language.plain import MAX_INTEGER, ValueRefused, check_storable
from app.language.predicates import TESTS
from app.language.sandbox import SANDBOX
from app.language.template_calls import call_name, kv_arguments, written_range

MAX_TEMPLATE = 16_384
"""Characters of one template."""
MAX_DEPTH = 40
"""Levels of brackets, and of operators within operators."""
MAX_NODES = 2_000
MAX_STEPS = 200
"""Filters, tests, operators and comparisons of one template: each may go through a megabyte."""
MAX_LITERAL = 8_000

ROOTS = ("task", "vars", "parameters", "pack", "system", "kv", "item", "index")
"""The names that a template starts from."""

LITERAL_BRACES = "to write `{{` itself, put it in a text: `{{ '{{' }}`"


@dataclass(frozen=True, slots=True)
class TemplateProblem:
    """What is wrong with a template; `line` and `column` count from 1 within its text."""

    message: str
    line: int
    column: int
    code: str
    hint: str = ""


_ALLOWED: tuple[type[nodes.Node], ...] = (
    *(nodes.Template, nodes.Output, nodes.TemplateData, nodes.If, nodes.CondExpr, nodes.Name, nodes.Const),
    *(
        nodes.Getattr,
        nodes.Getitem,
        nodes.Slice,
        nodes.List,
        nodes.Tuple,
        nodes.Dict,
        nodes.Pair,
        nodes.Keyword,
    ),
    *(nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not, nodes.Neg, nodes.Pos, nodes.Concat),
    *(nodes.Add, nodes.Sub, nodes.Mul, nodes.Div, nodes.FloorDiv, nodes.Filter, nodes.Test, nodes.Call),
)
_STEPS = (nodes.Compare, nodes.Concat, nodes.BinExpr, nodes.Filter, nodes.Test, nodes.Call)
_LOOP_HINT = "repeat a task with `with_items`, or use filters such as `map`, `selectattr` and `join`"
_SET_HINT = "keep values in `vars` or `publish`"
_REFUSED: dict[str, tuple[str, str]] = {
    "For": ("{% for %}", _LOOP_HINT),
    "Assign": ("{% set %}", _SET_HINT),
    "AssignBlock": ("{% set %}", _SET_HINT),
    "With": ("{% with %}", _SET_HINT),
    "Macro": ("{% macro %}", ""),
    "CallBlock": ("{% call %}", ""),
    "FilterBlock": ("{% filter %}", "apply the filter to a value: `{{ value | upper }}`"),
    "Scope": ("{% autoescape %}", ""),
    "Block": ("{% block %}", ""),
    "Extends": ("{% extends %}", ""),
    "Include": ("{% include %}", ""),
    "Import": ("{% import %}", ""),
    "FromImport": ("{% from … import %}", ""),
    "Pow": ("**", "multiply with `*`"),
    "Mod": ("%", "`is divisibleby(n)` tests for a remainder; `~` joins texts"),
}
_CALLS_HINT = (
    "a template calls kv.get('key'), kv.get_secret('key') and range(n); the rest are filters: `value | upper`"
)
_FOREIGN = {
    "|": "a filter has a name; for `||` write `or`",
    "&": "write `and`",
    "!": "write `not`",
    "?": "write `a if condition else b`",
    "$": "names have no `$` here",
    "=": "compare with `==`",
}
_TOKEN = re.compile(r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|[([{)\]}]|%}""", re.DOTALL)


_OPENING = re.compile(r"{[{%]")
_RAW = re.compile(r"{%[-+]?\s*raw\s*[-+]?%}")
_RAW_END = re.compile(r"{%[-+]?\s*endraw\s*[-+]?%}")


def expression_end(text: str, start: int) -> tuple[int, int]:
    """Where the `{{` or `{%` at `start` ends, as Jinja sees it: brackets and marks in quotes do not count.

    Gives the index after its closing mark, or -1 if it is never closed, and the deepest nesting of brackets.
    """
    depth = deepest = 0
    statement = text[start + 1] == "%"
    position = start + 2
    while found := _TOKEN.search(text, position):
        token, position = found.group(), found.end()
        if token in ("(", "[", "{"):
            depth += 1
            deepest = max(deepest, depth)
        elif token == "%}" and statement and depth == 0:
            return position, deepest
        elif token == "}" and depth == 0 and not statement and text.startswith("}", position):
            return position + 1, deepest
        elif token in (")", "]", "}"):
            depth = max(0, depth - 1)
    return -1, deepest


def parse(text: str) -> tuple[nodes.Template | None, list[TemplateProblem]]:
    """Parse and check `text`. Any problem means that the tree must not be compiled; the tree is None if there
    is none. What is returned without problems has calls, `~` and tuples rewritten to bounded forms."""
    early = list(_before_parsing(text))
    if early:
        return None, early
    try:
        tree = SANDBOX.parse(text)
    except TemplateSyntaxError as error:
        return None, [_syntax_problem(text, error)]
    except RecursionError:
        return None, [place(text, 1, "", f"nested more than {MAX_DEPTH} levels deep", "template-too-large")]
    except ValueError:
        # Python refuses to read a number of thousands of digits.
        return None, [place(text, 1, "", "a number is too large", "template-too-large")]
    problems = list(_Checker(text).run(tree))
    if problems:
        return tree, sorted(problems, key=lambda problem: (problem.line, problem.column))
    return _Rewriter().visit(tree), []


def _before_parsing(text: str) -> Iterator[TemplateProblem]:
    if len(text) > MAX_TEMPLATE:
        message = f"the template has {len(text):,} characters; {MAX_TEMPLATE:,} are allowed"
        yield TemplateProblem(message, 1, 1, "template-too-large", "split it over several values")
        return
    try:
        check_storable(text)
    except ValueRefused as refused:
        yield TemplateProblem(refused.message, 1, 1, "template-syntax")
        return
    position = 0
    while found := _OPENING.search(text, position):
        end, deepest = expression_end(text, found.start())
        line, column = line_column(text, found.start())
        if deepest > MAX_DEPTH:
            message = f"brackets are nested more than {MAX_DEPTH} levels deep"
            yield TemplateProblem(message, line, column, "template-too-large")
            return
        if end < 0:
            message = f"`{found.group()}` is never closed"
            yield TemplateProblem(message, line, column, "template-syntax", LITERAL_BRACES)
            return
        raw_end = _RAW_END.search(text, end) if _RAW.fullmatch(text, found.start(), end) else None
        position = raw_end.end() if raw_end else end


def line_column(text: str, index: int) -> tuple[int, int]:
    """The line and column of `text[index]`, both from 1."""
    return text.count("\n", 0, index) + 1, index - text.rfind("\n", 0, index)


def _syntax_problem(text: str, error: TemplateSyntaxError) -> TemplateProblem:
    message = error.message or "not understood"
    quoted = re.findall(r"'([^']+)'", message)
    hint = ""
    if re.search(r"{{\s*[./]|{{\s*}}", text):
        hint = LITERAL_BRACES
    elif foreign := re.search(r"got '([|=])'|unexpected char '([&!?$])'", message):
        hint = _FOREIGN[foreign[1] or foreign[2]]
    return place(text, error.lineno, quoted[-1] if quoted else "", message, "template-syntax", hint)


def _unknown(text: str, line: int, sort: str, name: str) -> TemplateProblem:
    known = FILTERS if sort == "filter" else TESTS
    close = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean `{close[0]}`?" if close else f"known: {', '.join(sorted(known))}"
    return place(text, line, name, f"there is no {sort} `{name}`", f"template-unknown-{sort}", hint)


def place(
    text: str, line: int | None, needle: str, message: str, code: str, hint: str = ""
) -> TemplateProblem:
    """A problem at `needle` on that line, or at the template's mark: Jinja's tree tells lines only."""
    lines = text.split("\n")
    line = line or 1  # Nodes that stand for a whole statement may have none.
    source = lines[line - 1] if 0 < line <= len(lines) else ""
    mark = re.search(r"{[{%]", source)
    start = mark.start() if mark else 0
    if needle:
        bound = r"(?<!\w){}(?!\w)" if re.fullmatch(r"\w+", needle) else "{}"
        if found := re.compile(bound.format(re.escape(needle))).search(source, start):
            start = found.start()
    return TemplateProblem(message, line, start + 1, code, hint)


class _Checker:
    """Walks a tree without recursion and yields what is not allowed in it."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._checks: dict[type[nodes.Node], Callable[[Any], Iterator[TemplateProblem]]] = {
            nodes.Name: self._name,
            nodes.Getattr: self._getattr,
            nodes.Getitem: self._getitem,
            nodes.Const: self._const,
            nodes.TemplateData: lambda _node: iter(()),
            nodes.Filter: self._filter,
            nodes.Test: self._test,
            nodes.Call: self._call,
            nodes.Dict: self._dict,
        }

    def run(self, tree: nodes.Template) -> Iterator[TemplateProblem]:
        todo: list[tuple[nodes.Node, int]] = [(tree, 0)]
        count = steps = 0
        while todo:
            node, depth = todo.pop()
            count += 1
            steps += isinstance(node, _STEPS)
            if depth > MAX_DEPTH + 3:  # The template, its output and a wrapper or two are levels as well.
                yield self._large(node, f"operators are nested more than {MAX_DEPTH} levels deep")
                return
            if count > MAX_NODES or steps > MAX_STEPS:
                yield self._large(node, "the template has too many parts")
                return
            if not isinstance(node, _ALLOWED):
                yield self._refused(node)
                continue
            if check := self._checks.get(type(node)):
                yield from check(node)
            todo.extend((child, depth + 1) for child in self._children(node))

    @staticmethod
    def _children(node: nodes.Node) -> Iterator[nodes.Node]:
        if isinstance(node, nodes.Call):
            # The callee was judged as a whole: as a name of its own, `kv` or `range` would be refused.
            yield from (*node.args, *node.kwargs)
        else:
            yield from node.iter_child_nodes()

    def _problem(
        self, node: nodes.Node, needle: str, message: str, hint: str = "", code: str = ""
    ) -> TemplateProblem:
        return place(self._text, node.lineno, needle, message, code or "template-not-allowed", hint)

    def _large(self, node: nodes.Node, message: str) -> TemplateProblem:
        return self._problem(node, "", message, "do it in several steps, with `vars`", "template-too-large")

    def _refused(self, node: nodes.Node) -> TemplateProblem:
        word, hint = _REFUSED.get(type(node).__name__, (type(node).__name__, ""))
        needle = word.strip("{%} ").split(" ")[0] or word
        return self._problem(node, needle, f"`{word}` is not allowed in a template", hint)

    def _name(self, node: nodes.Name) -> Iterator[TemplateProblem]:
        if node.name == "kv":
            yield self._problem(node, "kv", "`kv` is read by calling it", "write kv.get('key')")
        elif node.name == "range":
            yield self._problem(node, "range", "`range` is called: range(n)")
        elif node.name not in ROOTS:
            close = difflib.get_close_matches(node.name, (*ROOTS, "range"), 1, 0.5)
            hint = f"did you mean `{close[0]}`?" if close else f"a name starts with one of {', '.join(ROOTS)}"
            message = f"`{node.name}` is not a name here"
            yield self._problem(node, node.name, message, hint, "template-unknown-name")

    def _getattr(self, node: nodes.Getattr) -> Iterator[TemplateProblem]:
        if node.attr.startswith("_"):
            hint = "" if node.attr.startswith("__") else f"a key with that name is read by ['{node.attr}']"
            yield self._problem(
                node, node.attr, f"`.{node.attr}`: names with `_` in front are not allowed", hint
            )

    def _getitem(self, node: nodes.Getitem) -> Iterator[TemplateProblem]:
        if isinstance(node.arg, nodes.Tuple):
            message = "between `[` and `]` stands one key or one position"
            yield self._problem(node, "[", message, "", "template-syntax")
        key = node.arg.value if isinstance(node.arg, nodes.Const) else None
        if isinstance(key, str) and key.startswith("__"):
            yield self._problem(node, key, f"`['{key}']`: names with `__` in front are not allowed")

    def _const(self, node: nodes.Const) -> Iterator[TemplateProblem]:
        value = node.value
        if isinstance(value, str):
            if len(value) > MAX_LITERAL:
                yield self._large(node, f"a literal text has more than {MAX_LITERAL:,} characters")
            try:
                check_storable(value)
            except ValueRefused as refused:
                yield self._problem(node, "", refused.message)
        elif isinstance(value, float) and not math.isfinite(value):
            yield self._large(node, "a number is too large")
        elif isinstance(value, int) and not -MAX_INTEGER <= value <= MAX_INTEGER:
            yield self._large(node, f"a number is larger than {MAX_INTEGER}")

    def _filter(self, node: nodes.Filter) -> Iterator[TemplateProblem]:
        if node.node is None:
            yield self._problem(node, "filter", "`{% filter %}` is not allowed in a template")
        elif node.name not in FILTERS:
            yield _unknown(self._text, node.lineno, "filter", node.name)
        else:
            yield from self._fits(node, "filter")

    def _test(self, node: nodes.Test) -> Iterator[TemplateProblem]:
        if node.name not in TESTS:
            yield _unknown(self._text, node.lineno, "test", node.name)
        else:
            yield from self._fits(node, "test")

    def _fits(self, node: nodes.Filter | nodes.Test, sort: str) -> Iterator[TemplateProblem]:
        named = [str(pair.key) for pair in node.kwargs]
        if node.dyn_args is not None or node.dyn_kwargs is not None:
            yield self._problem(node, node.name, f"`{node.name}` takes no `*` or `**` arguments")
        elif not arguments_fit(sort, node.name, len(node.args), named):
            message = f"the {sort} `{node.name}` does not take these arguments"
            yield self._problem(node, node.name, message, "", "template-arguments")

    def _call(self, node: nodes.Call) -> Iterator[TemplateProblem]:
        name = call_name(node)
        if name is None or node.dyn_args is not None or node.dyn_kwargs is not None:
            word = node.node.attr if isinstance(node.node, nodes.Getattr) else getattr(node.node, "name", "")
            yield self._problem(
                node, str(word), f"calling `{word}` is not allowed in a template", _CALLS_HINT
            )
        elif name == "range":
            if not 1 <= len(node.args) <= 3 or node.kwargs:
                yield self._problem(
                    node, "range", "`range` takes one to three numbers", "", "template-arguments"
                )
            elif (count := written_range(node)) is not None and count > MAX_RANGE:
                message = f"a range of {count} numbers, {MAX_RANGE} are allowed"
                yield self._problem(node, "range", message, "use fewer items", "template-too-large")
        elif not kv_arguments(node, default_allowed=name == "kv.get"):
            hint = "write kv.get('key'), kv.get('key', default=value) or kv.get_secret('key'); no name, no template"
            message = f"`{name}` takes a key that is written out" + ", and a default" * (name == "kv.get")
            yield self._problem(node, "kv", message, hint, "template-arguments")

    def _dict(self, node: nodes.Dict) -> Iterator[TemplateProblem]:
        for pair in node.items:
            if isinstance(pair.key, nodes.Const) and not isinstance(pair.key.value, str):
                yield self._problem(node, "", "the keys of a map must be text", "put the key in quotes")


class _Rewriter(NodeTransformer):
    """Turns what Jinja would run by itself into filters of ours, which are bounded."""

    def visit_CondExpr(self, node: nodes.CondExpr, *args: Any, **kwargs: Any) -> nodes.Node:
        self.generic_visit(node)
        if node.expr2 is None:
            # Jinja gives an undefined value here that passes for an empty text even in a strict environment.
            node.expr2 = nodes.Const(None, lineno=node.lineno, environment=node.environment)
        return node

    def visit_Tuple(self, node: nodes.Tuple, *args: Any, **kwargs: Any) -> nodes.Node:
        self.generic_visit(node)
        return nodes.List(node.items, lineno=node.lineno, environment=node.environment)

    def visit_Concat(self, node: nodes.Concat, *args: Any, **kwargs: Any) -> nodes.Node:
        self.generic_visit(node)
        return _filter_node(node, nodes.List(node.nodes, lineno=node.lineno), "_concat")

    def visit_Call(self, node: nodes.Call, *args: Any, **kwargs: Any) -> nodes.Node:
        self.generic_visit(node)
        name = call_name(node)
        if name == "range":
            return _filter_node(node, nodes.List(node.args, lineno=node.lineno), "_range")
        store = nodes.Name("kv", "load", lineno=node.lineno)
        return _filter_node(node, store, f"_{name}".replace(".", "_"), node.args, node.kwargs)


def _filter_node(
    at: nodes.Node,
    value: nodes.Expr,
    name: str,
    args: list[Any] | None = None,
    kwargs: list[Any] | None = None,
) -> nodes.Filter:
    made = nodes.Filter(value, name, args or [], kwargs or [], None, None, lineno=at.lineno)
    made.set_environment(SANDBOX)
    return made
