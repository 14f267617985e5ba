"""kill -9 of the worker at any point of a job with files: the script runs once, and nothing of it is lost."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from blob_server import BlobServer
from waiting import PATIENCE, wait_until
from workspace_site import LARGE_FILE, SOURCE, Site

WORKER = Path(__file__).parent / "killed_worker.py"


@pytest.fixture
def server() -> Iterator[BlobServer]:
    made = BlobServer()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def one_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = Site(tmp_path_factory.mktemp("site"))
    yield made
    made.close()


@pytest.mark.parametrize(
    "at",
    [
        "GET /api/v1/snapshots",
        "/blobs/fetch",
        "GET /api/v1/blobs",
        "the script",
        "/blobs/missing",
        "PUT",
        "/blobs/bundle",
    ],
)
def test_killed(one_site: Site, server: BlobServer, at: str) -> None:
    site = one_site.begin(server)
    snapshot = site.snapshot({**SOURCE, "large": LARGE_FILE})
    go_on = site.directory / "go-on"
    waiting = f"echo ran >> {site.effects}; until test -e {go_on}; do sleep 0.02; done"
    script = f"{waiting}; tr a b < large > other; rm lib/a.h"
    job = site.with_files(script, snapshot=snapshot)
    token, hang = site.order(job, files=server.files), threading.Event()
    site.let_go()
    if at == "the script":
        go_on.unlink(missing_ok=True)
    else:
        go_on.touch()
        met = server.trouble(at, wait=hang)
    worker = subprocess.Popen([sys.executable, str(WORKER), str(site.directory)], stdin=subprocess.PIPE)
    try:
        assert worker.stdin is not None
        worker.stdin.write(token.encode())
        worker.stdin.close()
        if at == "the script":
            wait_until(site.ran, "the script runs")
        else:
            assert met.met.wait(PATIENCE)
    finally:
        worker.kill()
        worker.wait()
        hang.set()
        go_on.touch()
    site.take_over()
    outcome = site.outcome(job)
    assert (outcome.status, outcome.error, site.ran()) == ("succeeded", None, ["ran"])
    assert site.put(outcome) == {"other": LARGE_FILE.replace(b"a", b"b")}
    assert (site.changes(outcome).gone, site.left()) == (("lib/a.h",), [])
