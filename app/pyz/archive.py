"""One file that Python runs: the same contents always come to the same bytes."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

_FIRST_LINE: Final = b"#!/usr/bin/env python3\n"
_MOMENT: Final = (1980, 1, 1, 0, 0, 0)


def build(modules: Mapping[str, bytes], rest: Mapping[str, bytes]) -> bytes:
    """The archive of these files, by path. Beside each module stands what this Python compiles it to, so that it need
    not be compiled at every start; another version of Python reads the source."""
    packed = {**modules, **_compiled(modules), **rest}
    target = io.BytesIO(_FIRST_LINE)
    target.seek(0, io.SEEK_END)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path in sorted(packed):
            entry = zipfile.ZipInfo(path, _MOMENT)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system, entry.external_attr = 3, 0o644 << 16
            archive.writestr(entry, packed[path])
    return target.getvalue()


def _compiled(modules: Mapping[str, bytes]) -> dict[str, bytes]:
    """Their code, by a Python of its own: it leaves the columns of expressions out, which only tracebacks show, and
    which are a third of it all. Nobody compares it with the source when it is loaded."""
    with tempfile.TemporaryDirectory(prefix="muster-pyz-") as directory:
        for path, source in modules.items():
            target = Path(directory, path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source)
        command = [sys.executable, "-I", "-S", "-X", "no_debug_ranges", "-m", "compileall", "-q", "-b"]
        options = ["-s", directory, "--invalidation-mode", "unchecked-hash", directory]
        subprocess.run([*command, *options], check=True)
        return {f"{path}c": Path(directory, f"{path}c").read_bytes() for path in modules}


def write(target: Path, archive: bytes) -> None:
    """Put the archive there, whole or not at all, to be executed by anybody who may read it. Raises OSError."""
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        aside.write_bytes(archive)
        aside.chmod(0o755)
        os.replace(aside, target)
    finally:
        aside.unlink(missing_ok=True)
