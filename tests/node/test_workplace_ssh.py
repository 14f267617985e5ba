"""Jobs with files on a machine that has only an SSH server: a real station, a real sshd, real HTTP for blobs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from blob_server import BlobServer
from sshd import Sshd
from station_place import NOWHERE
from waiting import PATIENCE, wait_until
from workspace_site import SOURCE, Site

from app.node.scripts import Events
from app.node.station import Station
from app.settings import Settings
from app.ssh.connection import AsyncsshLink
from app.ssh.link import Listener
from app.ssh.remote_runner import RemoteRunner
from app.ssh.target import Target
from app.ssh.trees import KEPT, PIECE
from app.ssh.workplace import make_far_workplace
from app.transport.celery_app import make_celery

NOTHING = {"changes": "", "artifacts": ""}


class FarSite(Site):
    """A site whose machine is behind an SSH server."""

    def __init__(self, directory: Path, sshd: Sshd) -> None:
        self.sshd = sshd
        super().__init__(directory)

    def new_station(self, **changed: Any) -> Station:
        settings = Settings(node="web-1", node_dir=str(self.directory), redis_url=NOWHERE, **changed)
        app = make_celery("node", broker_url=NOWHERE, name="node-web-1", queues=("node.web-1",))
        target = Target("root", "127.0.0.1", self.sshd.port, self.sshd.private_key, self.sshd.host_key)

        def make(events: Events) -> RemoteRunner:
            self.runner = RemoteRunner(self.directory, "web-1", target, events, installation="INST")
            return self.runner

        filing = make_far_workplace(self.directory, settings, lambda: self.runner.reach)
        station = Station(settings, app, make, filing)
        station.runner.ensure()
        return station

    def begin(self, server: BlobServer, **settings: Any) -> FarSite:
        super().begin(server, **settings)
        self.station.filing = make_far_workplace(
            self.directory, Settings(**self.settings), lambda: self.runner.reach
        )
        return self

    def close(self) -> None:
        self.let_go()

    def there(self, name: str) -> list[str]:
        """What is kept on the machine under `workspaces` or `trees`."""
        place = self.sshd.state / "muster" / "INST" / "web-1" / name
        return sorted(path.name for path in place.glob("*"))


@pytest.fixture
def server() -> Iterator[BlobServer]:
    made = BlobServer()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def one_site(sshd_program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FarSite]:
    directory = tmp_path_factory.mktemp("far")
    with Sshd(directory) as sshd:
        made = FarSite(tmp_path_factory.mktemp("site"), sshd)
        yield made
        made.close()


@pytest.fixture
def site(one_site: FarSite, server: BlobServer) -> FarSite:
    one_site.begin(server)
    return one_site


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The bytes that each session was begun with, so far."""
    found: list[int] = []
    real = AsyncsshLink.open

    def counted(link: AsyncsshLink, command: str, data: bytes, *rest: Any, **named: Any) -> Any:
        found.append(len(data))
        return real(link, command, data, *rest, **named)

    monkeypatch.setattr(AsyncsshLink, "open", counted)
    return found


class Dropping:
    """A connection that drops, and takes with it what is answered to the programs that hold `words`: so many times."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, words: bytes, times: int) -> None:
        self.left = times
        self._words = words
        real = AsyncsshLink.open

        def opened(link: AsyncsshLink, command: str, data: bytes, listener: Listener, **named: Any) -> Any:
            if not self.left or self._words not in data:
                return real(link, command, data, listener, **named)
            self.left -= 1

            def lost(kind: str, told: bytes) -> None:
                if kind == "closed":
                    link.close()
                    listener("closed", b"")

            return real(link, command, data, lost, **named)

        monkeypatch.setattr(AsyncsshLink, "open", opened)


BEGUN, SENT, PLACED = b"mkdir -p workspaces trees", b"tar -xpf -", b"mv part files"
LISTED, FETCHED = b"echo gone", b"&& cat './made'"


@pytest.mark.parametrize(("words", "times"), [(BEGUN, 2), (SENT, 2), (PLACED, 1), (LISTED, 2), (FETCHED, 2)])
def test_a_connection_that_drops_with_files_under_way_costs_nothing(
    site: FarSite, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: bytes, times: int
) -> None:
    dropping = Dropping(monkeypatch, words, times)
    script = f"cat main.c; echo new > made; echo x >>{tmp_path}/effect"
    job = site.with_files(script, snapshot=site.snapshot({**SOURCE, "fresh": os.urandom(100)}))
    outcome = site.run(job)
    assert (outcome.status, outcome.error, dropping.left) == ("succeeded", None, 0)
    assert site.put(outcome) == {"made": b"new\n"}
    assert site.changes(outcome).gone == ()
    assert site.says(job) == ["int main;"]
    assert (tmp_path / "effect").read_text() == "x\n"


def test_a_machine_that_is_away_for_long_has_no_files_made(
    site: FarSite, server: BlobServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.begin(server, ssh_patience=0.5)
    Dropping(monkeypatch, BEGUN, 1_000_000)
    outcome = site.run(site.with_files("echo never"))
    assert (outcome.status, outcome.exit_code) == ("failed", None)
    assert outcome.error is not None
    assert "the connection broke" in outcome.error["message"]


def test_what_is_under_way_for_long_ends_with_a_cancel(
    site: FarSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropping = Dropping(monkeypatch, LISTED, 1_000_000)
    job = site.with_files("true")
    running = site.run_aside(job)
    wait_until(lambda: dropping.left < 999_999, "it is tried again")
    site.station.filing.stop(job.id)
    running.join(PATIENCE)
    outcome = site.outcome(job)
    assert (outcome.status, outcome.exit_code) == ("cancelled", 0)


def test_what_is_under_way_is_left_to_the_next_worker(site: FarSite, monkeypatch: pytest.MonkeyPatch) -> None:
    dropping = Dropping(monkeypatch, LISTED, 1_000_000)
    job = site.with_files("echo new > made")
    running = site.run_aside(job)
    wait_until(lambda: dropping.left < 999_999, "it is tried again")
    site.station.filing.release()
    running.join(PATIENCE)
    dropping.left = 0
    site.station.filing = make_far_workplace(
        site.directory, Settings(**site.settings), lambda: site.runner.reach
    )
    site.station._take_up(site.station.journal.held()[0])
    assert site.put(site.outcome(job)) == {"made": b"new\n"}
    # A thread of the station's has it, and is not at its end yet.
    wait_until(lambda: not site.there("workspaces"), "what is over is removed")


def test_a_script_runs_in_its_files_and_what_it_did_comes_back(site: FarSite) -> None:
    job = site.with_files(
        """
        pwd; echo "$MUSTER_WORKSPACE"; find . -type f | sort; ./run.sh; ls -d void
        echo more >> main.c; rm lib/a.h; chmod 700 run.sh; mkdir -p out/empty "odd name/it's"; echo new > out/made
        echo x > "odd name/it's/a \\$(id)"; ln -s /etc/passwd link
        """,
        snapshot=site.snapshot(SOURCE, ("void",)),
        artifacts=("out/*",),
    )
    outcome = site.run(job)
    assert (outcome.status, outcome.error) == ("succeeded", None)
    where = str(site.sshd.state / "muster" / "INST" / "web-1" / "workspaces" / job.id / "files")
    files = ["./lib/a.h", "./lib/b.h", "./main.c", "./run.sh"]
    assert site.says(job) == [where, where, *files, f"ran in {where}", "void"]
    changes = site.changes(outcome)
    assert site.put(outcome) == {
        "main.c": SOURCE["main.c"] + b"more\n",
        "run.sh": SOURCE["run.sh"],
        "out/made": b"new\n",
        "odd name/it's/a $(id)": b"x\n",
    }
    assert (changes.put["run.sh"].mode, changes.gone, changes.made) == (0o700, ("lib/a.h",), ("out/empty",))
    assert site.artifacts(outcome) == {"out/made": b"new\n"}
    assert (site.left(), site.there("workspaces"), site.there("trees")) == ([], [], ["E"])


@pytest.mark.parametrize(
    ("mode", "ending", "finds", "brings"),
    [
        ("sync", "true", 4, ["made"]),
        ("push", "true", 4, None),
        ("pull", "exit 3", 0, ["made"]),
        ("none", "true", 0, None),
    ],
)
def test_which_way_files_go(
    site: FarSite, mode: str, ending: str, finds: int, brings: list[str] | None
) -> None:
    job = site.with_files(f"find . -type f | wc -l; echo new > made; {ending}", mode=mode)
    outcome = site.run(job)
    assert outcome.status == ("succeeded" if ending == "true" else "failed")
    assert site.says(job)[0].strip() == str(finds)
    if brings is None:
        assert outcome.files == NOTHING
    else:
        assert (list(site.put(outcome)), site.changes(outcome).gone) == (brings, ())


def test_what_the_machine_has_does_not_travel_again(site: FarSite, sent: list[int]) -> None:
    files = {f"d{number % 10}/{number}": os.urandom(3000) for number in range(300)}
    site.run(
        site.with_files("echo stale > d1/stale; ln -s /etc stale; rm d2/2", snapshot=site.snapshot(files))
    )
    assert sum(sent) > 900_000
    sent.clear()
    files["d3/33"] = b"x" * 5000
    job = site.with_files(
        "find . | wc -l; cat d3/33 | wc -c; cat d2/2 | wc -c", "b", snapshot=site.snapshot(files)
    )
    outcome = site.run(job)
    assert (outcome.status, outcome.files) == ("succeeded", NOTHING)
    assert [int(word) for word in site.says(job)] == [311, 5000, 3000]
    assert sum(sent) < 200_000, "two files, and the programs"


def test_what_another_execution_left_is_a_beginning_too(site: FarSite, sent: list[int]) -> None:
    files = {f"d{number % 10}/{number}": os.urandom(3000) for number in range(100)}
    first = site.with_files(
        "echo spoiled > d1/1; mkdir -p shut/in; chmod 0 shut", snapshot=site.snapshot(files)
    )
    assert site.run(first).status == "succeeded"
    sent.clear()
    job = site.with_files("cat d1/1 | wc -c; ls", "b", snapshot=site.snapshot(files))
    outcome = site.run(replace(job, id="OTHER.b.0.1", execution="OTHER"))
    assert (outcome.status, outcome.files) == ("succeeded", NOTHING)
    assert sum(sent) < 150_000, "one file, and the programs"


def test_only_the_last_trees_stay(site: FarSite, tmp_path: Path) -> None:
    script = f"echo x >>{tmp_path}/begun; until [ -e {tmp_path}/enough ]; do sleep 0.02; done"
    jobs = [
        site.with_files(script, f"t{number}", snapshot=site.snapshot({"a": b"a"}))
        for number in range(KEPT + 2)
    ]
    with ThreadPoolExecutor(len(jobs)) as pool:
        over = [pool.submit(site.run, replace(job, execution=f"F{at}")) for at, job in enumerate(jobs)]
        # All at once: one that came after another would begin with what that had left.
        wait_until(
            lambda: (tmp_path / "begun").exists() and lines(tmp_path / "begun") == len(jobs), "all run"
        )
        (tmp_path / "enough").touch()
        assert [one.result().status for one in over] == ["succeeded"] * len(jobs)
    assert len(site.there("trees")) == KEPT


def lines(path: Path) -> int:
    return path.read_text().count("\n")


def test_large_files_both_ways(site: FarSite) -> None:
    large = bytes(range(256)) * (PIECE // 256 + 1000)
    job = site.with_files("tr a b < large > other; rm large", snapshot=site.snapshot({"large": large}))
    outcome = site.run(job)
    assert outcome.status == "succeeded", outcome
    assert site.put(outcome) == {"other": large.replace(b"a", b"b")}
    assert site.changes(outcome).gone == ("large",)


@pytest.mark.parametrize(("cwd", "says"), [("lib", "lib"), ("./lib/..", ""), (".", "")])
def test_a_directory_inside(site: FarSite, cwd: str, says: str) -> None:
    job = site.with_files("pwd -P", job={"cwd": cwd})
    assert site.run(job).status == "succeeded"
    where = site.sshd.state / "muster" / "INST" / "web-1" / "workspaces" / job.id / "files"
    assert site.says(job) == [f"{where}/{says}".rstrip("/")]


@pytest.mark.parametrize(("cwd", "words"), [("..", "leads out"), ("nowhere", "does not exist")])
def test_no_directory_outside(site: FarSite, cwd: str, words: str) -> None:
    outcome = site.run(site.with_files("pwd", job={"cwd": cwd}))
    assert (outcome.status, outcome.exit_code) == ("failed", None)
    assert outcome.error is not None
    assert outcome.error["type"] == "cwd"
    assert words in outcome.error["message"]


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("seq 60 | xargs touch", "more than 50 files"),
        ("head -c 100001 /dev/zero > big", "more than 100000"),
        ("touch 'a\\b'", "may have in its name"),
        ("touch \"$(printf 'a\\nb')\"", "cannot be listed"),
        ("touch \"$(printf 'a\\377b')\"", "is no text"),
        ("touch MAIN.C", "cannot both be"),
        ('cd /; rm -r "$MUSTER_WORKSPACE"', "is gone"),
        ('cd /; rm -r "$MUSTER_WORKSPACE"; ln -s /etc "$MUSTER_WORKSPACE"', "or a link"),
    ],
)
def test_what_cannot_be_taken_back_is_told(
    site: FarSite, server: BlobServer, script: str, words: str
) -> None:
    site.begin(server, workspace_files=50, workspace_bytes=100_000)
    outcome = site.run(site.with_files(script))
    assert (outcome.status, outcome.exit_code, outcome.files, site.left()) == ("failed", 0, None, [])
    assert outcome.error is not None
    assert outcome.error["type"] == "workspace"
    assert words in outcome.error["message"]
