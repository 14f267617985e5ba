"""What a check of `muster doctor` says."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: `status` is ok, warn or fail; `hint` says what to do next."""

    name: str
    status: str
    detail: str
    hint: str = ""
