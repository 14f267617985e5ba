"""Altered, misdirected, stale and forged messages: not one is accepted, and nothing but Refused is raised."""

from __future__ import annotations

import base64
import hmac
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import oracle
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from app.errors import TooLarge
from app.transport import deploy, sealing
from app.transport.deploy import File
from app.transport.keys import KeyPair
from app.transport.life import Heartbeat, Report
from app.transport.messages import Job, Order, Outcome, canonical
from app.transport.sealing import Refused, Signer

NOW = 1_800_000_000.0
CONTROL, NODE, OTHER, STRANGER = (KeyPair.generate() for _ in range(4))
JOB = Job(
    "e1.build.0.1", "e1", "build", 0, 1, "core.shell", *deploy.of_script("sh", "echo hi", 5.0), env={"A": "b"}
)
ORDER = Order("o1", "inst", "web-1", "ep1", "run", NOW, NOW + 300, jobs=(JOB,))
CANCEL = Order("o2", "inst", "web-1", "ep1", "cancel", NOW, NOW + 300, job_ids=(JOB.id,))
OUTCOME = Outcome(
    JOB.id, JOB.digest, "inst", "web-1", "ep1", "succeeded", 0, started_at=NOW, ended_at=NOW + 1
)
REPORT = Report("inst", "web-1", "ep1", NOW, ((JOB.id, "running", NOW),))
HEARTBEAT = Heartbeat("inst", "web-1", "ep1", 7, NOW, (JOB.id,), 4, 3, ("sh", "bash"), {"muster": "0.1"}, NOW)


def node_keys(kid: str) -> Signer | None:
    known = {NODE.kid: ("web-1", NODE), OTHER.kid: ("web-2", OTHER)}
    if kid not in known:
        return None
    name, pair = known[kid]
    return Signer(name, "ep1", pair.public_keys)


def open_order(token: str, **changed: Any) -> Order:
    place: dict[str, Any] = {
        "installation": "inst",
        "node": "web-1",
        "epoch": "ep1",
        "now": NOW + 1,
        **changed,
    }
    return sealing.open_order(token, place.pop("keys", NODE), [CONTROL.public_keys], **place)


def open_outcome(token: str) -> Outcome:
    return sealing.open_outcome(token, CONTROL, node_keys, installation="inst")


def open_report(token: str) -> Report:
    return sealing.open_report(token, node_keys, installation="inst")


def open_heartbeat(token: str) -> Heartbeat:
    return sealing.open_heartbeat(token, node_keys, installation="inst")


GOOD: dict[str, tuple[str, Callable[[str], Any], Any, KeyPair, KeyPair | None]] = {
    "order": (sealing.seal_order(ORDER, CONTROL, NODE.public_keys), open_order, ORDER, CONTROL, NODE),
    "cancel": (sealing.seal_order(CANCEL, CONTROL, NODE.public_keys), open_order, CANCEL, CONTROL, NODE),
    "outcome": (
        sealing.seal_outcome(OUTCOME, NODE, CONTROL.public_keys),
        open_outcome,
        OUTCOME,
        NODE,
        CONTROL,
    ),
    "report": (sealing.sign_report(REPORT, NODE), open_report, REPORT, NODE, None),
    "heartbeat": (sealing.sign_heartbeat(HEARTBEAT, NODE), open_heartbeat, HEARTBEAT, NODE, None),
}
TYPES = {"order": "order+jws", "cancel": "order+jws", "outcome": "outcome+jws"}
TYPES |= {"report": "report+jws", "heartbeat": "heartbeat+jws"}


def signed(claims: Any, kind: str, signer: KeyPair, **header: Any) -> str:
    protected = {"alg": "Ed25519", "typ": kind, "kid": signer.kid, **header}
    payload = claims if isinstance(claims, bytes) else canonical(claims)
    return oracle.sign(payload, protected, signer.sign)


def sealed(text: str, to: KeyPair | None, **header: Any) -> str:
    if to is None:
        return text
    protected = {"alg": "ECDH-ES", "enc": "A256GCM", **header}
    return oracle.seal(text, protected, to.seal)


def b64(data: Any) -> str:
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def codes(tokens: Iterator[str], opened: Callable[[str], Any]) -> list[str]:
    """The code of each refusal; an accepted token is the failure this file is about."""
    found = []
    for token in tokens:
        with pytest.raises(Refused) as refused:
            opened(token)
        assert refused.value.code in sealing.CODES
        found.append(refused.value.code)
    return found


@pytest.mark.parametrize("name", GOOD)
def test_a_good_message_comes_out_as_it_went_in(name: str) -> None:
    token, opened, message, *_ = GOOD[name]
    assert opened(token) == message


@pytest.mark.parametrize("name", GOOD)
def test_every_character_of_a_token_counts(name: str) -> None:
    token, opened, *_ = GOOD[name]
    chance = random.Random(name)
    step = max(1, len(token) // 250)
    places = [*range(0, len(token), step), *range(len(token) - 12, len(token))]

    def flipped() -> Iterator[str]:
        for at in places:
            other = chance.choice([c for c in "AZaz09-_." if c != token[at]])
            yield token[:at] + other + token[at + 1 :]
            yield token[:at] + chr(ord(token[at]) ^ 1) + token[at + 1 :]

    assert len(codes(flipped(), opened)) >= 250


@pytest.mark.parametrize("name", GOOD)
def test_a_cut_or_padded_token_is_refused(name: str) -> None:
    token, opened, *_ = GOOD[name]
    cuts = (token[:at] for at in range(0, len(token), max(1, len(token) // 100)))
    codes(cuts, opened)
    padded = [token + end for end in ("=", "A", ".", "\n", " ", "\0", "é", "\ud800")] + [
        " " + token,
        token * 2,
    ]
    assert set(codes(iter(padded), opened)) <= {"malformed", "bad-signature", "not-sealed-to-us"}


@pytest.mark.parametrize("name", GOOD)
def test_every_claim_altered_and_signed_by_somebody_else(name: str) -> None:
    _, opened, message, signer, to = GOOD[name]
    claims = message.to_json()

    def altered() -> Iterator[str]:
        for field in claims:
            for value in (None, 1, -1, "x", [], {}, "web-2", True, 1e400, [[]], {"a": 1}):
                for forger in (STRANGER, OTHER if signer is CONTROL else CONTROL):
                    changed = {**claims, field: value}
                    yield sealed(signed(changed, TYPES[name], forger), to)
                    # Signed by the forger under the right signer's name.
                    yield sealed(signed(changed, TYPES[name], forger, kid=signer.kid), to)

    assert set(codes(altered(), opened)) == {"bad-signature"}


@pytest.mark.parametrize("name", GOOD)
def test_a_right_signature_over_nonsense_is_refused(name: str) -> None:
    _, opened, message, signer, to = GOOD[name]
    claims = message.to_json()
    nonsense: list[Any] = [None, [], {}, "x", 1, b"", b"{", b"\xff", b'{"a":NaN}', b"[" * 100_000]
    nonsense += [b'{"a":' + b"9" * 5000 + b"}", {**claims, "extra": 1}]
    nonsense += [{key: claims[key] for key in claims if key != field} for field in ("node", "epoch")]
    wrong: list[Any] = [{}, [1], "", "a\nb", "x" * 5000, -1, 1e300, {"a": []}]
    nonsense += [
        {**claims, field: value}
        for field in claims
        for value in wrong
        if not (claims[field] == value or (field in LOOSE and type(value) is LOOSE[field]))
    ]
    assert len(codes((sealed(signed(each, TYPES[name], signer), to) for each in nonsense), opened)) > 50


LOOSE = {"output": dict, "versions": dict, "exit_code": int, "signal": int, "stdout": dict, "stderr": dict}
"""Fields in which one of the wrong values above is right."""


@pytest.mark.parametrize("name", GOOD)
def test_headers_are_pinned(name: str) -> None:
    token, opened, message, signer, to = GOOD[name]
    payload = canonical(message.to_json())
    right = {"alg": "Ed25519", "typ": TYPES[name], "kid": signer.kid}
    x = signer.public()["sign"]["x"]
    pem = signer.sign.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def headers() -> Iterator[str]:
        for alg in ("none", "None", "NONE", "", None, 0, "EdDSA", "ed25519", "HS256", "RS256", "ES256"):
            for signature in ("", "AAAA", token.rsplit(".", 1)[1]):
                yield sealed(f"{b64({**right, 'alg': alg})}.{b64(payload)}.{signature}", to)
        for secret in (x.encode(), pem, canonical(signer.public()), b""):
            text = f"{b64({**right, 'alg': 'HS256'})}.{b64(payload)}"
            yield sealed(f"{text}.{b64(hmac.digest(secret, text.encode(), 'sha256'))}", to)
        text = f"{b64({**right, 'alg': 'EdDSA'})}.{b64(payload)}"
        yield sealed(f"{text}.{b64(signer.sign.sign(text.encode()))}", to)
        for typ in ("JWT", "jws", "order+JWS", "", *set(TYPES.values()) - {TYPES[name]}):
            yield sealed(signed(payload, typ, signer), to)
        for kid in ("", STRANGER.kid, CONTROL.kid, OTHER.kid, "x" * 300):
            if kid != signer.kid:
                yield sealed(signed(payload, TYPES[name], signer, kid=kid), to)
        for extra in (
            {"crit": ["exp"]},
            {"b64": False},
            {"jwk": STRANGER.public()["sign"]},
            {"x5u": "http://a"},
        ):
            yield sealed(f"{b64({**right, **extra})}.{b64(payload)}.AAAA", to)
        yield sealed(b64(payload), to)
        yield sealed(payload.decode(), to)
        yield sealed(f"{b64(right)}.{b64(payload)}", to)
        twice = json.dumps(right)[:-1] + ', "typ": "' + TYPES[name] + '"}'
        yield sealed(f"{b64(twice.encode())}.{b64(payload)}.AAAA", to)

    assert len(codes(headers(), opened)) > 50


@pytest.mark.parametrize("name", ["order", "cancel", "outcome"])
def test_the_seal_is_pinned_and_to_us_only(name: str) -> None:
    _, opened, message, signer, to = GOOD[name]
    assert to is not None
    inner = signed(message.to_json(), TYPES[name], signer)
    wrong = [
        sealed(inner, STRANGER),
        sealed(inner, signer),
        inner,
        sealed(inner, to, enc="A128GCM"),
        sealed(inner, to, enc="A128CBC-HS256"),
        sealed(inner, to, alg="ECDH-ES+A128KW"),
        sealed(inner, to, zip="DEF"),
        sealed(inner, to, kid=to.kid),
        sealed(sealed(inner, to), to),
        sealed("", to),
        ".".join([b64({"alg": "dir", "enc": "A256GCM"}), "", "AAAA", "AAAA", "AAAA"]),
        "....",
    ]
    assert set(codes(iter(wrong), opened)) <= {"malformed", "not-sealed-to-us", "bad-signature"}


ORDER_CASES: list[tuple[str, Order, dict[str, Any], str]] = [
    ("another node", replace(ORDER, node="web-2"), {}, "wrong-node"),
    ("opened on another node", ORDER, {"node": "web-2"}, "wrong-node"),
    ("another installation", replace(ORDER, installation="inst2"), {}, "wrong-installation"),
    ("another epoch", replace(ORDER, epoch="ep0"), {}, "wrong-epoch"),
    ("opened with a new journal", ORDER, {"epoch": "ep2"}, "wrong-epoch"),
    ("expired this moment", ORDER, {"now": NOW + 300}, "expired"),
    ("expired long ago", ORDER, {"now": NOW + 9e6}, "expired"),
    ("early", ORDER, {"now": NOW - 61}, "not-yet-valid"),
    ("early without leeway", ORDER, {"now": NOW - 1, "leeway": 0.0}, "not-yet-valid"),
    ("another version", replace(ORDER, order_version=3), {}, "unknown-version"),
    ("version true", replace(ORDER, order_version=True), {}, "unknown-version"),
    ("sealed to another", ORDER, {"keys": OTHER}, "not-sealed-to-us"),
    ("no clock", ORDER, {"now": float("nan")}, "not-yet-valid"),
]


@pytest.mark.parametrize(
    ("why", "order", "place", "code"), ORDER_CASES, ids=[case[0] for case in ORDER_CASES]
)
def test_a_genuine_order_in_the_wrong_place(why: str, order: Order, place: dict[str, Any], code: str) -> None:
    with pytest.raises(Refused) as refused:
        open_order(sealing.seal_order(order, CONTROL, NODE.public_keys), **place)
    assert refused.value.code == code, why


def test_an_order_is_valid_within_the_leeway_and_to_its_last_moment() -> None:
    token = GOOD["order"][0]
    assert open_order(token, now=NOW - 59) == open_order(token, now=NOW + 299.9) == ORDER


def test_no_node_signs_orders_and_no_node_speaks_for_another() -> None:
    for forger in (NODE, OTHER):
        with pytest.raises(Refused, match="may sign"):
            open_order(sealing.seal_order(ORDER, forger, NODE.public_keys))
    for token, opened in (
        (sealing.seal_outcome(OUTCOME, OTHER, CONTROL.public_keys), open_outcome),
        (sealing.sign_report(REPORT, OTHER), open_report),
        (sealing.sign_heartbeat(HEARTBEAT, OTHER), open_heartbeat),
    ):
        assert codes(iter([token]), opened) == ["wrong-node"]


def test_an_old_epoch_is_refused_but_a_heartbeat_may_bring_a_new_one() -> None:
    old = sealing.seal_outcome(replace(OUTCOME, epoch="ep0"), NODE, CONTROL.public_keys)
    assert codes(iter([old]), open_outcome) == ["wrong-epoch"]
    assert codes(iter([sealing.sign_report(replace(REPORT, epoch="ep0"), NODE)]), open_report) == [
        "wrong-epoch"
    ]
    fresh = replace(HEARTBEAT, epoch="ep2")
    assert open_heartbeat(sealing.sign_heartbeat(fresh, NODE)) == fresh


def test_one_kind_is_not_taken_for_another() -> None:
    for name, (_, opened, *_) in GOOD.items():
        for other, (token, *_) in GOOD.items():
            if TYPES[name] != TYPES[other]:
                codes(iter([token]), opened)
    # Even where an outcome was, by mistake, sealed to a node that trusts its signer.
    swapped = sealed(signed(ORDER.to_json(), "outcome+jws", CONTROL), NODE)
    assert codes(iter([swapped]), open_order) == ["wrong-type"]


def test_sizes_are_bounded_on_both_sides() -> None:
    huge = replace(ORDER, jobs=(replace(JOB, files=(File("script", "x" * 1_600_000),)),))
    with pytest.raises(TooLarge):
        sealing.seal_order(huge, CONTROL, NODE.public_keys)
    with pytest.raises(TooLarge):
        sealing.seal_outcome(replace(OUTCOME, output={"a": "x" * 800_000}), NODE, CONTROL.public_keys)
    for opened, limit in (
        (open_order, 2_000_000),
        (open_outcome, 1_000_000),
        (open_report, 256_000),
        (open_heartbeat, 256_000),
    ):
        assert codes(iter(["A" * (limit + 1)]), opened) == ["too-large"]
        codes(iter(["A" * limit, "." * limit, '{"a":' * (limit // 5)]), opened)
    large = replace(ORDER, jobs=(replace(JOB, files=(File("script", "x" * 900_000),)),))
    assert open_order(sealing.seal_order(large, CONTROL, NODE.public_keys)) == large


@pytest.mark.parametrize(
    "junk", [None, 1, b"a.b.c", [], {}, "", ".", "..", "....", "a.b.c.d.e", "\0", "é" * 9]
)
def test_junk_is_refused(junk: Any) -> None:
    for opened in (open_order, open_outcome, open_report, open_heartbeat):
        assert codes(iter([junk]), opened) == ["malformed"]
