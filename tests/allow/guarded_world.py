"""A world of the API whose allowlist a test may rewrite."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import api_world


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
