"""Our JWS and JWE against the vectors of the RFCs, another implementation, old tokens, and what an enemy can build."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import oracle
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import assume, example, given
from hypothesis import strategies as st

from app.transport import jose, sealing
from app.transport.keys import KeyPair, check_proof
from app.transport.messages import READABLE_VERSIONS, Order, Outcome
from app.transport.segments import Malformed, decode, encode

PAIR = KeyPair.generate()
OLD = json.loads((Path(__file__).parents[1] / "cases/transport/tokens.json").read_text())


def rfc_key(secret: bytes, enc: bytes, apu: bytes, apv: bytes, bits: int) -> bytes:
    """RFC 7518, 4.6.2, for keys of one round of SHA-256, from the text and nothing else."""
    info = b"".join(len(part).to_bytes(4, "big") + part for part in (enc, apu, apv)) + bits.to_bytes(4, "big")
    return hashlib.sha256(b"\0\0\0\1" + secret + info).digest()[: bits // 8]


def test_rfc_8037_a1_to_a4_ed25519() -> None:
    private = Ed25519PrivateKey.from_private_bytes(decode(b"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"))
    pair = KeyPair(private, PAIR.seal)
    assert pair.public()["sign"]["x"] == "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
    assert pair.kid == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
    covered = encode(b'{"alg":"EdDSA"}') + b"." + encode(b"Example of Ed25519 signing")
    assert covered == b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc"
    text = b"hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
    assert encode(private.sign(covered)) == text
    jose.Signed("", "", b"", covered, decode(text)).verify(private.public_key())
    # The RFC's own token is not for us: it names no type and no key, and its `alg` may mean another curve.
    with pytest.raises(Malformed):
        jose.read_signed(covered + b"." + text)


def test_rfc_8037_a6_x25519() -> None:
    ephemeral = X25519PrivateKey.from_private_bytes(decode(b"dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo"))
    assert encode(ephemeral.public_key().public_bytes_raw()) == b"hSDwCYkwp1R0i33ctD73Wg2_Og0mOBr066SpjqqbTmo"
    bob = X25519PublicKey.from_public_bytes(decode(b"3p7bfXt9wbTTW2HC7OQ1Nz-DQ8hbeGdNrfx-FG-IK08"))
    secret = ephemeral.exchange(bob)
    assert secret.hex() == "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"
    assert jose.derive(secret) == rfc_key(secret, b"A256GCM", b"", b"", 256)


@given(st.binary(min_size=32, max_size=32))
def test_rfc_7518_appendix_c_concat_kdf(secret: bytes) -> None:
    published = bytes.fromhex("9e56d91d817135d372834283bf84269cfb316ea3da806a48f6daa7798cfe90c4")
    assert encode(rfc_key(published, b"A128GCM", b"Alice", b"Bob", 128)) == b"VqqN6vgjbSBcIijNcacQGg"
    assert jose.derive(secret) == rfc_key(secret, b"A256GCM", b"", b"", 256)


@given(st.binary(max_size=3000))
@example(b"")
@example(os.urandom(100_000))
def test_what_we_write_another_reads_and_the_other_way_round(payload: bytes) -> None:
    header = {"alg": "Ed25519", "typ": "order+jws", "kid": PAIR.kid}
    token = jose.sign(payload, "order+jws", PAIR.kid, PAIR.sign)
    assert oracle.verify(token, PAIR.sign) == (header, payload)
    # Ed25519 has no chance in it: both write the same bytes.
    assert oracle.sign(payload, header, PAIR.sign).encode() == token
    found = jose.read_signed(token)
    found.verify(PAIR.public_keys.sign)
    assert (found.typ, found.kid, found.payload) == ("order+jws", PAIR.kid, payload)
    sealed = jose.seal(payload, PAIR.public_keys.seal)
    assert oracle.open_sealed(sealed, PAIR.seal) == payload == jose.open_sealed(sealed, PAIR.seal)
    theirs = oracle.seal(payload, {"alg": "ECDH-ES", "enc": "A256GCM"}, PAIR.seal)
    assert jose.open_sealed(theirs.encode(), PAIR.seal) == payload


def test_no_ephemeral_key_and_no_nonce_is_used_twice() -> None:
    tokens = [jose.seal(b"the same", PAIR.public_keys.seal).split(b".") for _ in range(200)]
    for segment in (0, 2, 3, 4):
        assert len({token[segment] for token in tokens}) == 200


def test_keys_and_tokens_of_the_version_before_are_read(tmp_path: Path) -> None:
    pairs = []
    for side in ("control", "node"):
        path = tmp_path / side
        path.write_text(OLD[f"{side}_file"])
        path.chmod(0o600)
        pairs.append(KeyPair.load(path))
        pairs[-1].save(tmp_path / "again")
        assert (tmp_path / "again").read_text() == OLD[f"{side}_file"]
        (tmp_path / "again").unlink()
    control, node = pairs
    assert [control.kid, node.kid] == [OLD["control_kid"], OLD["node_kid"]]
    assert node.public_keys.fingerprint == OLD["node_fingerprint"]
    place: dict[str, Any] = {"installation": "inst", "node": "web-1", "epoch": "ep1", "now": 1.8e9}
    with pytest.raises(sealing.Refused, match="order_version"):
        sealing.open_order(OLD["order"], node, [control.public_keys], **place)
    # As a node reads its own journal after an upgrade.
    place["versions"] = READABLE_VERSIONS
    order = sealing.open_order(OLD["order"], node, [control.public_keys], **place)
    assert order == Order.from_json(OLD["order_is"])
    assert [job.digest for job in order.jobs] == OLD["order_is"]["digests"]
    signer = sealing.Signer("web-1", "ep1", node.public_keys)
    outcome = sealing.open_outcome(OLD["outcome"], control, {node.kid: signer}.get)
    assert outcome == Outcome.from_json(OLD["outcome_is"])
    assert sealing.open_report(OLD["report"], {node.kid: signer}.get).sent_at == 1.8e9
    asked: dict[str, Any] = {"installation": "inst", "token": "secret", "node": "web-1", "now": 1.8e9}
    assert check_proof(OLD["proof"], **asked) == node.public_keys


@given(st.binary(max_size=200))
def test_bytes_have_one_spelling(value: bytes) -> None:
    segment = encode(value)
    assert segment == base64.urlsafe_b64encode(value).rstrip(b"=")
    assert decode(segment) == value


def test_every_short_segment_is_read_only_in_its_one_spelling() -> None:
    first = [b"", *(bytes([char]) for char in range(256))]
    right = {encode(value): value for value in [*first, *(a + b for a in first[1:] for b in first[1:])]}
    for start in (*first, b"A", b"AA", b"AAA", b"AAAA"):
        for end in first:
            segment = start + end
            try:
                value = decode(segment)
            except Malformed:
                assert segment not in right
            else:
                assert encode(value) == segment


@given(st.text("AQgw-_", max_size=12).map(str.encode))
def test_a_segment_read_is_written_the_same(segment: bytes) -> None:
    try:
        assert encode(decode(segment)) == segment
    except Malformed:
        assume(False)


def forged(
    header: bytes | None = None,
    iv: int = 12,
    tag: int = 16,
    wrapped: bytes = b"",
    encoding: str = "utf-8",
    **epk: Any,
) -> bytes:
    """A JWE to PAIR that whoever knows the public key can make: right but for what is asked to be wrong."""
    ephemeral = X25519PrivateKey.generate()
    x = oracle.b64(ephemeral.public_key().public_bytes_raw())
    whole = {"alg": "ECDH-ES", "enc": "A256GCM", "epk": {"kty": "OKP", "crv": "X25519", "x": x, **epk}}
    text = json.dumps(whole).encode(encoding) if header is None else header.replace(b'"X"', f'"{x}"'.encode())
    key = jose.derive(ephemeral.exchange(PAIR.public_keys.seal))
    return with_key(key, encode(text), iv, tag, wrapped)


def with_key(key: bytes, protected: bytes, iv: int = 12, tag: int = 16, wrapped: bytes = b"") -> bytes:
    nonce = os.urandom(iv)
    sealed = AESGCM(key).encrypt(nonce if iv >= 8 else bytes(12), b"text", protected)
    # A boundary in another place leaves ciphertext and tag the same bytes one after the other.
    body, end = sealed[: len(sealed) - tag], sealed[len(sealed) - tag :]
    return b".".join(
        encode(part) if part is not protected else part for part in (protected, wrapped, nonce, body, end)
    )


EPK = b'"epk":{"kty":"OKP","crv":"X25519","x":"X"}'
HOSTILE_SEALS: dict[str, tuple[Callable[[], bytes], type[Exception]]] = {
    "nonce of 8": (lambda: forged(iv=8), jose.Unopened),
    "nonce of 16": (lambda: forged(iv=16), jose.Unopened),
    "no nonce": (lambda: forged(iv=0), jose.Unopened),
    "tag of 15": (lambda: forged(tag=15), jose.Unopened),
    "tag of 4": (lambda: forged(tag=4), jose.Unopened),
    "no tag": (lambda: forged(tag=0), jose.Unopened),
    "tag of 17": (lambda: forged(tag=17), jose.Unopened),
    "an encrypted key": (lambda: forged(wrapped=b"\0"), jose.Unopened),
    "x of 31": (lambda: forged(x=oracle.b64(bytes(31))), jose.Unopened),
    "x of 33": (lambda: forged(x=oracle.b64(bytes(33))), jose.Unopened),
    "x empty": (lambda: forged(x=""), jose.Unopened),
    "x a number": (lambda: forged(x=5), jose.Unopened),
    "x half a pair": (lambda: forged(x="\ud800"), jose.Unopened),
    "x padded": (lambda: forged(x=oracle.b64(bytes(32)) + "="), jose.Unopened),
    "epk with d": (lambda: forged(d="AAAA"), Malformed),
    "epk of X448": (lambda: forged(crv="X448"), Malformed),
    "epk of EC": (lambda: forged(kty="EC"), Malformed),
    "zip": (lambda: forged(b'{"alg":"ECDH-ES","enc":"A256GCM","zip":"DEF",' + EPK + b"}"), Malformed),
    "crit": (lambda: forged(b'{"alg":"ECDH-ES","enc":"A256GCM","crit":["exp"],' + EPK + b"}"), Malformed),
    "apu": (lambda: forged(b'{"alg":"ECDH-ES","enc":"A256GCM","apu":"",' + EPK + b"}"), Malformed),
    "kid": (lambda: forged(b'{"alg":"ECDH-ES","enc":"A256GCM","kid":"a",' + EPK + b"}"), Malformed),
    "A128GCM": (lambda: forged(b'{"alg":"ECDH-ES","enc":"A128GCM",' + EPK + b"}"), Malformed),
    "enc twice": (
        lambda: forged(b'{"enc":"A256GCM","alg":"ECDH-ES","enc":"A256GCM",' + EPK + b"}"),
        Malformed,
    ),
    "x twice": (lambda: forged(b'{"alg":"ECDH-ES","enc":"A256GCM",' + EPK[:-1] + b',"x":"X"}}'), Malformed),
    "no epk": (lambda: forged(b'{"alg":"ECDH-ES","enc":"A256GCM"}'), Malformed),
    "UTF-16": (lambda: forged(encoding="utf-16-le"), Malformed),
    "deep": (lambda: forged(b"[" * 700), Malformed),
    "a segment more": (lambda: forged() + b".", Malformed),
    "dots": (lambda: b"." * 1_000_000, Malformed),
}


def test_what_is_right_in_the_forgeries_opens() -> None:
    assert jose.open_sealed(forged(), PAIR.seal) == b"text"
    spaced = b'{ "epk": {"x":"X","kty":"OKP","crv":"X25519"}, "enc":"A256GCM", "alg":"ECDH-ES" }'
    assert jose.open_sealed(forged(spaced), PAIR.seal) == b"text"


@pytest.mark.parametrize("name", HOSTILE_SEALS)
def test_hostile_seals(name: str) -> None:
    made, raised = HOSTILE_SEALS[name]
    token = made()
    with pytest.raises(raised):
        jose.open_sealed(token, PAIR.seal)


PRIME = 2**255 - 19
LOW_ORDER = [
    0,
    1,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
    PRIME - 1,
    PRIME,
    PRIME + 1,
]


@pytest.mark.parametrize("point", [*LOW_ORDER, *(point + 2**255 for point in LOW_ORDER)])
def test_a_point_of_low_order_is_refused(point: int) -> None:
    """Its secret is zero whoever multiplies it, so that anybody could seal and open."""
    raw = point.to_bytes(32, "little")
    epk = {"kty": "OKP", "crv": "X25519", "x": oracle.b64(raw)}
    protected = encode(json.dumps({"alg": "ECDH-ES", "enc": "A256GCM", "epk": epk}).encode())
    token = with_key(jose.derive(bytes(32)), protected)
    with pytest.raises(jose.Unopened, match="no key can be agreed"):
        jose.open_sealed(token, PAIR.seal)
    with pytest.raises(ValueError, match="shared key"):
        jose.seal(b"text", X25519PublicKey.from_public_bytes(raw))


def test_a_signature_has_one_form() -> None:
    token = jose.sign(b"text", "order+jws", PAIR.kid, PAIR.sign)
    found = jose.read_signed(token)
    order_of_group = 2**252 + 27742317777372353535851937790883648493
    scalar = int.from_bytes(found.signature[32:], "little")
    again = found.signature[:32] + (scalar + order_of_group).to_bytes(32, "little")
    for signature in (
        again,
        b"",
        found.signature[:63],
        found.signature + b"\0",
        bytes(64),
        found.signature[::-1],
    ):
        with pytest.raises(jose.Unproven):
            found._replace(signature=signature).verify(PAIR.public_keys.sign)
    found.verify(PAIR.public_keys.sign)


def test_no_bit_of_a_token_is_free() -> None:
    """Every bit of every byte: 0 of some 5,000 are accepted."""
    signed = jose.sign(b'{"a":1}', "order+jws", PAIR.kid, PAIR.sign)
    sealed = jose.seal(b"text", PAIR.public_keys.seal)

    def read(token: bytes) -> None:
        jose.read_signed(token).verify(PAIR.public_keys.sign)

    def opened(token: bytes) -> None:
        jose.open_sealed(token, PAIR.seal)

    tries = 0
    for token, take in ((signed, read), (sealed, opened)):
        take(token)
        for at in range(len(token)):
            for bit in range(8):
                changed = token[:at] + bytes([token[at] ^ (1 << bit)]) + token[at + 1 :]
                with pytest.raises((Malformed, jose.Unproven, jose.Unopened)):
                    take(changed)
                tries += 1
    assert tries > 3000
