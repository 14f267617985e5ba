"""What comes back to a directory in which somebody goes on working: nothing of theirs is lost, whatever shape it has.

The server's part is in test_api_transfer: here it is a tree, and what happens while that is fetched.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from file_cabinet import sha256

from app.cli import bring_back, transfer
from app.cli.client import Client
from app.errors import NotAllowed
from app.files.manifest import Manifest
from app.files.names import BadTree
from app.files.tree import scan

CLIENT = Client("http://nobody.invalid", "")
Tree = Mapping[str, str | None]
"""Files with what they hold; None makes a directory that holds nothing."""


def write(directory: Path, tree: Tree) -> Path:
    directory.mkdir(exist_ok=True)
    for path, content in tree.items():
        place = directory / path
        (place if content is None else place.parent).mkdir(parents=True, exist_ok=True)
        if content is not None:
            place.write_text(content)
    return directory


def told(directory: Path) -> dict[str, str | None]:
    """What `write` makes, hidden files and all; of directories those that hold nothing."""
    return {
        place.relative_to(directory).as_posix(): None if place.is_dir() else place.read_text()
        for place in directory.rglob("*")
        if not (place.is_dir() and any(place.iterdir()))
    }


class End:
    """What an execution came to, and what somebody does here while it is downloaded."""

    def __init__(self, made: Path) -> None:
        self.meanwhile: Callable[[], object] = lambda: None
        self.now = Manifest({})
        self._made = made
        self.blobs: dict[str, bytes] = {}

    def has(self, tree: Tree) -> None:
        self.now = scan(write(self._made, tree))
        self.blobs = {sha256(text.encode()): text.encode() for text in tree.values() if text is not None}

    def fetch(self, client: Client, sizes: Mapping[str, int], place: Any, held: transfer.Held) -> None:
        for digest in sizes:
            held.put(digest, self.blobs[digest])
        self.meanwhile()


@pytest.fixture
def end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> End:
    made = End(tmp_path / "made")
    monkeypatch.setattr(bring_back, "now_of", lambda client, execution: (made.now.digest, made.now))
    monkeypatch.setattr(transfer, "fetch", made.fetch)
    return made


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    return tmp_path / "mine"


def brought(mine: Path, uploaded: Manifest) -> tuple[int, int, tuple[str, ...]]:
    """How much was put and removed, and what was left alone."""
    found = bring_back.bring_back(CLIENT, "x", str(mine), uploaded)
    return found.put, found.gone, (*found.conflicts, *(f"{path} held" for path in found.held))


# into a new directory


def test_a_directory_of_the_users_own_is_not_taken_for_what_is_left_of_an_attempt(
    tmp_path: Path, end: End
) -> None:
    end.has({"f": "theirs"})
    write(tmp_path / "result.part", {"thesis": "mine"})
    bring_back.take_out(CLIENT, "x", str(tmp_path / "result"))
    assert told(tmp_path / "result.part") == {"thesis": "mine"}
    assert told(tmp_path / "result") == {"f": "theirs"}
    assert sorted(os.listdir(tmp_path)) == ["made", "result", "result.part"]


def test_of_a_directory_that_cannot_be_made_nothing_stays(tmp_path: Path, end: End) -> None:
    end.has({"f": "theirs"})
    write(tmp_path / "result.part", {"thesis": "mine"})
    end.meanwhile = lambda: (tmp_path / "result").write_text("mine")
    with pytest.raises(NotAllowed):
        bring_back.take_out(CLIENT, "x", str(tmp_path / "result"))
    end.blobs = dict.fromkeys(end.blobs, b"other")
    with pytest.raises(BadTree):
        bring_back.take_out(CLIENT, "x", str(tmp_path / "another"))
    assert sorted(os.listdir(tmp_path)) == ["made", "result", "result.part"]
    assert told(tmp_path / "result.part") == {"thesis": "mine"}


# what is done here during the download


def test_what_is_changed_during_the_download_is_a_conflict_and_stays(mine: Path, end: End) -> None:
    uploaded = scan(write(mine, {"edited": "1", "removed": "1", "done": "1", "free": "1"}))
    end.has({"edited": "2", "made": "2", "done": "2", "free": "2"})
    typed = {"edited": "typed", "removed": "typed", "made": "typed", "done": "2"}
    end.meanwhile = lambda: write(mine, typed)
    assert brought(mine, uploaded) == (1, 0, ("edited", "made", "removed"))
    assert told(mine) == {**typed, "free": "2"}


def test_what_becomes_a_link_or_a_directory_during_the_download_stays(
    tmp_path: Path, mine: Path, end: End
) -> None:
    uploaded = scan(write(mine, {"edited": "1", "removed": "1", "d/f": "1"}))
    end.has({"edited": "2", "d/f": "2"})
    outside = write(tmp_path / "outside", {"f": "1", "removed": "1"})

    def meanwhile() -> None:
        for path in ("edited", "removed", "d/f"):
            (mine / path).unlink()
        (mine / "d").rmdir()
        (mine / "d").symlink_to(outside)
        (mine / "removed").symlink_to(outside / "removed")
        write(mine, {"edited/notes": "typed"})

    end.meanwhile = meanwhile
    assert brought(mine, uploaded) == (0, 0, ("d/f", "edited", "removed"))
    assert told(outside) == {"f": "1", "removed": "1"}
    assert ((mine / "d").is_symlink(), (mine / "removed").is_symlink()) == (True, True)
    assert (mine / "edited" / "notes").read_text() == "typed"
    assert [name for name in os.listdir(mine) if "part" in name] == []


@pytest.mark.parametrize(
    ("before", "after", "typed", "conflicts"),
    [
        ({"a": "1"}, {"a/b": "2"}, {"a": "typed"}, ("a", "a/b")),
        ({"d/x": "1"}, {"d": "2"}, {"d/x": "typed"}, ("d", "d/x")),
        ({"d/x": "1", "d/y": "1"}, {"d": "2"}, {"d/mine": "typed"}, ("d", "d/x held", "d/y held")),
        ({"a": "1"}, {"a": None, "b": "2"}, {"a": "typed"}, ("a",)),
        ({"f": "1"}, {"f": "2", "out": None}, {"out": "typed"}, ("out",)),
    ],
)
@pytest.mark.parametrize("when", ["before", "during"])
def test_a_conflict_about_a_shape_leaves_all_of_it(
    mine: Path, end: End, when: str, before: Tree, after: Tree, typed: Tree, conflicts: tuple[str, ...]
) -> None:
    uploaded = scan(write(mine, before))
    end.has(after)
    if when == "before":
        write(mine, typed)
    else:
        end.meanwhile = lambda: write(mine, typed)
    free = {path: text for path, text in after.items() if path in ("b", "f")}
    assert brought(mine, uploaded) == (len(free), 0, conflicts)
    assert told(mine) == {**before, **typed, **free}


# files that become directories, and directories that become files

SHAPES: list[tuple[Tree, Tree]] = [
    ({"a": "1"}, {"a/b": "2", "a/c/d": "3"}),
    ({"a": "1"}, {"a": None}),
    ({"d/x": "1"}, {"d": "2"}),
    ({"d/x": "1", "d/e/y": "1", "d/f": None}, {"d": "2"}),
    ({"d": None}, {"d": "2"}),
    ({"d": None}, {"d/x": "2"}),
    ({"d/e/x": "1", "d/y": "1"}, {"d/e": "2", "d/y/z": "3"}),
]


@pytest.mark.parametrize(("before", "after"), SHAPES)
def test_files_and_directories_take_the_place_of_each_other(
    mine: Path, end: End, before: Tree, after: Tree
) -> None:
    uploaded = scan(write(mine, before))
    end.has(after)
    gone = len(uploaded.files)
    files = sum(1 for text in after.values() if text is not None)
    assert brought(mine, uploaded) == (files, gone, ())
    assert told(mine) == after
    assert brought(mine, uploaded) == (0, 0, ())
    assert told(mine) == after
