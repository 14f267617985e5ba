"""The limits of a workflow's text that an installation may set; what never changes stands in `names` and `source`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class TextLimits:
    """`tasks` in a workflow, `items` of a list that a loop is written with, `retries` of one task, characters of one
    `template` (never more than `template_syntax.MAX_TEMPLATE`)."""

    tasks: int = 2000
    items: int = 10_000
    retries: int = 100
    template: int = 16_384


DEFAULT: Final = TextLimits()
