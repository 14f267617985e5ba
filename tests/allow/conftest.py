"""The world of the API's tests, with an allowlist of the test's own that is enforced."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "api"))

import api_world
from allow_cases import SHIPPED

from app.store import migrate
from app.store.db import Store


@dataclass
class Guarded:
    """A world and its allowlist's file."""

    world: api_world.World
    file: Path

    def allow(self, text: str) -> None:
        """Put another text into the file, as an editor does: what is there is never half of it."""
        new = self.file.with_suffix(".new")
        new.write_text(text)
        new.replace(self.file)

    def post(self, definition: Any, role: str = "author", **parameters: Any) -> Any:
        body = {"definition": definition, "parameters": parameters}
        return self.world.post("/workflow-executions", body, role)

    def trail(self, action: str, limit: int = 10) -> list[dict[str, Any]]:
        """Audit entries of an action, the newest first."""
        found: list[dict[str, Any]] = self.world.get(f"/audit?action={action}&limit={limit}", "admin")[
            "items"
        ]
        return found


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    directory = tmp_path_factory.mktemp("guarded")
    url = f"sqlite:///{directory / 'muster.db'}"
    store = Store(url)
    migrate.upgrade(store)
    store.close()
    file = directory / "allowlist.yaml"
    file.write_text(SHIPPED)
    world = api_world.build(url, directory, allowlist=str(file), allowlist_mode="")
    yield Guarded(world, file)
    world.control.store.close()
