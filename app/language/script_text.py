"""Values pasted into the text of a script, where its author has asked for that (`substitution: text`)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from app.language.script_parameters import ScriptParameter, env_text

_PLACEHOLDER: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]{0,63})\}", re.ASCII)


def render_text(body: str, declarations: Sequence[ScriptParameter], values: Mapping[str, Any]) -> str:
    """The body with `${name}` of each declared parameter replaced by its bound value, from left to right.

    One pass: what is put in is not looked at again. Any other placeholder stays as it is.
    """
    texts = {one.name: env_text(one.type, values.get(one.name)) for one in declarations}
    return _PLACEHOLDER.sub(lambda found: texts.get(found[1], found[0]), body)
