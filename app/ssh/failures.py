"""What goes wrong between us and a machine."""

from __future__ import annotations

from app.errors import MusterError, Unavailable


class Unreachable(Unavailable):
    """The machine does not answer, or the connection broke. It may be different in a moment."""

    code = "unreachable"


class TooMuch(Unreachable):
    """The machine answers with more than it may. Another try would not change it."""


class Refused(MusterError):
    """A key is wrong, on either side, or what is there cannot be used. Trying again changes nothing.

    `kind` is what a job's error is called: `ssh_auth`, `ssh_host_key`, `ssh_key` or `far_side`.
    """

    code = "ssh-refused"
    status = 502

    def __init__(self, kind: str, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.kind = kind

    def told(self) -> str:
        """Message and hint in one."""
        return f"{self.message}: {self.hint}" if self.hint else self.message
