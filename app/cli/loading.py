"""What is imported only when it is needed."""

from __future__ import annotations

import importlib
from typing import Any


def load(place: str) -> Any:
    """The attribute that `module:attribute` names, its module imported if it is not yet."""
    module, attribute = place.split(":")
    return getattr(importlib.import_module(module), attribute)
