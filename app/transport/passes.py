"""Passes: what a node shows to the API for the files of one job.

A pass is a compact JWS by control. It lets its bearer read one snapshot with the blobs in it, and put blobs up to so
many bytes in all; nothing else, and not for long. It travels in a sealed order, so the node alone has it.

`open_pass` raises `Refused` and nothing else, whatever the text.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, NoReturn

from app.transport import jose
from app.transport.keys import KeyPair, Public
from app.transport.messages import JOB_ID, NODE_NAME, canonical
from app.transport.sealing import Refused
from app.transport.segments import Malformed

PASS_TYPE = "pass+jws"
PASS_BYTES = 4096
"""The longest token. Looked at before anything is parsed."""

LEEWAY = 60.0
"""Seconds that the clock of control may be ahead of the API's."""

_TOKEN = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_DIGEST = re.compile(r"(?:[0-9a-f]{64})?")
_LATEST = 253_402_300_800
_MOST = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Pass:
    """What control lets a node do: read `snapshot` ("" for none), put up to `bytes` bytes. Times are Unix seconds."""

    installation: str
    node: str
    execution: str
    job: str
    snapshot: str
    bytes: int
    issued_at: float
    expires_at: float


_NAMES = frozenset(one.name for one in fields(Pass))


def sign_pass(pass_: Pass, signer: KeyPair) -> str:
    """The token of a pass, for the header `Authorization: Pass …`."""
    return jose.sign(canonical(asdict(pass_)), PASS_TYPE, signer.kid, signer.sign).decode("ascii")


def open_pass(token: object, control: Sequence[Public], *, installation: str, now: float) -> Pass:
    """The pass in `token`, if control signed it for this installation and hour; else raises Refused.

    `control` holds the keys that may sign; `now` is Unix seconds. Whether its job still runs is the caller's check.
    """
    payload = _verified(_bounded(token), {public.kid: public for public in control})
    found = _read(payload)
    if found.installation != installation:
        _refuse("wrong-installation", f"it is of installation {found.installation!r}")
    # Written so that a NaN is refused too.
    if not found.issued_at - LEEWAY <= now:
        _refuse(
            "not-yet-valid", f"the pass for {found.job} is {found.issued_at - now:.0f} s ahead of our clock"
        )
    if not now < found.expires_at:
        _refuse("expired", f"the pass for {found.job} expired {now - found.expires_at:.0f} s ago")
    return found


def _bounded(token: object) -> bytes:
    if not isinstance(token, str) or not token.isascii():
        _refuse("malformed", "a token is ASCII text")
    if len(token) > PASS_BYTES:
        _refuse("too-large", f"a token of {len(token)} characters, {PASS_BYTES} are allowed")
    return token.encode()


def _verified(token: bytes, control: dict[str, Public]) -> bytes:
    """The payload of a JWS of our type by a key of control."""
    try:
        signed = jose.read_signed(token)
        if signed.typ != PASS_TYPE:
            _refuse("wrong-type", f"{str(signed.typ)[:64]!r} where {PASS_TYPE!r} is wanted")
        public = control.get(signed.kid)
        if public is None:
            _refuse("bad-signature", f"no key {signed.kid[:64]!r} may sign this")
        signed.verify(public.sign)
    except Malformed as error:
        _refuse("malformed", f"no JWS: {error}")
    except jose.Unproven as error:
        _refuse("bad-signature", str(error))
    return signed.payload


def _read(payload: bytes) -> Pass:
    try:
        claims = json.loads(payload.decode(), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        _refuse("malformed", f"the payload is no JSON: {error}")
    if not isinstance(claims, dict) or claims.keys() != _NAMES:
        _refuse("malformed", "the payload has other claims than a pass")
    if not all(_is_right(name, value) for name, value in claims.items()):
        _refuse("malformed", "a claim cannot be that")
    return Pass(**claims)


def _is_right(name: str, value: Any) -> bool:
    if name in ("issued_at", "expires_at"):
        return type(value) in (int, float) and math.isfinite(value) and 0 <= value < _LATEST
    if name == "bytes":
        return type(value) is int and 0 <= value <= _MOST
    forms = {"node": NODE_NAME, "job": JOB_ID, "snapshot": _DIGEST}
    return isinstance(value, str) and bool(forms.get(name, _TOKEN).fullmatch(value))


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _refuse(code: str, message: str) -> NoReturn:
    raise Refused(message, code=code)
