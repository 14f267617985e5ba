"""The world of the API's tests, with an allowlist of the test's own that is enforced."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import migrated
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "api"))

import api_world
from allow_cases import SHIPPED
from guarded_world import Guarded


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    directory = tmp_path_factory.mktemp("guarded")
    url = migrated.sqlite(directory / "muster.db")
    file = directory / "allowlist.yaml"
    file.write_text(SHIPPED)
    world = api_world.build(url, directory, allowlist=str(file), allowlist_mode="")
    yield Guarded(world, file)
    world.control.store.close()
