"""The control side's part of `muster secret rotate`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from app import settings as environment
from app.cli.prepare import database
from app.services import people, rotation
from app.services.control import Control


def rotate() -> dict[str, Any]:
    """What was done, and the file that holds the keys ("" where the environment does)."""
    settings = environment.from_environment()
    with database(settings) as store:
        done = rotation.rotate(Control(settings, store), people.FIRST_ADMIN)
    return {**asdict(done), "file": "" if settings.secret_keys else str(settings.secret_keys_path.absolute())}
