"""The archive, built once."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.pyz import archive, contents


@pytest.fixture(scope="session")
def pyz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("pyz") / "muster.pyz"
    archive.write(target, archive.build(contents.modules(), contents.rest()))
    return target
