"""Jobs with files on a real station: real runner, real scripts, real HTTP to a small server of blobs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
from blob_server import BlobServer
from waiting import PATIENCE, wait_until
from workspace_site import LARGE_FILE, SOURCE, Site

from app.transport.gate import Canvas

NOTHING = {"changes": "", "artifacts": ""}


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


@pytest.fixture
def site(one_site: Site, server: BlobServer) -> Site:
    return one_site.begin(server)


def test_a_script_runs_in_its_files_and_what_it_did_comes_back(site: Site) -> None:
    job = site.with_files(
        """
        pwd; echo "$MUSTER_WORKSPACE"; find . -type f | sort; ./run.sh
        echo more >> main.c; rm lib/a.h; chmod 700 run.sh; mkdir -p out/empty; echo new > out/made
        """,
        snapshot=site.snapshot(SOURCE, ("void",)),
    )
    outcome = site.run(job)
    where = str(site.directory / "workspaces" / job.id / "files")
    assert (outcome.status, outcome.error) == ("succeeded", None)
    assert site.says(job) == [
        where,
        where,
        "./lib/a.h",
        "./lib/b.h",
        "./main.c",
        "./run.sh",
        f"ran in {where}",
    ]
    changes = site.changes(outcome)
    assert site.put(outcome) == {
        "main.c": SOURCE["main.c"] + b"more\n",
        "run.sh": SOURCE["run.sh"],
        "out/made": b"new\n",
    }
    assert (changes.put["run.sh"].mode, changes.gone, changes.made) == (0o700, ("lib/a.h",), ("out/empty",))
    assert site.left() == [], "the directory is gone with its job"


@pytest.mark.parametrize(
    ("mode", "ending", "finds", "brings"),
    [
        ("sync", "true", 4, ["made"]),
        ("push", "true", 4, None),
        ("pull", "true", 0, ["made"]),
        ("none", "true", 0, None),
        ("sync", "exit 3", 4, ["made"]),
        ("push", "exit 3", 4, ["made"]),
        ("pull", "exit 3", 0, ["made"]),
        ("none", "exit 3", 0, None),
    ],
)
def test_which_way_files_go(site: Site, mode: str, ending: str, finds: int, brings: list[str] | None) -> None:
    """What a failed job has changed is for people to see, though it is not merged."""
    job = site.with_files(f"find . -type f | wc -l; echo new > made; {ending}", mode=mode)
    outcome = site.run(job)
    assert outcome.status == ("succeeded" if ending == "true" else "failed")
    assert site.says(job)[0].strip() == str(finds)
    if brings is None:
        assert outcome.files == NOTHING
    else:
        assert list(site.put(outcome)) == brings
        assert site.changes(outcome).gone == ()


def test_patterns_hold_both_ways_and_artifacts_have_their_own(site: Site) -> None:
    job = site.with_files(
        """
        find . -type f | sort; rm -r lib/b.h; echo 1 > lib/x.o; echo 1 > lib/c.h
        mkdir log; echo 1 > log/a; echo 2 > log/b
        """,
        include=("lib", "log"),
        exclude=("**/*.o", "lib/a.h", "log"),
        artifacts=("log/*", "lib/x.o"),
    )
    outcome = site.run(job)
    assert site.says(job) == ["./lib/b.h"]
    assert site.put(outcome) == {"lib/c.h": b"1\n"}
    assert site.changes(outcome).gone == ("lib/b.h",)
    assert site.artifacts(outcome) == {"log/a": b"1\n", "log/b": b"2\n", "lib/x.o": b"1\n"}


def test_nothing_changed_is_nothing_said(site: Site, server: BlobServer) -> None:
    first = site.run(site.with_files("true"))
    asked = len(server.asked)
    second = site.run(site.with_files("cat main.c", "b", artifacts=("*.log",)))
    assert (first.files, second.files) == (NOTHING, NOTHING)
    assert asked == 2, "the snapshot and one bundle"
    assert len(server.asked) == asked, "what was here once does not travel again"


def test_what_a_script_made_is_here_for_the_next(site: Site, server: BlobServer) -> None:
    """With its first name gone, and though another file of the same content had it already."""
    first = site.run(site.with_files("echo made > made; echo made > again; chmod 400 made"))
    made = {"made": b"made\n", "again": b"made\n"}
    assert site.put(first) == made
    asked = len(server.asked)
    second = site.with_files("cat made again; echo more >> again", "b", snapshot=site.snapshot(made))
    assert site.put(site.run(second)) == {"again": b"made\nmore\n"}
    assert site.says(second) == ["made", "made"]
    # Its snapshot, and what the second one changed: no file came.
    assert [words for words in server.asked[asked:] if "fetch" in str(words)] == []


def test_one_file_of_many_travels_alone(site: Site, server: BlobServer) -> None:
    files = {f"d{number % 10}/{number}": b"%d" % number * 1000 for number in range(300)}
    site.run(site.with_files("true", snapshot=site.snapshot(files)))
    sent, received = server.sent, server.received
    files["d3/33"] = b"x" * 50_000
    outcome = site.run(site.with_files("echo > d4/4", "b", snapshot=site.snapshot(files)))
    assert server.sent - sent < 300 * 120 + 1000, "a manifest and one file that compresses well"
    assert list(site.put(outcome)) == ["d4/4"]
    assert server.received - received < 1000


@pytest.mark.parametrize(
    ("cwd", "says"),
    [("lib", "lib"), ("./lib/..", ""), ("/", "/"), (".", "")],
)
def test_a_directory_inside(site: Site, cwd: str, says: str) -> None:
    job = site.with_files("pwd", job={"cwd": cwd})
    assert site.run(job).status == "succeeded"
    where = str(site.directory / "workspaces" / job.id / "files")
    assert site.says(job) == [says if says == "/" else f"{where}/{says}".rstrip("/")]


@pytest.mark.parametrize(
    ("cwd", "words"), [("..", "leads out"), ("lib/../../x", "leads out"), ("nowhere", "does not exist")]
)
def test_no_directory_outside(site: Site, cwd: str, words: str) -> None:
    outcome = site.run(site.with_files("pwd", job={"cwd": cwd}))
    assert (outcome.status, outcome.exit_code) == ("failed", None)
    assert outcome.error is not None
    assert outcome.error["type"] == "cwd"
    assert words in outcome.error["message"]


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("seq 60 | xargs touch", "more than 50 files"),
        ("head -c 100001 /dev/zero > big", "more than 100000 bytes"),
        ("mkdir -p " + "d/" * 33, "more than 32 names deep"),
        ("touch 'a\\b'", "may have in its name"),
        ("touch MAIN.C", "cannot both be"),
        ('cd /; rm -r "$MUSTER_WORKSPACE"', "is gone"),
        ('cd /; rm -r "$MUSTER_WORKSPACE"; ln -s /etc "$MUSTER_WORKSPACE"', "is a link"),
    ],
)
def test_what_cannot_be_taken_back_is_told(site: Site, server: BlobServer, script: str, words: str) -> None:
    site.begin(server, workspace_files=50, workspace_bytes=100_000)
    outcome = site.run(site.with_files(script))
    assert (outcome.status, outcome.exit_code, outcome.files, site.left()) == ("failed", 0, None, [])
    assert outcome.error is not None
    assert outcome.error["type"] == "workspace"
    assert words in outcome.error["message"]


def test_a_script_that_failed_has_failed_by_itself(site: Site, server: BlobServer) -> None:
    site.begin(server, workspace_files=50)
    outcome = site.run(site.with_files("seq 60 | xargs touch; exit 3"))
    assert (outcome.status, outcome.exit_code, outcome.files) == ("failed", 3, None)
    assert outcome.error is not None
    assert outcome.error["type"] == "exit"
    assert "more than 50 files" in outcome.error["workspace"]


def test_what_is_no_file_stays_behind(site: Site) -> None:
    outcome = site.run(site.with_files("ln -s /etc/passwd link; mkfifo pipe; ln -s /etc dir; echo a > file"))
    assert site.put(outcome) == {"file": b"a\n"}


@pytest.mark.parametrize(
    ("lack", "words"),
    [
        (lambda server: server.snapshots.clear(), "404: no such snapshot"),
        (lambda server: server.blobs.clear(), "404: no blob"),
        (lambda server: server.trouble("", status=401, times=99), "401"),
        (lambda server: server.trouble("", status=503, times=99), "could not be used"),
        (
            lambda server: server.snapshots.update(dict.fromkeys(server.snapshots, b"{}")),
            "is not what its name says",
        ),
    ],
    ids=["no snapshot", "no blob", "no pass", "no server", "another snapshot"],
)
def test_without_its_files_no_script_starts(
    site: Site, server: BlobServer, lack: Callable[[BlobServer], object], words: str
) -> None:
    site.begin(server, transfer_patience=0.3)
    job = site.with_files(f"echo ran >> {site.effects}")
    lack(server)
    outcome = site.run(job)
    assert (outcome.status, outcome.exit_code, site.ran(), site.left()) == ("failed", None, [], [])
    assert outcome.error is not None
    assert outcome.error["type"] == "workspace"
    assert words in outcome.error["message"]


def test_a_cache_that_somebody_spoiled_is_mended(site: Site, server: BlobServer) -> None:
    def spoil() -> None:
        for path in (site.directory / "blobs").rglob("*"):
            if path.is_file():
                path.write_bytes(b"spoiled")

    assert site.run(site.with_files("true")).status == "succeeded"
    spoil()
    job = site.with_files("cat main.c lib/a.h; echo new > new")
    assert site.put(site.run(job)) == {"new": b"new\n"}
    assert site.says(job) == ["int main;"]
    spoil()
    server.blobs = {digest: data for digest, data in server.blobs.items() if data != b"new\n"}
    assert site.put(site.run(site.with_files("echo new > new", mode="pull"))) == {"new": b"new\n"}


@pytest.mark.parametrize("at", ["GET /api/v1/snapshots", "/blobs/fetch"])
def test_a_cancel_ends_what_comes(site: Site, server: BlobServer, at: str) -> None:
    job, hang = site.with_files(f"echo ran >> {site.effects}"), threading.Event()
    met = server.trouble(at, wait=hang)
    worker = site.run_aside(job)
    assert met.met.wait(PATIENCE)
    site.cancel(job)
    worker.join(PATIENCE)
    hang.set()
    assert (site.outcome(job).status, site.ran(), site.left()) == ("cancelled", [], [])


def test_a_cancel_that_comes_first_spares_the_transfer(site: Site, server: BlobServer) -> None:
    job = site.with_files(f"echo ran >> {site.effects}")
    site.cancel(job)
    assert (site.run(job).status, site.ran(), server.asked, site.left()) == ("cancelled", [], [], [])


def test_a_cancel_ends_what_goes(site: Site, server: BlobServer) -> None:
    job, hang = site.with_files("echo a > new"), threading.Event()
    met = server.trouble("/blobs/missing", wait=hang)
    worker = site.run_aside(job)
    assert met.met.wait(PATIENCE)
    site.cancel(job)
    worker.join(PATIENCE)
    hang.set()
    outcome = site.outcome(job)
    assert (outcome.status, outcome.exit_code, outcome.files) == ("cancelled", 0, None)
    assert outcome.error is not None
    assert "taken back" in outcome.error["message"]


@pytest.mark.parametrize(
    "at", ["GET /api/v1/snapshots", "/blobs/fetch", "GET /api/v1/blobs", "/blobs/missing", "PUT"]
)
def test_the_next_worker_goes_on(site: Site, server: BlobServer, at: str) -> None:
    """A worker that leaves in a transfer leaves the job to the next one, which runs its script once."""
    snapshot = site.snapshot({**SOURCE, "large": LARGE_FILE})
    job = site.with_files(f"echo ran >> {site.effects}; tr a b < large > other; rm large", snapshot=snapshot)
    hang = threading.Event()
    met = server.trouble(at, wait=hang)
    worker = site.run_aside(job)
    assert met.met.wait(PATIENCE)
    site.let_go()
    worker.join(PATIENCE)
    hang.set()
    assert not worker.is_alive()
    site.take_over()
    outcome = site.outcome(job)
    assert (outcome.status, site.ran(), site.left()) == ("succeeded", ["ran"], [])
    assert site.put(outcome) == {"other": LARGE_FILE.replace(b"a", b"b")}
    assert site.changes(outcome).gone == ("large",)


def test_what_nobody_knows_is_removed(site: Site) -> None:
    for name in ("E.gone.0.1", "E.kept.0.1"):
        (site.directory / "workspaces" / name / "files").mkdir(parents=True)
    site.station.filing.sweep({"E.kept.0.1"})
    assert site.left() == ["E.kept.0.1"]


def test_an_order_that_says_nothing_of_files_is_told(site: Site) -> None:
    job = site.with_files(f"echo ran >> {site.effects}")
    site.station.run(site.order(job), Canvas())
    error = site.outcome(job).error
    assert error is not None
    assert "says where the API is" in error["message"]
    assert site.ran() == []


def test_a_job_without_files_has_none(site: Site, server: BlobServer) -> None:
    job = site.job("a", 'pwd; ls -A; echo "${MUSTER_WORKSPACE-none}"')
    outcome = site.run(job)
    assert site.says(job)[1:] == ["none"]
    assert (outcome.files, server.asked) == (None, [])


def test_two_at_once_share_what_has_come(site: Site, server: BlobServer) -> None:
    jobs = [site.with_files("cat main.c > seen; sleep 0", f"j{number}") for number in range(6)]
    workers = [site.run_aside(job) for job in jobs]
    for worker in workers:
        worker.join(PATIENCE)
    for job in jobs:
        wait_until(lambda job=job: site.station.journal.find("INST", job.id), f"{job.id} is over")
        assert site.put(site.outcome(job)) == {"seen": SOURCE["main.c"]}
