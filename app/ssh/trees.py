"""Trees of files on the far side: listed by `find`, `ls` and a sha256 program, sent as tar, fetched by `cat`.

What is listed there is data from an enemy: every name is checked, everything is bounded, and what is fetched has to be
what its digest says.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from app.errors import NotFound, Unavailable
from app.files.documents import Entry
from app.files.limits import Limits
from app.files.manifest import EMPTY, Manifest, directories_of
from app.files.names import BadTree, check_path
from app.files.tree import OpenBlob, wrong_blob
from app.node.jobdir import is_id
from app.ssh import far_side
from app.ssh.far_side import quoted
from app.ssh.link import Completed, Link, run

PIECE = 8 << 20
"""Bytes that travel in one session, about."""
KEPT = 4
"""Trees of executions that stay on the machine for those that come, for a day at the most."""

_WITHIN = 300.0
_MANY = 500

_LISTED = re.compile(
    r"-([r-][w-][xsS-][r-][w-][xsS-][r-][w-][xtT-])\S* +\d+ +\d+ +\d+ +(\d{1,15}) +\S+ +\S+ +\S+ \./(.+)"
)
_SUMMED = re.compile(r"([0-9a-f]{64}) [ *]\./(.+)")
_OPEN = b"""
M_open() { find "$1" -type d ! -perm -700 -exec chmod u+rwx {} \\; 2>/dev/null; }
M_clear() { rm -rf -- "$1" 2>/dev/null || { M_open "$1"; rm -rf -- "$1"; }; }
"""
"""A script may have shut directories, even to its own user."""

# The `ls` of busybox shows marks in place of all letters that are not ASCII: it is given such files one by one, and
# their names are told behind it. Openssl takes half of the time of the other programs for sums. Those write line by
# line, which `sort` makes a few packets of.
_LIST = b"""
export LC_ALL=C
if M_find openssl; then M_sum='openssl dgst -sha256 -r'
elif M_find sha256sum; then M_sum=sha256sum
else M_sum='shasum -a 256'; fi
case $(ls --help 2>&1) in
*BusyBox*)
    find . -type f ! -path '*[! -~]*' -exec ls -ldn {} + &&
    find . -type f -path '*[! -~]*' -exec ls -ldn {} \\; -print
    ;;
*) find . -type f -exec ls -ldn {} + ;;
esac && echo sums && find . -type f -exec $M_sum {} + | sort &&
echo directories && find . -type d && echo end
"""


class FarTrees:
    """The workspaces of one machine, below the directory that is kept there. Every method raises `Unavailable`."""

    def __init__(self, link: Link, ground: far_side.Ground, limits: Limits) -> None:
        self._link = link
        self._ground = ground
        self._limits = limits

    def place(self, job_id: str) -> str:
        """The directory in which the job runs."""
        return f"{self._ground.base}/workspaces/{job_id}/files"

    def begin(self, job_id: str, execution: str) -> tuple[Manifest, set[str]] | None:
        """Makes room for a tree, and tells what is in it, as `listed`: what the execution left on the machine, or else
        the last of others that was left there. None where the job's tree is there, complete.

        Raises BadTree where what is there cannot be told.
        """
        work = quoted(f"workspaces/{job_id}")
        kept = quoted(f"trees/{execution}" if is_id(execution) else "")
        said = self._do(
            _OPEN
            + b"cd %s && mkdir -p workspaces trees && mkdir -p %s || exit 1\n"
            % (quoted(self._ground.base), work)
            + b"if [ -d %s/files ]; then echo ready; exit; fi\nM_clear %s/part\n" % (work, work)
            + b"if ! mv %s %s/part 2>/dev/null; then\n" % (kept, work)
            + b"set -- $(ls -t trees)\n"
            + b'if [ $# -eq 0 ] || ! mv "trees/$1" %s/part 2>/dev/null; then\n' % work
            + b"mkdir %s/part && echo empty; exit\nfi\nfi\n" % work
            + b"M_open %s/part; find %s/part ! -type f ! -type d -exec rm -f {} +\n" % (work, work)
            + b"cd %s/part\n%strue\n" % (work, _LIST)
        )
        if said == b"ready\n":
            return None
        return (EMPTY, set()) if said == b"empty\n" else self._told(said)

    def renew(self, job_id: str) -> None:
        """Begins with nothing instead of what was left there."""
        part = quoted(self.part(job_id))
        self._do(_OPEN + b"M_clear %s && mkdir %s\n" % (part, part))

    def change(
        self, job_id: str, there: tuple[Manifest, set[str]], wanted: Manifest, open_blob: OpenBlob
    ) -> None:
        """Makes `wanted` of what is `there`, of blobs that are here, and puts it in its place.

        Raises BadTree (`detail["digest"]`) for a blob that is not what its name says.
        """
        before, directories = there
        put = {path: entry for path, entry in wanted.files.items() if before.files.get(path) != entry}
        gone = [path for path in before.files if path not in wanted.files]
        needed = directories_of((*wanted.files, *wanted.directories)) | set(wanted.directories)
        tidying = b"".join(
            [
                *_on_each(b"rm -f --", gone),
                *_on_each(b"rmdir --", sorted(directories - needed, reverse=True)),
                *_on_each(b"mkdir -p --", [path for path in wanted.directories if path not in directories]),
            ]
        )
        part = b"cd %s || exit 1\n" % quoted(self.part(job_id))
        if tidying and put:
            self._do(part + tidying)
            tidying = b""
        for group in _groups(put):
            self._send(job_id, group, open_blob)
        # By itself: whose connection broke within an archive may have ended that for `tar` as well.
        self._do(part + tidying + b"cd .. && mv part files\n")

    def listed(self, directory: str) -> tuple[Manifest, set[str]]:
        """What is in it, and all of its directories. Links and devices are left out.

        Raises NotFound, and BadTree for what cannot be a tree.
        """
        place = quoted(directory)
        said = self._do(b"if [ -L %s ] || ! cd %s; then echo gone; exit 0; fi\n" % (place, place) + _LIST)
        if said == b"gone\n":
            raise NotFound(f"{directory} is gone from the machine, or a link", code="workspace-gone")
        return self._told(said)

    def _told(self, said: bytes) -> tuple[Manifest, set[str]]:
        try:
            text = said.decode("utf-8")
        except UnicodeDecodeError:
            raise BadTree("the name of a file there is no text") from None
        # No line about a file or directory is one of these words: each has `./` before the name.
        files, found, rest = f"\n{text}".partition("\nsums\n")
        sums, _, rest = f"\n{rest}".partition("\ndirectories\n")
        if not found or not rest.endswith("\nend\n"):
            raise BadTree("what is there cannot be listed")
        return self._manifest(files.split("\n")[1:], sums.split("\n")[1:], rest.split("\n")[:-2])

    def part(self, job_id: str) -> str:
        """Where a tree is until it is complete."""
        return f"{self._ground.base}/workspaces/{job_id}/part"

    def fetch(
        self,
        directory: str,
        files: Mapping[str, Entry],
        take: Callable[[str, int, BinaryIO], None],
        aside: Path,
    ) -> None:
        """Gives `take` each content once: digest, size, bytes. A large one is put together in the file `aside`."""
        for group in _groups(files):
            (path, entry), *more = group.items()
            if not more and entry.size > PIECE:
                self._fetch_large(directory, path, entry, aside)
                with open(aside, "rb") as file:
                    take(entry.sha256, entry.size, file)
                continue
            names = b" ".join(quoted(f"./{name}") for name in group)
            data = self._do(b"cd %s && cat %s\n" % (quoted(directory), names))
            if len(data) != sum(one.size for one in group.values()):
                raise BadTree("files there change while they are taken back")
            stream = io.BytesIO(data)
            for one in group.values():
                take(one.sha256, one.size, io.BytesIO(stream.read(one.size)))

    def finish(self, job_id: str, execution: str) -> None:
        """Removes the job's directory; its tree is kept, for as long as it is one of the last."""
        work = quoted(f"workspaces/{job_id}")
        kept = b""
        if is_id(execution):
            tree = quoted(f"trees/{execution}")
            # Its time is set before it is seen: another one that ends just then would take it for an old tree.
            kept = b"if [ -d %s/files ]; then M_clear %s; touch %s/files && mv %s/files %s; fi\n" % (
                *(work, tree, work, work, tree),
            )
        self._do(
            _OPEN
            + b"cd %s || exit 1\n" % quoted(self._ground.base)
            + kept
            + b"M_clear %s\nset -- $(ls -t trees 2>/dev/null)\n" % work
            + b"M_number=0; for M_tree; do M_number=$((M_number + 1))\n"
            + b'if [ $M_number -gt %d ]; then M_clear "trees/$M_tree"; fi; done\n' % KEPT
            + b"find trees/* -prune -mtime +0 -exec rm -rf {} + 2>/dev/null\ntrue\n"
        )

    def sweep(self, known: Iterable[str]) -> None:
        """Removes the directories of all other jobs than these."""
        said = self._do(b"cd %s/workspaces 2>/dev/null && ls\ntrue\n" % quoted(self._ground.base))
        left = set(filter(is_id, said.decode("utf-8", "replace").split())) - set(known)
        for name in left:
            self.finish(name, "")

    def _manifest(
        self, files: Sequence[str], sums: Sequence[str], directories: Sequence[str]
    ) -> tuple[Manifest, set[str]]:
        digests = dict(_two(_SUMMED.fullmatch(line), line, 2, 1) for line in sums)
        entries: dict[str, Entry] = {}
        for line, path in _named(files):
            found = _LISTED.fullmatch(line)
            shown, _ = _two(found, line, 3, 1)
            path = path or shown
            assert found is not None
            if path not in digests:
                raise BadTree("files there change while they are listed", path=path)
            check_path(path, self._limits)
            entries[path] = Entry(_mode(found[1]), int(found[2]), digests[path])
        if len(entries) != len(digests):
            raise BadTree("files there change while they are listed")
        every = {check_path(line.removeprefix("./"), self._limits) for line in directories if line != "."}
        empty = every - directories_of((*entries, *every))
        return Manifest.of(entries, empty, self._limits), every

    def _send(self, job_id: str, group: Mapping[str, Entry], open_blob: OpenBlob) -> None:
        (path, entry), *more = group.items()
        if not more and entry.size > PIECE:
            self._send_large(job_id, path, entry, open_blob)
            return
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w", format=tarfile.GNU_FORMAT) as tar:
            for name, one in group.items():
                member = tarfile.TarInfo(f"./{name}")
                member.size, member.mode = one.size, one.mode
                with open_blob(one.sha256) as blob:
                    data = blob.read(one.size + 1)
                if hashlib.sha256(data).hexdigest() != one.sha256:
                    raise wrong_blob(name, one)
                tar.addfile(member, io.BytesIO(data))
        place = quoted(self.part(job_id))
        self._feed(b"cd %s && tar -xpf -" % place, archive.getvalue())

    def _send_large(self, job_id: str, path: str, entry: Entry, open_blob: OpenBlob) -> None:
        place, name = quoted(self.part(job_id)), quoted(f"./{path}")
        parent = quoted(f"./{os.path.dirname(path)}")
        self._do(b"cd %s && mkdir -p -- %s && rm -f -- %s\n" % (place, parent, name))
        digest = hashlib.sha256()
        with open_blob(entry.sha256) as blob:
            while data := blob.read(PIECE):
                digest.update(data)
                self._feed(b"cd %s && exec cat >>%s" % (place, name), data)
        if digest.hexdigest() != entry.sha256:
            raise wrong_blob(path, entry)
        self._do(b"cd %s && chmod %o %s\n" % (place, entry.mode, name))

    def _fetch_large(self, directory: str, path: str, entry: Entry, aside: Path) -> None:
        with open(aside, "wb") as file:
            for first in range(0, entry.size, PIECE):
                length = min(PIECE, entry.size - first)
                program = b"cd %s && tail -c +%d %s | head -c %d\n"
                file.write(self._do(program % (quoted(directory), first + 1, quoted(f"./{path}"), length)))

    def _do(self, program: bytes) -> bytes:
        opening = self._ground.opening() + b"exec 2>&4\n"
        done = run(self._link, far_side.COMMAND, opening + b"(\n" + program + b")\n", within=_WITHIN)
        _, found, said = done.stdout.partition(far_side.OPENING)
        if not found:
            raise Unavailable("the machine does not answer as it should", code="workspace-far")
        return self._checked(done, said)

    def _feed(self, line: bytes, data: bytes) -> None:
        done = run(self._link, far_side.LISTENING, line + b"\n" + data, within=_WITHIN)
        self._checked(done, b"")

    @staticmethod
    def _checked(done: Completed, said: bytes) -> bytes:
        if done.status:
            why = done.stderr.decode("utf-8", "replace").strip()[-300:] or f"status {done.status}"
            raise Unavailable(f"the machine refuses its part with files: {why}", code="workspace-far")
        return said


def _on_each(command: bytes, paths: Sequence[str]) -> Iterator[bytes]:
    """The command with all of the paths, in a few lines."""
    for first in range(0, len(paths), _MANY):
        yield command + b"".join(b" " + quoted(f"./{path}") for path in paths[first : first + _MANY]) + b"\n"


def _two(found: re.Match[str] | None, line: str, key: int, value: int) -> tuple[str, str]:
    if found is None:
        raise BadTree(f"what is there cannot be listed: {line[:100]!r} is not a line about a file")
    return found[key], found[value]


def _named(lines: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each line about a file with the name that is told behind it, or ""."""
    at = 0
    while at < len(lines):
        told = lines[at + 1] if at + 1 < len(lines) and lines[at + 1].startswith("./") else ""
        yield lines[at], told.removeprefix("./")
        at += 2 if told else 1


def _mode(text: str) -> int:
    """Permissions as `ls` writes them; what is beyond the nine bits is left out."""
    bits = 0
    for letter in text:
        bits = bits << 1 | (letter in "rwxst")
    return bits


def _groups(files: Mapping[str, Entry]) -> Iterator[dict[str, Entry]]:
    """In groups of `PIECE` bytes and `_MANY` files at the most; what is larger is alone."""
    group: dict[str, Entry] = {}
    size = 0
    for path, entry in sorted(files.items()):
        if group and (size + entry.size > PIECE or len(group) >= _MANY):
            yield group
            group, size = {}, 0
        group[path] = entry
        size += entry.size
    if group:
        yield group
