"""Trees, manifests and changes say the same: properties, with real files under them."""

from __future__ import annotations

import hashlib
import io
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from app.files import bundles
from app.files.applying import Applied, apply, free
from app.files.changes import Changes, difference, merge, under
from app.files.manifest import EMPTY, Entry, Manifest, directories_of
from app.files.tree import build, scan

BLOBS = {hashlib.sha256(data).hexdigest(): data for data in (b"", b"a", b"b\n", bytes(70_000), b"\xff" * 300)}
NAMES = st.sampled_from(["a", "b", "C", "é", ".d", "x y"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
ENTRIES = st.builds(
    lambda digest, mode: Entry(mode, len(BLOBS[digest]), digest),
    st.sampled_from(sorted(BLOBS)),
    st.sampled_from([0o644, 0o755, 0o600, 0o444]),
)


def open_blob(digest: str) -> io.BytesIO:
    return io.BytesIO(BLOBS[digest])


def tidy(files: dict[str, Entry], directories: set[str]) -> Manifest:
    """Of whatever was drawn, a tree that can be."""
    inner = directories_of((*files, *directories))
    kept = {path: entry for path, entry in files.items() if path not in inner | directories}
    empty = directories - directories_of((*kept, *directories))
    return Manifest.of(kept, empty - kept.keys())


TREES = st.builds(tidy, st.dictionaries(PATHS, ENTRIES, max_size=6), st.sets(PATHS, max_size=3))


@settings(max_examples=60, deadline=None)
@given(TREES, TREES)
def test_what_is_built_is_scanned_and_what_differs_is_applied(old: Manifest, new: Manifest) -> None:
    with tempfile.TemporaryDirectory() as top:
        place = Path(top, "tree")
        build(place, old, open_blob)
        assert scan(place) == old
        changes = difference(old, new)
        for done in (Applied(put=len(changes.put), gone=len(changes.gone)), Applied()):
            assert apply(place, old, changes, free(place, old, changes), open_blob) == done
            assert scan(place) == new
        assert sorted(path.name for path in Path(top).iterdir()) == ["tree"]


@settings(max_examples=200, deadline=None)
@given(TREES, TREES, TREES, st.booleans())
def test_what_somebody_did_meanwhile_is_not_undone(
    old: Manifest, new: Manifest, mine: Manifest, is_late: bool
) -> None:
    """Also where they did it after it was asked what is free."""
    changes = difference(old, new)
    with tempfile.TemporaryDirectory() as top:
        place = Path(top, "tree")
        build(place, mine, open_blob)
        wanted = changes.put if is_late else free(place, old, changes)
        done = apply(place, old, changes, wanted, open_blob)
        found = scan(place)
    theirs = {path: entry for path, entry in mine.files.items() if old.files.get(path) != entry}
    assert theirs.items() <= found.files.items()
    assert set(mine.directories) - directories_of((*old.files, *old.directories)) - set(old.directories) <= {
        *directories_of((*found.files, *found.directories)),
        *found.directories,
    }
    assert {path: mine.files[path] for path in done.held}.items() <= found.files.items()
    for path, entry in changes.put.items():
        assert (found.files.get(path) == entry) != (path in done.conflicts)
    assert all(path not in found.files or path in {*done.conflicts, *done.held} for path in changes.gone)


@given(TREES)
def test_documents_are_read_as_they_were_written(tree: Manifest) -> None:
    assert Manifest.read(tree.to_bytes()) == tree
    for changes in (difference(EMPTY, tree), difference(tree, EMPTY)):
        read = Changes.read(changes.to_bytes())
        assert (read, read.digest) == (changes, changes.digest)


@settings(max_examples=300)
@given(TREES, TREES)
def test_what_was_done_to_a_tree_makes_the_other_of_it(old: Manifest, new: Manifest) -> None:
    changes = difference(old, new)
    assert merge(old, old, changes) == (new, ())
    assert changes.is_empty == (old == new)
    # Done twice is done once.
    assert merge(old, new, changes) == (new, ())


@settings(max_examples=600)
@given(TREES, TREES, TREES)
def test_the_order_of_changes_does_not_matter(base: Manifest, one: Manifest, other: Manifest) -> None:
    first, second = difference(base, one), difference(base, other)
    forth, conflicts = merge(base, one, second)
    back, conflicts_back = merge(base, other, first)
    assert bool(conflicts) == bool(conflicts_back)
    if not conflicts:
        assert forth == back
        forth.check()


@given(TREES, TREES, TREES)
def test_a_conflict_is_about_what_both_have_changed(base: Manifest, one: Manifest, other: Manifest) -> None:
    _, conflicts = merge(base, one, difference(base, other))
    for path in set(conflicts) & base.files.keys() & one.files.keys() & other.files.keys():
        assert len({base.files[path], one.files[path], other.files[path]}) == 3


def test_two_that_change_one_file_are_told_of_it() -> None:
    def tree(**files: str) -> Manifest:
        digests = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in files.items()}
        return Manifest({name: Entry(0o644, 1, digest) for name, digest in digests.items()})

    base = tree(kept="1", edited="1", removed="1")
    one = tree(kept="1", edited="2", removed="2", new="1")
    other = tree(kept="1", edited="3", new="2")
    assert merge(base, one, difference(base, other))[1] == ("edited", "new", "removed")
    assert merge(base, tree(Kept="1"), difference(base, tree(kept="1")))[1] == ()
    assert merge(EMPTY, tree(Makefile="1"), difference(EMPTY, tree(makefile="1")))[1] == (
        "Makefile",
        "makefile",
    )
    per_node = under(difference(base, other), "web-1")
    assert (sorted(per_node.put), per_node.gone) == (["web-1/edited", "web-1/new"], ())


@settings(max_examples=40, deadline=None)
@given(st.sets(st.sampled_from(sorted(BLOBS))), st.integers(1, 5))
def test_a_bundle_is_read_as_it_was_written(digests: set[str], level: int) -> None:
    out = io.BytesIO()
    wanted = sorted(digests)
    bundles.write(out, ((one, len(BLOBS[one]), lambda one=one: open_blob(one)) for one in wanted), level)
    out.seek(0)
    found = [(digest, blob.read()) for digest, blob in bundles.read(out)]
    assert found == [(digest, BLOBS[digest]) for digest in wanted]
