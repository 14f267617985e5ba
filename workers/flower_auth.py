"""Who may look at Flower: the user and password of a setting, else of a file that is made once."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

from app.errors import NotAllowed
from app.ids import secret
from app.settings import BadSetting

FILE = "flower.auth"
_FORM = re.compile(r"[!-9;-~]{1,64}:[!-~]{8,200}")


def credentials(given: str, data_dir: str) -> str:
    """`user:password`: what is given, else what the file in the data directory holds, made where it is missing.

    Raises BadSetting for a text of another form, NotAllowed for a file that others may read.
    """
    if given:
        return _checked(given, "MUSTER_FLOWER_AUTH")
    path = Path(data_dir) / FILE
    if not path.exists():
        _write(path, f"muster:{secret('flower')}")
    if path.stat().st_mode & 0o077:
        raise NotAllowed(f"{path} can be read by others", hint=f"chmod 600 {path}", code="keys-exposed")
    return _checked(path.read_text().strip(), str(path))


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # mkstemp's files are 0600 from the first moment.
    descriptor, partial = tempfile.mkstemp(prefix=f".{FILE}.", dir=path.parent)
    with open(descriptor, "w") as file:
        file.write(text + "\n")
    try:
        os.link(partial, path)
    except FileExistsError:
        pass  # another process was first: its password is the one
    finally:
        os.unlink(partial)


def _checked(text: str, where: str) -> str:
    if not _FORM.fullmatch(text):
        raise BadSetting(
            f"{where} is not user:password",
            hint="printable ASCII without spaces, the password with 8 characters at the least",
        )
    return text
