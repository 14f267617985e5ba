"""Passes that were altered, forged, misdirected or are stale: not one opens, and nothing but Refused is raised."""

from __future__ import annotations

import base64
import hmac
import json
import random
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

import oracle
import pytest

from app.transport import jose, sealing
from app.transport.keys import KeyPair
from app.transport.life import Heartbeat
from app.transport.messages import canonical
from app.transport.passes import PASS_BYTES, PASS_TYPE, Pass, open_pass, sign_pass
from app.transport.sealing import Refused

NOW = 1_800_000_000.0
CONTROL, OLDER, NODE, STRANGER = (KeyPair.generate() for _ in range(4))
PASS = Pass("inst", "web-1", "e1", "e1.build.0.1", "a" * 64, 1_000_000, NOW, NOW + 900)
TOKEN = sign_pass(PASS, CONTROL)
CLAIMS = asdict(PASS)


def opened(token: Any, **changed: Any) -> Pass:
    place: dict[str, Any] = {"installation": "inst", "now": NOW + 1, **changed}
    return open_pass(token, [CONTROL.public_keys, OLDER.public_keys], **place)


def signed(claims: Any, signer: KeyPair = CONTROL, **header: Any) -> str:
    protected = {"alg": "Ed25519", "typ": PASS_TYPE, "kid": signer.kid, **header}
    payload = claims if isinstance(claims, bytes) else canonical(claims)
    return oracle.sign(payload, protected, signer.sign)


def codes(tokens: Iterator[Any]) -> list[str]:
    found = []
    for token in tokens:
        with pytest.raises(Refused) as refused:
            opened(token)
        assert refused.value.code in sealing.CODES
        found.append(refused.value.code)
    return found


def test_a_pass_comes_out_as_it_went_in() -> None:
    assert opened(TOKEN) == opened(signed(CLAIMS)) == PASS
    bare = replace(PASS, snapshot="", bytes=0)
    assert opened(sign_pass(bare, OLDER)) == bare


def test_every_character_counts() -> None:
    chance = random.Random(1)

    def flipped() -> Iterator[str]:
        for at in range(len(TOKEN)):
            other = chance.choice([one for one in "AZaz09-_." if one != TOKEN[at]])
            yield TOKEN[:at] + other + TOKEN[at + 1 :]
            yield TOKEN[:at] + chr(ord(TOKEN[at]) ^ 1) + TOKEN[at + 1 :]
            yield TOKEN[:at]
            yield TOKEN[:at] + TOKEN[at + 1 :]

    assert len(codes(flipped())) > 1000


def test_every_claim_altered_and_signed_by_somebody_else() -> None:
    def altered() -> Iterator[str]:
        for field in CLAIMS:
            for value in (None, 1, -1, "x", [], {}, "web-2", True, 1e15, "b" * 64):
                for forger in (STRANGER, NODE):
                    yield signed({**CLAIMS, field: value}, forger)
                    yield signed({**CLAIMS, field: value}, forger, kid=CONTROL.kid)

    assert set(codes(altered())) == {"bad-signature"}


def test_a_right_signature_over_nonsense_is_refused() -> None:
    nonsense: list[Any] = [None, [], {}, "x", 1, b"", b"{", b"\xff", b'{"a":NaN}', b"[" * 2000]
    nonsense += [{**CLAIMS, "extra": 1}, b'{"bytes":' + b"9" * 2500 + b"}"]
    nonsense += [{name: CLAIMS[name] for name in CLAIMS if name != field} for field in CLAIMS]
    wrong = [{}, [1], None, True, "a\nb", "x" * 500, "é", "../..", -1, 1.5, 1e300, 2**64, "A" * 64, "a" * 63]
    nonsense += [
        {**CLAIMS, field: value}
        for field in CLAIMS
        for value in wrong
        if not (field.endswith("_at") and value == 1.5)
        and not (field in LOOSE and isinstance(value, str) and value in ("A" * 64, "a" * 63))
    ]
    assert set(codes(signed(each) for each in nonsense)) == {"malformed"}


LOOSE = {"installation", "execution", "job", "node"}
"""Claims in which some of the wrong values are right; a node's name has no capitals."""


def test_headers_are_pinned() -> None:
    payload = canonical(CLAIMS)
    right = {"alg": "Ed25519", "typ": PASS_TYPE, "kid": CONTROL.kid}

    def b64(data: Any) -> str:
        raw = data if isinstance(data, bytes) else json.dumps(data).encode()
        return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()

    def headers() -> Iterator[str]:
        for alg in ("none", "None", "", None, 0, "EdDSA", "ed25519", "HS256", "ES256"):
            for signature in ("", "AAAA", TOKEN.rsplit(".", 1)[1]):
                yield f"{b64({**right, 'alg': alg})}.{b64(payload)}.{signature}"
        text = f"{b64({**right, 'alg': 'HS256'})}.{b64(payload)}"
        for secret in (CONTROL.public()["sign"]["x"].encode(), canonical(CONTROL.public()), b""):
            yield f"{text}.{b64(hmac.digest(secret, text.encode(), 'sha256'))}"
        for kid in ("", STRANGER.kid, NODE.kid, OLDER.kid, "x" * 300):
            yield signed(payload, kid=kid)
        for extra in ({"crit": ["exp"]}, {"b64": False}, {"jwk": STRANGER.public()["sign"]}):
            yield f"{b64({**right, **extra})}.{b64(payload)}.AAAA"
        twice = json.dumps(right)[:-1] + f', "typ": "{PASS_TYPE}"}}'
        yield f"{b64(twice.encode())}.{b64(payload)}.AAAA"

    assert len(codes(headers())) > 30


def test_no_other_kind_is_taken_for_a_pass_nor_a_pass_for_another() -> None:
    kinds = ["JWT", "jws", "pass+JWS", "", sealing.ORDER_TYPE, sealing.OUTCOME_TYPE, sealing.REPORT_TYPE]
    assert set(codes(signed(CLAIMS, typ=kind) for kind in kinds)) == {"wrong-type"}
    heartbeat = Heartbeat("inst", "web-1", "ep1", 7, NOW, (), 4, 3, ("sh",), {}, NOW)
    assert codes(iter([sealing.sign_heartbeat(heartbeat, CONTROL)])) == ["wrong-type"]
    for other in (sealing.open_report, sealing.open_heartbeat):
        with pytest.raises(Refused):
            other(TOKEN, lambda kid: sealing.Signer("web-1", None, CONTROL.public_keys))


PLACES: list[tuple[str, dict[str, Any], str]] = [
    ("another installation", {"installation": "inst2"}, "wrong-installation"),
    ("expired this moment", {"now": NOW + 900}, "expired"),
    ("expired long ago", {"now": NOW + 9e6}, "expired"),
    ("early", {"now": NOW - 61}, "not-yet-valid"),
    ("no clock", {"now": float("nan")}, "not-yet-valid"),
]


@pytest.mark.parametrize(("why", "place", "code"), PLACES, ids=[one[0] for one in PLACES])
def test_a_genuine_pass_in_the_wrong_place(why: str, place: dict[str, Any], code: str) -> None:
    with pytest.raises(Refused) as refused:
        opened(TOKEN, **place)
    assert refused.value.code == code, why


def test_a_pass_is_good_within_the_leeway_and_to_its_last_moment() -> None:
    assert opened(TOKEN, now=NOW - 59) == opened(TOKEN, now=NOW + 899.9) == PASS


def test_only_the_keys_of_control_sign() -> None:
    with pytest.raises(Refused) as refused:
        open_pass(TOKEN, [OLDER.public_keys], installation="inst", now=NOW)
    assert refused.value.code == "bad-signature"
    with pytest.raises(Refused):
        open_pass(TOKEN, [], installation="inst", now=NOW)


@pytest.mark.parametrize("junk", [None, 1, b"a.b.c", [], {}, "", ".", "..", "a.b.c", "\0", "é" * 9, "\ud800"])
def test_junk_is_refused(junk: Any) -> None:
    assert codes(iter([junk])) == ["malformed"]


def test_long_tokens_are_refused_before_they_are_read() -> None:
    assert codes(iter(["A" * (PASS_BYTES + 1)])) == ["too-large"]
    assert (
        len(sign_pass(replace(PASS, job="j" * 200, node="n" * 63, execution="e" * 26), CONTROL)) < PASS_BYTES
    )
    assert jose.read_signed(TOKEN.encode()).typ == PASS_TYPE
