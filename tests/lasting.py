"""What the tests of one directory share and no other uses: it ends with the last of them, not with the session.

A fleet that only waits takes a part of the machine all the time.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Any, TypeVar

import pytest

T = TypeVar("T")


class Lasting:
    """Makes each thing when it is first asked for."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._made: dict[str, Any] = {}

    def get(self, name: str, make: Callable[[], AbstractContextManager[T]]) -> T:
        """The thing of this name, which the context manager gives."""
        if name not in self._made:
            self._made[name] = self._stack.enter_context(make())
        found: T = self._made[name]
        return found

    def close_after(self, item: pytest.Item, nextitem: pytest.Item | None) -> None:
        """Ends all of them unless the next test is in the same directory."""
        if nextitem is None or nextitem.path.parent != item.path.parent:
            self._made.clear()
            self._stack.close()
