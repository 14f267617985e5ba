"""The handle of a secret while templates are rendered: it can be passed on, and nothing else."""

from __future__ import annotations

from typing import Final, NoReturn

from app import marks
from app.language.plain import Opaque, ValueRefused

ALONE: Final = "write it alone between its braces, `{{ … }}`, in a text or as a whole value"
_REFUSED: Final = "a secret cannot be compared, changed, counted or looked into"


class Handle(Opaque):
    """Stands for the value of one secret, `kind:name`. Whoever asks it anything is refused."""

    __slots__ = ("reference",)

    def __init__(self, reference: str) -> None:
        self.reference = reference

    @property
    def mark(self) -> str:
        """What stands for it in a text."""
        return marks.mark(self.reference)

    def _refuse(self, *_: object) -> NoReturn:
        raise refused()

    __bool__ = __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __hash__ = _refuse
    __str__ = __repr__ = __format__ = __len__ = __iter__ = __contains__ = __getitem__ = _refuse
    __int__ = __float__ = __index__ = __add__ = __radd__ = __mod__ = _refuse


def refused() -> ValueRefused:
    """The error of whoever does with a secret what nobody may."""
    return ValueRefused(_REFUSED, ALONE)
