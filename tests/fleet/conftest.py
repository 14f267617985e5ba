"""One fleet for all tests that only watch, and a rougher one for those that kill."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext

import pytest
from fleet import Fleet
from fleet_api import Api
from fleet_files import Files
from fleet_ssh import FAR, OTHERS, FarSide
from lasting import Lasting
from sshd import Sshd

LASTING = Lasting()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    LASTING.close_after(item, nextitem)


@pytest.fixture(scope="module")
def fleet() -> Fleet:
    return LASTING.get("fleet", lambda: Fleet(tcp=True))


@pytest.fixture(scope="module")
def api(fleet: Fleet) -> Api:
    """The HTTP API of the fleet that is only watched."""
    return LASTING.get("api", lambda: nullcontext(Api(fleet)))


@pytest.fixture(scope="module")
def fleet_on_postgres(database_url: str) -> Fleet:
    """A fleet whose rows are in PostgreSQL. Skips where there is none."""
    return LASTING.get("fleet_on_postgres", lambda: Fleet(tcp=True, postgres=database_url))


@pytest.fixture(scope="module")
def files() -> Files:
    """A fleet of local, web-1 and web-2 whose jobs have files, at most 1,200 each."""
    return LASTING.get("files", lambda: Files(MUSTER_WORKSPACE_FILES="1200"))


@pytest.fixture(scope="module")
def far(
    fleet: Fleet, api: Api, sshd_program: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FarSide]:
    """The fleet with a gateway, and two machines behind it that have an SSH server only. Nothing of it stays."""
    with Sshd(tmp_path_factory.mktemp("far"), [*FAR.values(), *OTHERS]) as sshd:
        made = FarSide(fleet, api, sshd)
        for name, address in FAR.items():
            made.bring_in(name, address)
        yield made
        made.leave()


@pytest.fixture(scope="module")
def rough() -> Iterator[Fleet]:
    with Fleet() as running:
        yield running
