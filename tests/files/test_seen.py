"""What a scan need not read again: files that are as they were left, and nothing else."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from app.files import tree
from app.files.documents import digest_of
from app.files.manifest import Entry, Manifest

CONTENT = {f"d{number % 3}/{number}": b"%06d" % number for number in range(30)}
BLOBS = {digest_of(data): data for data in CONTENT.values()}
MANIFEST = Manifest({path: Entry(0o644, 6, digest_of(data)) for path, data in CONTENT.items()})


def built(place: Path, *, settled: bool = True) -> tree.Seen:
    """The tree, and what is known of it once the kernel's clock has gone on."""
    found = tree.build(place, MANIFEST, lambda digest: io.BytesIO(BLOBS[digest]))
    if settled and len(found) < len(CONTENT):
        stats = {path: os.stat(place / path) for path in CONTENT}
        found = {
            path: tree.Sight(told.st_ino, told.st_size, told.st_ctime_ns, MANIFEST.files[path])
            for path, told in stats.items()
        }
        last = max(sight.changed for sight in found.values())
        while time.time_ns() < last + 50_000_000:
            time.sleep(0.005)
    return found


def test_what_nobody_touched_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = built(tmp_path / "t")
    monkeypatch.setattr(tree, "open_file", None)
    assert tree.scan(tmp_path / "t", seen=seen) == MANIFEST


def in_place(path: Path) -> None:
    before = os.stat(path)
    with path.open("r+b") as file:
        file.write(b"other!")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def by_a_rename(path: Path) -> None:
    aside = path.with_name("aside")
    aside.write_bytes(b"other!")
    aside.rename(path)


def by_another_of_them(path: Path) -> None:
    """Same size, same times as when it was seen: only it is another file."""
    os.link(path.parent.parent / "d2/2", path.with_name("aside"))
    path.with_name("aside").rename(path)


def by_a_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/hostname")


CHANGES: dict[str, Callable[[Path], None]] = {
    one.__name__: one for one in (in_place, by_a_rename, by_another_of_them, by_a_link)
}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_is_changed_shows(change: str, tmp_path: Path) -> None:
    seen = built(tmp_path / "t")
    CHANGES[change](tmp_path / "t/d0/0")
    found = tree.scan(tmp_path / "t", seen=seen)
    assert found == tree.scan(tmp_path / "t")
    assert found.files.get("d0/0") != MANIFEST.files["d0/0"]


def test_a_mode_shows_and_its_file_is_the_same(tmp_path: Path) -> None:
    seen = built(tmp_path / "t")
    (tmp_path / "t/d0/0").chmod(0o700)
    assert tree.scan(tmp_path / "t", seen=seen).files["d0/0"] == MANIFEST.files["d0/0"]._replace(mode=0o700)


def test_a_change_at_once_shows(tmp_path: Path) -> None:
    """The kernel's clock ticks: who writes right after has the same time."""
    seen = built(tmp_path / "t", settled=False)
    for path in CONTENT:
        in_place(tmp_path / "t" / path)
    assert tree.scan(tmp_path / "t", seen=seen) == tree.scan(tmp_path / "t")
