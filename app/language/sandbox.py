"""The Jinja environment of templates: immutable, strict, without globals, and deaf to Python's attributes.

It is the second wall. The first is `template_syntax`, which lets only a part of Jinja's grammar through.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from app import marks
from app.language.arguments import Missing, as_number, settled, step_into
from app.language.filters import FILTERS, INTERNAL_FILTERS
from app.language.opaque import Handle, refused
from app.language.plain import ValueRefused, check_items, check_number, check_text, kind_of, text_of
from app.language.predicates import TESTS

_ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
}


def _add(left: Any, right: Any) -> Any:
    if isinstance(left, str) and isinstance(right, str):
        check_text(len(left) + len(right))
        return left + right
    if isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)):
        check_items(len(left) + len(right))
        return [*left, *right]
    if isinstance(left, str) or isinstance(right, str):
        raise ValueRefused(
            f"`+` cannot add {kind_of(right)} to {kind_of(left)}", "`~` joins the texts of any two values"
        )
    return check_number(as_number(left) + as_number(right))


class Sandbox(ImmutableSandboxedEnvironment):
    """Refuses at run time what `template_syntax` refuses in the tree, and bounds every operator."""

    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "%", "**"})
    intercepted_unops = frozenset({"+", "-"})

    def getattr(self, obj: Any, attribute: str) -> Any:
        """A key of a map, never an attribute."""
        return step_into(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """A key of a map, or a position of a list or text."""
        return step_into(obj, settled(argument))

    def call(self, *_args: Any, **_kwargs: Any) -> Any:
        """Calls are rewritten to filters before compiling, so that there is nothing left to call."""
        raise ValueRefused("a template calls no functions")

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Bounded arithmetic; `+` also joins two texts or two lists."""
        left, right = settled(left), settled(right)
        if isinstance(left, Handle) or isinstance(right, Handle):
            raise refused()
        if operator == "+":
            return _add(left, right)
        if operator not in _ARITHMETIC:
            raise ValueRefused(f"`{operator}` is not allowed")
        if operator in ("/", "//") and right == 0:
            raise ValueRefused("division by zero")
        return check_number(_ARITHMETIC[operator](as_number(left), as_number(right)))

    def call_unop(self, context: Context, operator: str, arg: Any) -> Any:
        """A sign before a number."""
        number = as_number(settled(arg))
        return -number if operator == "-" else number


def _text_of(value: Any) -> str:
    """The text of what stands between braces. Only a secret's handle gives a mark."""
    if isinstance(value, Handle):
        return value.mark
    text = text_of(settled(value))
    return marks.harmless(text) if marks.is_marked(text) else text


def _build() -> Sandbox:
    sandbox = Sandbox(
        undefined=Missing,
        keep_trailing_newline=True,
        finalize=_text_of,
        cache_size=0,
        # Text keeps `{#`: YAML has comments, and shell and awk write `${#list}`. No text holds NUL.
        comment_start_string="\x00#",
        comment_end_string="#\x00",
    )
    sandbox.globals.clear()
    sandbox.filters.clear()
    sandbox.filters.update(FILTERS)
    sandbox.filters.update(INTERNAL_FILTERS)
    sandbox.tests.clear()
    sandbox.tests.update(TESTS)
    return sandbox


SANDBOX = _build()
