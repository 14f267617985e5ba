"""Who is in the tree while it is read or written: nothing outside is ever read, written or removed."""

from __future__ import annotations

import hashlib
import io
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from app.files.applying import Applied, apply
from app.files.changes import Changes, difference
from app.files.limits import Limits
from app.files.manifest import EMPTY, Entry, Manifest
from app.files.names import BadTree, Globs
from app.files.places import remove
from app.files.tree import build, scan

CONTENT = b"ours"
DIGEST = hashlib.sha256(CONTENT).hexdigest()
ENTRY = Entry(0o755, len(CONTENT), DIGEST)
DEEP = "a/b/c/d/file"
LEVELS = ["a", "a/b", "a/b/c", "a/b/c/d"]


def open_blob(digest: str) -> io.BytesIO:
    assert digest == DIGEST
    return io.BytesIO(CONTENT)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """Somebody's directory, with the names that the tree has, which stays as it is."""
    made = tmp_path / "outside"
    for level in ["", *LEVELS]:
        (made / level).mkdir()
        for name in ("file", "precious"):
            (made / level / name).write_text("theirs")
    return made


def told(directory: Path) -> dict[str, str]:
    return {
        path.relative_to(directory).as_posix(): path.read_text()
        for path in directory.rglob("*")
        if path.is_file()
    }


@pytest.fixture(autouse=True)
def _outside_stays(outside: Path) -> object:
    before = told(outside)
    yield
    assert told(outside) == before


def put_link(place: Path, to: Path) -> None:
    place.rename(place.with_name(place.name + "-away"))
    place.symlink_to(to)


class Swapping(Globs):
    """Patterns that take everything, and act as a path is asked for: after it was listed, before it is opened."""

    def __init__(self, at: str, act: Callable[[], None]) -> None:
        super().__init__()
        self._at = at
        self._act = act

    def takes(self, path: str) -> bool:
        if path == self._at:
            self._act()
        return True

    def may_enter(self, directory: str) -> bool:
        return self.takes(directory)


# scan


@pytest.mark.parametrize("level", LEVELS)
def test_a_directory_swapped_for_a_link_is_not_scanned(tmp_path: Path, outside: Path, level: str) -> None:
    place = tmp_path / "tree"
    build(place, Manifest({DEEP: ENTRY}), open_blob)
    with pytest.raises(BadTree, match="is a link"):
        scan(place, Swapping(level, lambda: put_link(place / level, outside)))


@pytest.mark.parametrize("kind", ["link", "pipe", "directory", "gone"])
def test_a_file_swapped_for_something_else_is_not_scanned(tmp_path: Path, outside: Path, kind: str) -> None:
    place = tmp_path / "tree"
    build(place, Manifest({"file": ENTRY}), open_blob)

    def swap() -> None:
        (place / "file").unlink()
        if kind == "link":
            (place / "file").symlink_to(outside / "precious")
        elif kind == "pipe":
            os.mkfifo(place / "file")
        elif kind == "directory":
            (place / "file").mkdir()

    with pytest.raises((BadTree, FileNotFoundError)):
        scan(place, Swapping("file", swap))


def test_a_tree_above_the_scan_may_move(tmp_path: Path, outside: Path) -> None:
    """What was opened is read on, wherever it is now; the link in its old place is nobody's."""
    place = tmp_path / "tree"
    build(place, Manifest({"a/b/file": ENTRY}), open_blob)
    found = scan(place, Swapping("a/b/file", lambda: put_link(place / "a", outside)))
    assert found == Manifest({"a/b/file": ENTRY})


def test_only_files_and_directories_are_told(tmp_path: Path, outside: Path) -> None:
    place = tmp_path / "tree"
    build(place, Manifest({"file": ENTRY}, ("empty",)), open_blob)
    (place / "to-file").symlink_to(outside / "precious")
    (place / "to-directory").symlink_to(outside)
    (place / "to-itself").symlink_to("to-itself")
    os.mkfifo(place / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(place / "socket"))
    left_out: list[str] = []
    assert scan(place, left_out=left_out) == Manifest({"file": ENTRY}, ("empty",))
    assert sorted(left_out) == ["pipe", "socket", "to-directory", "to-file", "to-itself"]
    with pytest.raises(BadTree, match="only files and directories travel"):
        scan(place, strict=True)
    assert scan(place, Globs((), ["to-*", "pipe", "socket"]), strict=True).files == {"file": ENTRY}


def test_a_top_that_is_a_link_is_not_scanned(tmp_path: Path, outside: Path) -> None:
    (tmp_path / "tree").symlink_to(outside)
    with pytest.raises(BadTree, match="is a link"):
        scan(tmp_path / "tree")


@pytest.mark.parametrize(
    "name",
    [b"\xff", b"a\nb", b"\x1b[2J", b"a\\b", "cafe\u0301".encode(), "a\u202eb".encode(), b"a\x7f"],
)
def test_a_name_that_cannot_travel_is_told(tmp_path: Path, name: bytes) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / os.fsdecode(name)).write_bytes(b"")
    with pytest.raises(BadTree) as refused:
        scan(tmp_path / "tree")
    assert refused.value.message.isprintable()
    assert "exclude" in refused.value.hint


def test_modes_are_permission_bits(tmp_path: Path) -> None:
    place = tmp_path / "tree"
    build(place, Manifest({"file": ENTRY}), open_blob)
    os.chmod(place / "file", 0o6755)
    assert scan(place).files["file"].mode == 0o755


@pytest.mark.parametrize(
    ("limits", "why"),
    [
        (Limits(files=2), "more than 2 files"),
        (Limits(bytes=5), "more than 5 bytes"),
        (Limits(depth=1), "more than 1 names deep"),
        (Limits(path_bytes=3), "more than 3 bytes"),
        (Limits(name_bytes=0), "more than 0 bytes"),
    ],
    ids=str,
)
def test_too_much_is_told(tmp_path: Path, limits: Limits, why: str) -> None:
    place = tmp_path / "tree"
    build(place, Manifest({"a/one": ENTRY, "a/two": ENTRY}, ("b",)), open_blob)
    with pytest.raises(BadTree, match=why):
        scan(place, limits=limits)


def test_a_file_that_grows_as_it_is_read_comes_to_an_end(tmp_path: Path) -> None:
    """And one that claims to be enormous is not read at all."""
    place = tmp_path / "tree"
    place.mkdir()
    with open(place / "sparse", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(BadTree, match="more than 536870912 bytes"):
        scan(place)
    (place / "sparse").unlink()
    growing, stop = place / "growing", threading.Event()
    growing.write_bytes(bytes(1 << 20))

    def grow() -> None:
        with open(growing, "ab", buffering=0) as file:
            while not stop.is_set() and file.tell() < 100 << 20:
                file.write(bytes(1 << 20))

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        with pytest.raises(BadTree, match="more than 8388608 bytes"):
            scan_for_ever(place, Limits(bytes=8 << 20))
    finally:
        stop.set()
        writer.join()


def scan_for_ever(place: Path, limits: Limits) -> None:
    while True:
        scan(place, limits=limits)


# build


@pytest.mark.parametrize("level", LEVELS)
def test_a_link_put_into_what_is_being_built_is_not_followed(
    tmp_path: Path, outside: Path, level: str
) -> None:
    place = tmp_path / "tree"
    aside = tmp_path / "tree.part"
    files = {f"{level}/1": ENTRY, f"{level}/2": ENTRY, "z": ENTRY, f"{level}0/file": ENTRY}
    asked = []

    def swapping(digest: str) -> io.BytesIO:
        asked.append(digest)
        if len(asked) == 1:
            put_link(aside / level, outside)
            (aside / f"{level}0").symlink_to(outside)
        return open_blob(digest)

    with pytest.raises(BadTree, match="is a link"):
        build(place, Manifest(files), swapping)
    assert not place.exists()
    assert not aside.exists()


def test_a_link_in_the_place_of_a_file_is_not_written_through(tmp_path: Path, outside: Path) -> None:
    def swapping(digest: str) -> io.BytesIO:
        (tmp_path / "tree.part" / "file").symlink_to(outside / "precious")
        return open_blob(digest)

    with pytest.raises(FileExistsError):
        build(tmp_path / "tree", Manifest({"file": ENTRY}), swapping)
    assert not (tmp_path / "tree").exists()


@pytest.mark.parametrize("content", [b"", b"our", b"ours!", b"them", bytes(3 << 20)], ids=len)
def test_another_content_is_not_built(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(BadTree) as refused:
        build(tmp_path / "tree", Manifest({"a": ENTRY}), lambda digest: io.BytesIO(content))
    assert refused.value.detail["digest"] == DIGEST
    assert list(tmp_path.glob("tree*")) == []


def test_what_an_earlier_attempt_left_is_removed_and_what_is_there_stays(
    tmp_path: Path, outside: Path
) -> None:
    place = tmp_path / "tree"
    (tmp_path / "tree.part").mkdir()
    (tmp_path / "tree.part" / "half").symlink_to(outside)
    build(place, Manifest({"file": ENTRY}), open_blob)
    assert told(place) == {"file": "ours"}
    with pytest.raises(OSError, match="not empty"):
        build(place, EMPTY, open_blob)
    assert told(place) == {"file": "ours"}
    (tmp_path / "other.part").symlink_to(outside)
    build(tmp_path / "other", EMPTY, open_blob)
    assert told(tmp_path / "other") == {}


# apply


@pytest.mark.parametrize("level", LEVELS)
def test_changes_do_not_go_through_a_link(tmp_path: Path, outside: Path, level: str) -> None:
    place = tmp_path / "mine"
    for directory in [place, *[place / one for one in LEVELS]]:
        directory.mkdir(exist_ok=True)
    (place / DEEP).write_text("mine")
    before = scan(place)
    put_link(place / level, outside / level)
    for changes in (
        Changes({DEEP: ENTRY}),
        Changes({}, gone=(DEEP,)),
        Changes({}, made=(f"{level}/new",)),
    ):
        path = (*changes.put, *changes.gone, *changes.made)
        assert apply(place, before, changes, changes.put, open_blob) == Applied(conflicts=path)
    unmade = Changes({}, unmade=(f"{level}/b",))
    assert apply(place, before, unmade, {}, open_blob) == Applied()


@pytest.mark.parametrize("level", LEVELS)
def test_a_link_put_in_meanwhile_is_not_followed(tmp_path: Path, outside: Path, level: str) -> None:
    place = tmp_path / "mine"
    build(place, Manifest({DEEP: ENTRY, "other": ENTRY}), open_blob)

    def swapping(digest: str) -> io.BytesIO:
        if not (place / level).is_symlink():
            put_link(place / level, outside / level)
        return open_blob(digest)

    changes = Changes({"new": ENTRY}, gone=(DEEP,))
    assert apply(place, scan(place), changes, changes.put, swapping) == Applied(put=1, conflicts=(DEEP,))
    assert sorted(path.name for path in place.iterdir() if ".part" in path.name) == []


def test_a_link_in_the_place_of_a_file_stays(tmp_path: Path, outside: Path) -> None:
    place = tmp_path / "mine"
    place.mkdir()
    (place / "file").symlink_to(outside / "precious")
    for changes in (Changes({"file": ENTRY}), Changes({}, gone=("file",))):
        found = apply(place, Manifest({"file": ENTRY}), changes, changes.put, open_blob)
        assert found == Applied(conflicts=("file",))
    assert (place / "file").is_symlink()


def test_a_blob_that_is_wrong_or_missing_leaves_all_as_it_was(tmp_path: Path) -> None:
    place = tmp_path / "mine"
    before = Manifest({"a": ENTRY, "b": ENTRY})
    build(place, before, open_blob)
    other = Entry(0o644, 5, "0" * 64)
    changes = Changes({"a": other, "c": ENTRY}, gone=("b",))

    def missing(digest: str) -> io.BytesIO:
        raise FileNotFoundError(digest)

    for opened in (missing, lambda digest: io.BytesIO(CONTENT)):
        with pytest.raises((BadTree, FileNotFoundError)):
            apply(place, before, changes, changes.put, opened)
        assert scan(place) == before


def test_what_is_not_named_stays(tmp_path: Path) -> None:
    place = tmp_path / "mine"
    build(place, Manifest({"src/a": ENTRY, "old/x": ENTRY, "own/notes": ENTRY}), open_blob)
    (place / "own" / "private").write_text("mine")
    (place / "src").chmod(0o700)
    before = Manifest({"src/a": ENTRY, "old/x": ENTRY, "own/notes": ENTRY})
    after = Manifest({"src/b": ENTRY, "old": ENTRY}, ("new/empty",))
    changes = difference(before, after)
    assert apply(place, before, changes, changes.put, open_blob) == Applied(put=2, gone=3)
    assert told(place) == {"src/b": "ours", "old": "ours", "own/private": "mine"}
    assert (place / "new" / "empty").is_dir()
    assert (place / "src").stat().st_mode & 0o777 == 0o700
    assert (place / "src" / "b").stat().st_mode & 0o777 == 0o755


# remove


def test_whatever_a_script_leaves_is_removed(tmp_path: Path, outside: Path) -> None:
    place = tmp_path / "left"
    build(place, Manifest({DEEP: ENTRY, "a/b/other": ENTRY}, ("e/f",)), open_blob)
    (place / "link").symlink_to(outside)
    (place / "a" / "link").symlink_to(outside / "a")
    os.mkfifo(place / "a" / "pipe")
    here = os.open(place, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("deep", dir_fd=here)
        inner = os.open("deep", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    for level in reversed(LEVELS):
        (place / level).chmod(0)
    remove(place)
    assert not place.exists()
    remove(place)
    (tmp_path / "to").symlink_to(outside)
    remove(tmp_path / "to")
    assert not (tmp_path / "to").is_symlink()
