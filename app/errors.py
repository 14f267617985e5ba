"""Every error that Muster raises on purpose.

    MusterError                 code, message, hint
    ├── InvalidInput            a request or file that is wrong (422, exit 2)
    │   └── InvalidWorkflow     carries every Problem
    ├── NotAuthenticated        401, exit 3
    ├── NotAllowed              403, exit 3
    ├── NotFound                404, exit 4
    ├── Conflict                409, exit 5
    ├── TooLarge                413, exit 2
    └── Unavailable             503: a part that is needed does not answer

A message says what was wrong and where; a hint says what to do next. `code` is stable: tests, scripts and
problem+json `type` use it.
"""

from __future__ import annotations

from typing import Any


class MusterError(Exception):
    """The root: `code` is stable, `message` is for people, `hint` says what to do next."""

    code = "error"
    status = 500

    def __init__(self, message: str, *, hint: str = "", code: str = "", **detail: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.detail = detail
        if code:
            self.code = code


class InvalidInput(MusterError):
    code = "invalid-input"
    status = 422


class NotAuthenticated(MusterError):
    code = "not-authenticated"
    status = 401


class NotAllowed(MusterError):
    code = "not-allowed"
    status = 403


class NotFound(MusterError):
    code = "not-found"
    status = 404


class Conflict(MusterError):
    code = "conflict"
    status = 409


class TooLarge(MusterError):
    code = "too-large"
    status = 413


class FeatureOff(MusterError):
    """A part of Muster that is switched off in this installation; its code is the feature's."""

    code = "feature-off"
    status = 402


class Unavailable(MusterError):
    code = "unavailable"
    status = 503
