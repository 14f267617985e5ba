"""Signing and sealing: the door through which every message between control and a node goes.

An order is a compact JWS by control in a JWE to the node's X25519 key; an outcome a JWS by the node in a JWE
to control. Reports and heartbeats are signed only. One algorithm of each kind, by pinned header: with
nothing to negotiate there is nothing to downgrade. Decompression (`zip`) is not known here.

`open_*` raise `Refused` and nothing else, whatever the text. That an order is opened twice is the journal's
business.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn, TypeVar

from app.errors import InvalidInput, NotAllowed, TooLarge
from app.transport import jose, shapes
from app.transport.keys import KeyPair, Public
from app.transport.life import Heartbeat, Report
from app.transport.messages import ORDER_VERSION, OUTCOME_VERSION, Order, Outcome, canonical
from app.transport.segments import Malformed

ORDER_TYPE, OUTCOME_TYPE = "order+jws", "outcome+jws"
REPORT_TYPE, HEARTBEAT_TYPE = "report+jws", "heartbeat+jws"

ORDER_BYTES, OUTCOME_BYTES, REPORT_BYTES = 2_000_000, 1_000_000, 256_000
"""The longest token of each kind. Looked at before anything is parsed."""

CODES = frozenset(
    {
        "malformed",
        "not-sealed-to-us",
        "bad-signature",
        "wrong-type",
        "wrong-node",
        "wrong-epoch",
        "wrong-installation",
        "expired",
        "not-yet-valid",
        "too-large",
        "unknown-version",
    }
)

_LISTS = frozenset({"jobs", "job_ids", "held", "shells"})


class Refused(NotAllowed):
    """A message that is not acted upon. `code` is one of `CODES`; the message is for this side's log only."""


class Signer(NamedTuple):
    """Whose key a `kid` is, as control has it on record. `epoch` None: any will do."""

    node: str
    epoch: str | None
    public: Public


NodeKeys = Callable[[str], "Signer | tuple[str, str | None, Public] | None"]


_Found = TypeVar("_Found", Order, Outcome, Report, Heartbeat)


def seal_order(order: Order, signer: KeyPair, to: Public) -> str:
    """The token that carries `order` to the node whose key is `to`. Raises TooLarge over 2 MB."""
    signed = _sign(order.to_json(), ORDER_TYPE, signer)
    return _bounded(jose.seal(signed, to.seal), ORDER_BYTES, "an order")


def open_order(
    token: str,
    keys: KeyPair,
    control: Sequence[Public],
    *,
    installation: str,
    node: str,
    epoch: str,
    now: float,
    leeway: float = 60.0,
    versions: Sequence[int] = (ORDER_VERSION,),
) -> Order:
    """The order in `token`, if control signed it for this node, journal and hour; else raises Refused.

    `control` holds the keys that may sign (two while they are rotated). `now` is Unix seconds;
    `leeway` seconds is how far the clock of control may be ahead of ours. `versions` are the forms that are read.
    """
    _check_size(token, ORDER_BYTES)
    by_kid = {public.kid: public for public in control}
    payload = _verify(_unseal(token, keys), ORDER_TYPE, by_kid.get)
    data = _load(payload)
    _check_version(data, "order_version", versions)
    order = _read(Order.from_json, data, shapes.order)
    _check_place(order, installation, node, epoch)
    if not order.issued_at - leeway <= now:
        _refuse("not-yet-valid", f"order {order.id} is {order.issued_at - now:.0f} s ahead of our clock")
    if not now < order.expires_at:
        _refuse("expired", f"order {order.id} expired {now - order.expires_at:.0f} s ago")
    return order


def seal_outcome(outcome: Outcome, signer: KeyPair, to: Public) -> str:
    """The token that carries `outcome` to control. Raises TooLarge over 1 MB."""
    signed = _sign(outcome.to_json(), OUTCOME_TYPE, signer)
    return _bounded(jose.seal(signed, to.seal), OUTCOME_BYTES, "an outcome")


def open_outcome(
    token: str, keys: KeyPair, node_keys: NodeKeys, *, installation: str | None = None
) -> Outcome:
    """The outcome in `token`, if the node that it names signed it; else raises Refused.

    `node_keys` gives for a `kid` whose key it is: (node, epoch, Public), or None. Without `installation` the
    outcome's own is believed. Whether the job is that node's is the caller's check.
    """
    _check_size(token, OUTCOME_BYTES)
    payload, signer = _verify_node(_unseal(token, keys), OUTCOME_TYPE, node_keys)
    data = _load(payload)
    _check_version(data, "outcome_version", (OUTCOME_VERSION,))
    outcome = _read(Outcome.from_json, data, shapes.outcome)
    _check_place(outcome, installation, signer.node, signer.epoch)
    return outcome


def sign_report(report: Report, signer: KeyPair) -> str:
    """Signed, not sealed: it holds ids only. Raises TooLarge over 256 kB."""
    return _bounded(_sign(report.to_json(), REPORT_TYPE, signer), REPORT_BYTES, "a report")


def open_report(token: str, node_keys: NodeKeys, *, installation: str | None = None) -> Report:
    """The report in `token`, if the node that it names signed it; else raises Refused."""
    _check_size(token, REPORT_BYTES)
    payload, signer = _verify_node(token.encode(), REPORT_TYPE, node_keys)
    report = _read(Report.from_json, _load(payload), shapes.report)
    _check_place(report, installation, signer.node, signer.epoch)
    return report


def sign_heartbeat(heartbeat: Heartbeat, signer: KeyPair) -> str:
    """Signed, not sealed: it holds ids only. Raises TooLarge over 256 kB."""
    return _bounded(_sign(heartbeat.to_json(), HEARTBEAT_TYPE, signer), REPORT_BYTES, "a heartbeat")


def open_heartbeat(token: str, node_keys: NodeKeys, *, installation: str | None = None) -> Heartbeat:
    """The heartbeat in `token`, if the node that it names signed it; else raises Refused.

    Its epoch is not compared: a heartbeat is how control learns that a node's journal was lost.
    """
    _check_size(token, REPORT_BYTES)
    payload, signer = _verify_node(token.encode(), HEARTBEAT_TYPE, node_keys)
    heartbeat = _read(Heartbeat.from_json, _load(payload), shapes.heartbeat)
    _check_place(heartbeat, installation, signer.node, None)
    return heartbeat


def _sign(claims: dict[str, Any], kind: str, signer: KeyPair) -> bytes:
    return jose.sign(canonical(claims), kind, signer.kid, signer.sign)


def _bounded(token: bytes, limit: int, what: str) -> str:
    if len(token) > limit:
        raise TooLarge(
            f"{what} may be {limit} bytes, this one is {len(token)}",
            hint="pass large data in a file or a workspace",
        )
    return token.decode("ascii")


def _check_size(token: object, limit: int) -> None:
    if not isinstance(token, str):
        _refuse("malformed", f"a token must be text, not {type(token).__name__}")
    if len(token) > limit:
        _refuse("too-large", f"a token of {len(token)} characters, {limit} are allowed")
    if not token.isascii():
        _refuse("malformed", "a token holds ASCII only")


def _unseal(token: str, keys: KeyPair) -> bytes:
    """The plaintext of a JWE to `keys`."""
    try:
        return jose.open_sealed(token.encode(), keys.seal)
    except Malformed as error:
        _refuse("malformed", f"no JWE: {error}")
    except jose.Unopened as error:
        _refuse("not-sealed-to-us", f"the JWE does not open: {error}")


def _verify(token: bytes, kind: str, lookup: Callable[[str], Public | None]) -> bytes:
    """The payload of a JWS of type `kind` by a key that `lookup` knows."""
    try:
        signed = jose.read_signed(token)
        if signed.typ != kind:
            _refuse("wrong-type", f"{signed.typ!r} where {kind!r} is wanted")
        public = lookup(signed.kid)
        if public is None or public.kid != signed.kid:
            _refuse("bad-signature", f"no key {signed.kid[:64]!r} may sign this")
        signed.verify(public.sign)
    except Malformed as error:
        _refuse("malformed", f"no JWS: {error}")
    except jose.Unproven as error:
        _refuse("bad-signature", str(error))
    return signed.payload


def _verify_node(signed: bytes, kind: str, node_keys: NodeKeys) -> tuple[bytes, Signer]:
    known: list[Signer] = []

    def lookup(kid: str) -> Public | None:
        found = node_keys(kid)
        if found is None:
            return None
        known.append(Signer(*found))
        return known[0].public

    return _verify(signed, kind, lookup), known[0]


def _load(payload: bytes) -> dict[str, Any]:
    try:
        data = _JSON.decode(payload.decode())
    except (ValueError, RecursionError) as error:
        _refuse("malformed", f"the payload is no JSON: {error}")
    if not isinstance(data, dict):
        _refuse("malformed", "the payload is no JSON object")
    return data


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


_JSON = json.JSONDecoder(parse_constant=_no_constant)


def _check_version(data: dict[str, Any], name: str, known: Sequence[int]) -> None:
    found = data.get(name)
    if type(found) is not int or found not in known:
        only = " and ".join(map(str, known))
        _refuse("unknown-version", f"{name} {str(found)[:80]!r} is not known here, only {only}")


def _read(
    from_json: Callable[[Any], _Found], data: dict[str, Any], check: Callable[[_Found], None]
) -> _Found:
    for name in _LISTS & set(data):
        if not isinstance(data[name], list):
            _refuse("malformed", f"{name} must be a list")
    try:
        message = from_json(data)
        check(message)
    except InvalidInput as error:
        _refuse("malformed", error.message)
    except (TypeError, ValueError, KeyError, AttributeError, RecursionError) as error:
        _refuse("malformed", f"a field has the wrong type: {error}")
    return message


def _check_place(
    message: Order | Outcome | Report | Heartbeat, installation: str | None, node: str, epoch: str | None
) -> None:
    if installation is not None and message.installation != installation:
        _refuse("wrong-installation", f"it is of installation {message.installation[:64]!r}")
    if message.node != node:
        _refuse("wrong-node", f"it names node {message.node[:64]!r}, not {node!r}")
    if epoch is not None and message.epoch != epoch:
        _refuse("wrong-epoch", f"it is of journal epoch {message.epoch[:64]!r}, not {epoch!r}")


def _refuse(code: str, message: str) -> NoReturn:
    raise Refused(message, code=code)
