"""Templates: what `{{ … }}` and `{% if %}` mean in a workflow.

`check` finds what is wrong before anything runs; `render` and `truth` evaluate with a scope: a mapping of the
names task, vars, parameters, pack, system, item and index to plain JSON data, and of kv to
`{"get": {key: value}, "get_secret": {name: Handle}}`, which the caller has read before: nothing here does. Secret
parameters are Handles too. A Handle becomes a mark where the caller says that `handles` may stand, and is refused
elsewhere; what looks like a mark in data is made harmless.

A string that is exactly one `{{ expression }}` keeps the type of its value. In any other text a value becomes
`plain.text_of` of it. Values are never rendered again, so a value that looks like a template stays text. Line
ends within a text that holds a template become `\\n`, as everywhere in YAML.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import takewhile
from types import TracebackType
from typing import Any, cast

import jinja2
from jinja2 import nodes
from jinja2.runtime import Context

from app import marks
from app.errors import InvalidInput
from app.language import template_syntax
from app.language.arguments import Missing, MissingValue, settled, step_into
from app.language.opaque import Handle
from app.language.plain import ValueRefused, check_plain, check_text
from app.language.sandbox import SANDBOX
from app.language.template_syntax import ROOTS, TemplateProblem

__all__ = [
    "ROOTS",
    "TemplateError",
    "TemplateProblem",
    "check",
    "has_template",
    "references",
    "render",
    "truth",
]

Scope = Mapping[str, Any]
Chain = tuple[str, ...]

_RESULT = "muster_value"
_FILE = "<template>"
# The plain references that most templates are. They mean the same by way of Jinja, a hundred times slower at
# the first use; a property test compares the two.
_REFERENCE = re.compile(
    r"{{[ \t]*((?:task|vars|parameters|pack|system)(?:\.[A-Za-z][A-Za-z0-9_]*){1,38}|item|index)[ \t]*}}"
)


class TemplateError(InvalidInput):
    """A template that cannot be evaluated.

    `expression` is its text, `line` and `column` the place in it (from 1), `pointer` the JSON pointer of the
    text within the rendered value ("" for the value itself).
    """

    code = "template"

    def __init__(self, message: str, expression: str, line: int = 1, column: int = 1, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.expression = expression
        self.line = line
        self.column = column
        self.pointer = ""


@dataclass(frozen=True, slots=True)
class _Program:
    """A template ready to run: `run(scope)` gives its value or raises what Jinja and the filters raise."""

    run: Callable[[Scope], Any]
    chains: tuple[Chain, ...]
    template: jinja2.Template | None = None


def has_template(text: str) -> bool:
    """Whether `text` holds anything to evaluate. `{#` is text: YAML has comments of its own."""
    return "{{" in text or "{%" in text


def check(text: str) -> list[TemplateProblem]:
    """What is wrong with a template, in the order of the text; nothing if it may run. Never raises."""
    if not has_template(text) or _REFERENCE.fullmatch(text):
        return []
    return list(_analysed(text)[0])


def references(text: str) -> frozenset[Chain]:
    """The static chains that a template reads: ("task", "build", "result", "id"), ("vars", "x"), ("item",).

    A chain ends where a position, a computed key or a filter comes. `kv.get('a')` gives ("kv", "get", "a").
    A text that `check` refuses has none.
    """
    if not has_template(text):
        return frozenset()
    if plain := _REFERENCE.fullmatch(text):
        return frozenset([tuple(plain[1].split("."))])
    return frozenset(_analysed(text)[1])


def ends_in_integer(text: str) -> bool:
    """Whether `text`, exactly one `{{ expression }}`, gives an integer whatever the values are: its last step
    is `| int`, `| length` or `| count`, or it is a written integer."""
    if _REFERENCE.fullmatch(text):
        return False
    tree, problems = template_syntax.parse(text)
    whole = _whole(tree) if tree and not problems else None
    if isinstance(whole, nodes.Const):
        return isinstance(whole.value, int) and not isinstance(whole.value, bool)
    return isinstance(whole, nodes.Filter) and whole.name in ("int", "length", "count")


def render(value: Any, scope: Scope, *, handles: bool = False) -> Any:
    """`value` with every template in its texts evaluated, through lists and maps; keys stay as they are.

    `handles`: secrets may stand here, as marks. Raises TemplateError. The result may share lists and maps with
    `scope`: treat both as read-only.
    """
    if isinstance(value, str):
        return _render_text(value, scope, handles) if has_template(value) else value
    if value is None:
        return None
    # A dict at once: asking an abstract class costs more than the rest.
    if type(value) is dict or isinstance(value, Mapping):
        return {key: _render_member(key, item, scope, handles) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_render_member(place, item, scope, handles) for place, item in enumerate(value)]
    return value


def truth(text: str | bool, scope: Scope) -> bool:
    """The answer of a condition (`when`, a decision's `when`, `on_error`).

    Null, 0, and empty lists and maps are false. A text counts only if it is `true` or `false`: whether "no"
    or "" were meant as false is not guessed. Raises TemplateError.
    """
    value = text if isinstance(text, bool) else render(text, scope)
    if not isinstance(value, str):
        return bool(value)
    if value.strip() in ("true", "false"):
        return value.strip() == "true"
    shown = value if len(value) <= 40 else f"{value[:40]}…"
    if has_template(str(text)):
        hint = "compare it: `{{ value == 'yes' }}`"
    else:
        hint = f"a condition is a template: `{{{{ {shown} }}}}`"
    raise TemplateError(
        f"a condition gave the text {shown!r}, which is neither true nor false", str(text), hint=hint
    )


def _render_member(key: str | int, item: Any, scope: Scope, handles: bool) -> Any:
    if isinstance(item, (bool, int, float)) or item is None:
        return item
    try:
        return render(item, scope, handles=handles)
    except TemplateError as error:
        step = str(key).replace("~", "~0").replace("/", "~1")
        error.pointer = f"/{step}{error.pointer}"
        raise


def _render_text(text: str, scope: Scope, handles: bool) -> Any:
    program = _compiled_small(text) if len(text) <= 512 else _compiled_large(text)
    try:
        return _placed(program.run(scope), handles)
    except MissingValue as error:
        raise _undefined(text, program, scope, error.missing) from None
    except ValueRefused as error:
        raise _failed(text, program, error, error.message, error.hint) from None
    except (
        jinja2.TemplateError,
        TypeError,
        ValueError,
        ArithmeticError,
        LookupError,
        RecursionError,
    ) as error:
        # What Python's own operators raise for values that do not go together.
        raise _failed(text, program, error, f"cannot be computed: {error}", "") from None


def _placed(value: Any, handles: bool) -> Any:
    """What a template gave, a handle as its mark. No other mark is left in it: see `_checked` and the sandbox."""
    is_handle = isinstance(value, Handle)
    if not handles and (is_handle or (isinstance(value, str) and marks.OPEN in value)):
        raise ValueRefused("a secret cannot stand here", "the page on security tells where secrets may stand")
    return value.mark if is_handle else value


def _failed(text: str, program: _Program, error: BaseException, message: str, hint: str) -> TemplateError:
    line = _line_of(program, error.__traceback__)
    mark = re.search(r"{[{%]", text.split("\n")[line - 1])
    return TemplateError(message, text, line, mark.start() + 1 if mark else 1, hint)


def _line_of(program: _Program, trace: TracebackType | None) -> int:
    while trace and program.template:
        if trace.tb_frame.f_code.co_filename == _FILE:
            return program.template.get_corresponding_lineno(trace.tb_lineno)
        trace = trace.tb_next
    return 1


def _undefined(text: str, program: _Program, scope: Scope, missing: Missing) -> TemplateError:
    path = _path_to(program.chains, scope, missing)
    place = re.search(r"\b" + r"\s*\.\s*".join(map(re.escape, path.split("."))), text)
    line, column = template_syntax.line_column(text, place.start() if place else max(text.find("{"), 0))
    if missing.hint:
        return TemplateError(
            f"{missing.hint} is undefined", text, line, column, "give a default: `| default('…')`"
        )
    if missing.owner is None:
        owner = path.rpartition(".")[0] or "the value"
        hint = "give a default: `| default('…')`, or test `is defined`"
        return TemplateError(f"`{path}` is undefined: `{owner}` is null", text, line, column, hint)
    known = list(missing.owner) if isinstance(missing.owner, Mapping) else []
    if path in ROOTS:
        known = [name for name in ROOTS if name in scope]
    close = difflib.get_close_matches(missing.name, known, 1)
    if close:
        hint = f"did you mean `{close[0]}`?"
    elif known and len(known) <= 8:
        hint = f"it has {', '.join(known)}"
    else:
        hint = "give a default: `| default('…')`, or test `is defined`"
    return TemplateError(f"`{path}` is undefined", text, line, column, hint)


def _path_to(chains: tuple[Chain, ...], scope: Scope, missing: Missing) -> str:
    """The chain in the template that leads to what is missing, for a message that a person can search for."""
    for chain in chains:
        value: Any = scope
        for place, key in enumerate(chain):
            after = step_into(value, key)
            if isinstance(after, Missing):
                if key == missing.name and (place == 0 or value is missing.owner):
                    return ".".join(chain[: place + 1])
                break
            value = after
    return missing.name


@lru_cache(maxsize=4096)
def _compiled_small(text: str) -> _Program:
    return _compile(text)


@lru_cache(maxsize=64)
def _compiled_large(text: str) -> _Program:
    return _compile(text)


def _compile(text: str) -> _Program:
    if plain := _REFERENCE.fullmatch(text):
        chain = tuple(plain[1].split("."))
        return _Program(_follow(chain), (chain,))
    tree, problems = template_syntax.parse(text)
    if tree is None or problems:
        first = problems[0]
        raise TemplateError(first.message, text, first.line, first.column, first.hint)
    chains = tuple(dict.fromkeys(_chains(tree)))
    whole = _whole(tree)
    if whole is None:
        template = SANDBOX.from_string(tree)
        return _Program(_text_runner(template), chains, template)
    target = nodes.Name(_RESULT, "store", lineno=whole.lineno)
    assigned = nodes.Template([nodes.Assign(target, whole, lineno=whole.lineno)], lineno=1)
    assigned.set_environment(SANDBOX)
    template = SANDBOX.from_string(assigned)
    return _Program(_value_runner(template), chains, template)


def _whole(tree: nodes.Template) -> nodes.Expr | None:
    """The expression, if the template is exactly one."""
    if len(tree.body) != 1 or not isinstance(tree.body[0], nodes.Output):
        return None
    parts = tree.body[0].nodes
    return None if len(parts) != 1 or isinstance(parts[0], nodes.TemplateData) else parts[0]


def _follow(chain: Chain) -> Callable[[Scope], Any]:
    def run(scope: Scope) -> Any:
        value: Any = scope
        for key in chain:
            value = step_into(value, key)
        return _checked(value)

    return run


def _value_runner(template: jinja2.Template) -> Callable[[Scope], Any]:
    def run(scope: Scope) -> Any:
        context = _context(template, scope)
        for _ in template.root_render_func(context):
            pass
        return _checked(context.vars[_RESULT])

    return run


def _context(template: jinja2.Template, scope: Scope) -> Context:
    # Shared: the scope is only looked into, so that a mapping that computes its values will do.
    return template.new_context(cast(dict[str, Any], scope), shared=True)


def _checked(value: Any) -> Any:
    settled(value)
    if isinstance(value, str):
        check_text(len(value))
        return marks.harmless(value) if marks.is_marked(value) else value
    if isinstance(value, (bool, int, Handle)) or value is None:
        return value
    marked: list[str] = []
    check_plain(value, marked=marked)
    return marks.harmless(value) if marked else value


def _text_runner(template: jinja2.Template) -> Callable[[Scope], str]:
    def run(scope: Scope) -> str:
        parts: list[str] = []
        size = 0
        for part in template.root_render_func(_context(template, scope)):
            size += len(part)
            check_text(size)
            parts.append(part)
        return "".join(parts)

    return run


@lru_cache(maxsize=2048)
def _analysed(text: str) -> tuple[tuple[TemplateProblem, ...], tuple[Chain, ...]]:
    """Problems and chains of a text: the loader asks for both, and one parse answers."""
    tree, problems = template_syntax.parse(text)
    if tree is None or problems:
        return tuple(problems), ()
    return (), tuple(dict.fromkeys(_chains(tree)))


def _chains(tree: nodes.Node) -> Iterator[Chain]:
    todo: list[nodes.Node] = [tree]
    while todo:
        node = todo.pop()
        if (
            isinstance(node, nodes.Filter)
            and node.name.startswith("_kv_")
            and isinstance(node.args[0], nodes.Const)
        ):
            yield "kv", node.name.removeprefix("_kv_"), node.args[0].value
            todo.extend([*node.args, *node.kwargs])
            continue
        keys: list[str | None] = []
        inner = node
        while isinstance(inner, (nodes.Getattr, nodes.Getitem)):
            keys.append(_static_key(inner))
            if isinstance(inner, nodes.Getitem):
                todo.append(inner.arg)
            inner = inner.node
        if isinstance(inner, nodes.Name):
            yield (
                inner.name,
                *(key for key in takewhile(lambda key: key is not None, reversed(keys)) if key is not None),
            )
        elif inner is not node:
            todo.append(inner)
        else:
            todo.extend(node.iter_child_nodes())


def _static_key(node: nodes.Getattr | nodes.Getitem) -> str | None:
    if isinstance(node, nodes.Getattr):
        return node.attr
    return node.arg.value if isinstance(node.arg, nodes.Const) and isinstance(node.arg.value, str) else None
