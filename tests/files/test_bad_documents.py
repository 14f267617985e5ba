"""Documents about trees come from enemies: each case is refused with a clear word, and none takes long."""

from __future__ import annotations

import hashlib
import json
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.files.changes import Changes
from app.files.limits import Limits
from app.files.manifest import EMPTY, Manifest
from app.files.names import BadTree

CASES = Path(__file__).parents[1] / "cases" / "files"
MANIFESTS: list[dict[str, Any]] = yaml.safe_load((CASES / "manifests_bad.yaml").read_text())
CHANGES: list[dict[str, Any]] = yaml.safe_load((CASES / "changes_bad.yaml").read_text())
DIGEST = hashlib.sha256(b"x").hexdigest()
DIGESTS = {"H": DIGEST, "BIG": DIGEST.upper(), "LINE": DIGEST[:-1] + "\n"}


def entry(given: Any) -> Any:
    if isinstance(given, list):
        return [*given[:2], *[DIGESTS.get(part, part) for part in given[2:]]]
    return given if isinstance(given, dict) else [given, 1, DIGEST]


def canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def document(case: dict[str, Any], names: tuple[str, ...]) -> bytes:
    """The case's document in the only form that there is, so that it is refused for its own fault."""
    if "hex" in case:
        return bytes.fromhex(case["hex"])
    if "raw" in case:
        return str(case["raw"]).replace('"H"', f'"{DIGEST}"').encode()
    if "nested" in case:
        return b"[" * case["nested"]
    files = {path: entry(given) for path, given in case.get(names[0], {}).items()}
    if "long" in case:
        files["x" * case["long"]] = entry(420)
    if "deep" in case:
        files["/".join("d" * case["deep"])] = entry(420)
    files.update({f"f{number:06}": entry(420) for number in range(case.get("many", 0))})
    lists = {name: case.get(name, []) for name in names[1:]}
    return canonical({names[0]: files, **lists, "version": 1})


def refusal(read: Callable[[bytes, Limits], object], data: bytes, case: dict[str, Any]) -> BadTree:
    with pytest.raises(BadTree) as refused:
        read(data, Limits(**case.get("limits", {})))
    message = refused.value.message
    assert message.isprintable(), "a message goes to terminals and logs"
    assert len(message) < 400
    return refused.value


@pytest.mark.parametrize("case", MANIFESTS, ids=[case["name"] for case in MANIFESTS])
def test_no_such_manifest_is_taken(case: dict[str, Any]) -> None:
    found = refusal(Manifest.read, document(case, ("files", "directories")), case)
    assert case["why"] in found.message
    assert (found.code, found.status) == ("bad-tree", 422)


@pytest.mark.parametrize("case", CHANGES, ids=[case["name"] for case in CHANGES])
def test_no_such_changes_are_taken(case: dict[str, Any]) -> None:
    found = refusal(Changes.read, document(case, ("put", "gone", "made", "unmade")), case)
    assert case["why"] in found.message


def test_what_would_fill_the_memory_is_not_read() -> None:
    """Twenty megabytes of empty lists are a gigabyte of them; and odd texts cost no more than they are long."""
    lists, quotes = (
        b"[" + b"{}," * 7_000_000 + b"{}]",
        b'{"gone":["' + b'\\"' * 10_000_000 + b"[" * 30_000 + b"\\",
    )
    for data, why in ((lists, "more than 20000 files"), (quotes, "is not JSON")):
        tracemalloc.start()
        began = time.monotonic()
        with pytest.raises(BadTree, match=why):
            Changes.read(data)
        took, (_, peak) = time.monotonic() - began, tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert (took < 20, peak < 100_000_000) == (True, True), (took, peak)


def test_names_may_have_brackets_and_commas() -> None:
    """What counts is not in a name."""
    said = {"files": {f'[{{,"{number}' + "[,{" * 60: entry(0o644) for number in range(20)}, "directories": []}
    found = Manifest.read(canonical({**said, "version": 1}), Limits(files=20))
    assert len(found.files) == 20


def test_what_is_only_odd_is_data() -> None:
    """Files that mean something to programs are files like others: what counts is that they stay in their tree."""
    paths = [
        ".git/hooks/post-commit",
        ".ssh/authorized_keys",
        "-rf",
        "a b",
        "~",
        "$(reboot)",
        "…",
        "aux",
        "cafés/é",
    ]
    said = {"files": {path: entry(0o755) for path in paths}, "directories": [".empty"], "version": 1}
    found = Manifest.read(canonical(said))
    assert set(found.files) == set(paths)
    assert found.digest == hashlib.sha256(canonical(said)).hexdigest()


def test_the_digest_of_nothing_is_known_by_heart() -> None:
    """A form that changes by itself would make every snapshot another one."""
    assert EMPTY.to_bytes() == b'{"directories":[],"files":{},"version":1}'
    assert EMPTY.digest == "ef27716534a0448c3a4e614943afb7bd6d7b9c58bc5fa308d63f3e8cc57181c8"
