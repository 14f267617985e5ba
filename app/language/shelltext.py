"""Values in shell text are bound, never pasted.

`bind` turns every `{{ expression }}` of a command or script into a reference to an environment variable. The
expressions are rendered later, made text by `value_text`, and given to the process in its environment. So a
value is data wherever it stands; where a shell would evaluate it, BindError says so and names the way out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, NoReturn

from app.errors import InvalidInput
from app.language import expressions
from app.language.plain import ValueRefused, check_storable, text_of
from app.language.shellrules import Placeholder
from app.language.shellscan import Scanner
from app.language.template_syntax import expression_end, line_column

SHELLS = frozenset({"sh", "bash", "ksh", "zsh"})
"""The shells whose text takes templates: in that of `powershell`, `cmd` and `python` nothing can be bound."""

_LITERAL_HINT = "to write `{{` itself in shell text, write \"{{ '{{' }}\", or '{''{' in single quotes"


class BindError(InvalidInput):
    """A template in shell text that cannot be bound; `line` and `column` (from 1) are places in the text."""

    code = "bind"

    def __init__(self, message: str, line: int, column: int, code: str, hint: str) -> None:
        super().__init__(message, hint=hint, code=code)
        self.line = line
        self.column = column


@dataclass(frozen=True, slots=True)
class BoundText:
    """Shell text without templates. `bindings` are pairs of a variable's name and the expression, as
    `{{ … }}`, whose value it carries. With `whole` the text is one expression, whose value is the command."""

    text: str
    bindings: tuple[tuple[str, str], ...] = ()
    whole: bool = False


def bind(text: str, shell: str) -> BoundText:
    """Bind the templates of a command or script that `shell` (sh, bash, ksh, zsh) is to run.

    Text without a template comes back as it is, whatever the shell. Raises BindError at the first template
    that is wrong or stands where a value cannot be bound. In comments nothing is bound, and `{{` becomes
    `{ {`: what comes back holds no `{{` unless it is `whole`, so that to render it by mistake pastes nothing.
    """
    if not expressions.has_template(text):
        return BoundText(text)
    if shell not in SHELLS:
        place = min(index for index in (text.find("{{"), text.find("{%")) if index >= 0)
        hint = "read the value in the script: from the environment, or the JSON file that $MUSTER_INPUT names"
        line, column = line_column(text, place)
        raise BindError(
            f"templates cannot be bound in the text of `{shell}`", line, column, "bind-shell", hint
        )
    binder = _Binder(text, shell)
    if text.startswith("{{") and expression_end(text, 0)[0] == len(text):
        binder.read(0)
        return BoundText(text, whole=True)
    bound = Scanner(text, shell, binder.read, binder.reference, binder.refuse).run()
    return BoundText(bound, tuple((name, source) for source, name in binder.names.items()))


def value_text(value: Any) -> str:
    """The text of a bound value: as `plain.text_of`, so lists and maps are compact JSON.

    Raises InvalidInput (code "value") for what no environment variable can carry: NUL, text that is no UTF-8,
    or more than a megabyte.
    """
    try:
        text = text_of(value)
        check_storable(text)
    except ValueRefused as refused:
        raise InvalidInput(
            f"a value cannot be given to a script: {refused.message}", hint=refused.hint, code="value"
        )
    return text


class _Binder:
    """Reads the placeholders of one text and gives each distinct expression a variable."""

    def __init__(self, text: str, shell: str) -> None:
        self._text = text
        self._shell = shell
        self._taken = {int(number) for number in re.findall(r"MUSTER_V([0-9]{1,9})", text)}
        self._number = 0
        self._integers: dict[str, bool] = {}
        self.names: dict[str, str] = {}

    def read(self, start: int) -> tuple[Placeholder, int]:
        end, _ = expression_end(self._text, start)
        if end < 0:
            self.refuse(start, "bind-syntax", "`{{` is never closed", _LITERAL_HINT)
        source = self._text[start:end]
        if re.match(r"{{[-+]", source) or re.search(r"[-+]}}\Z", source):
            hint = "leave the sign at the braces out; for a negative value put a blank between"
            self.refuse(start, "bind-syntax", "`{{-` and `-}}` cannot be used in shell text", hint)
        if source in self._integers:
            return Placeholder(source, start, self._integers[source]), end
        problems = expressions.check(source)
        if problems:
            first = problems[0]
            line, column = line_column(self._text, start)
            column = first.column + (column - 1 if first.line == 1 else 0)
            hint = _LITERAL_HINT if first.code == "template-syntax" else first.hint
            raise BindError(first.message, line + first.line - 1, column, first.code, hint)
        self._integers[source] = expressions.ends_in_integer(source)
        return Placeholder(source, start, self._integers[source]), end

    def reference(self, placeholder: Placeholder) -> str:
        source = f"{{{{ {placeholder.source[2:-2].strip()} }}}}"
        if source not in self.names:
            self._number += 1
            while self._number in self._taken:
                self._number += 1
            self.names[source] = f"MUSTER_V{self._number}"
        return f"${{{self.names[source]}}}"

    def refuse(self, index: int, code: str, message: str, hint: str) -> NoReturn:
        line, column = line_column(self._text, index)
        raise BindError(message, line, column, code, hint)
