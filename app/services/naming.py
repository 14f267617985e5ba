"""What a node may be called, and which labels it may have."""

from __future__ import annotations

import re
from collections.abc import Mapping

from app.compiler.plan import IO
from app.errors import InvalidInput
from app.language import names

MOST_LABELS = 64
LABEL_VALUE = re.compile(r"[A-Za-z0-9_./:@+-]{0,128}")


def check_node(node: str) -> None:
    """Raises InvalidInput for what cannot be the name of a node."""
    if not re.match(names.NODE, node):
        raise InvalidInput(f"{node[:80]!r} is not a node's name", hint=names.NODE_RULE, code="bad-node-name")
    if node == IO:
        raise InvalidInput(
            f"a node cannot be called {IO!r}",
            hint="calls from the control side go by that name",
            code="bad-node-name",
        )


def check_labels(labels: Mapping[str, str]) -> None:
    """Raises InvalidInput for too many labels, or one of the wrong form."""
    if len(labels) > MOST_LABELS:
        raise InvalidInput(f"a node has {MOST_LABELS} labels at the most", code="bad-label")
    for name, value in labels.items():
        if not re.match(names.LABEL, name):
            raise InvalidInput(
                f"{name[:80]!r} is not a label's name", hint=names.LABEL_RULE, code="bad-label"
            )
        if not isinstance(value, str) or not LABEL_VALUE.fullmatch(value):
            raise InvalidInput(
                f"the value of label {name!r} must be a text of letters, digits and `_./:@+-`",
                code="bad-label",
            )
