"""One compact JWS and one compact JWE, written and read on `cryptography` without a library between.

Signed: JWS (RFC 7515) with Ed25519 (RFC 8037, by its name of RFC 9864). Sealed: JWE (RFC 7516) with ECDH-ES
over X25519, a fresh key for each token, Concat KDF (RFC 7518, 4.6) and A256GCM. Every other algorithm, header,
length and spelling is refused, so there is nothing to negotiate and nothing to downgrade.

The primitives are those of `cryptography`; what is ours is the order of bytes. `tests/transport/test_jose.py`
holds it to the vectors of the RFCs and to another implementation, both ways.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any, NamedTuple

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.concatkdf import ConcatKDFHash

from app.transport.segments import Malformed, decode, encode, header

ED25519 = "Ed25519"

_AGREEMENT = {"alg": "ECDH-ES", "enc": "A256GCM"}
_BEFORE_X = b'{"alg":"ECDH-ES","enc":"A256GCM","epk":{"kty":"OKP","crv":"X25519","x":"'
_AFTER_X = b'"}}'
_KEY_BYTES, _IV_BYTES, _TAG_BYTES = 32, 12, 16
_SHA256 = hashes.SHA256()
# AlgorithmID, PartyUInfo, PartyVInfo (each by its length; no party is named) and the key's bits.
_OTHER_INFO = b"\0\0\0\x07A256GCM" + b"\0\0\0\0" * 2 + (8 * _KEY_BYTES).to_bytes(4, "big")


class Unproven(ValueError):
    """A JWS that its signature does not vouch for."""


class Unopened(ValueError):
    """A JWE that the key at hand does not open."""


class Signed(NamedTuple):
    """A JWS taken apart. Nothing in it is to be believed before `verify`."""

    typ: Any
    kid: str
    payload: bytes
    covered: bytes
    signature: bytes

    def verify(self, key: Ed25519PublicKey) -> None:
        """Raises Unproven unless `key` signed header and payload."""
        try:
            key.verify(self.signature, self.covered)
        except InvalidSignature:
            raise Unproven("the signature does not hold") from None


def sign(payload: bytes, typ: str, kid: str, key: Ed25519PrivateKey) -> bytes:
    """The JWS of type `typ` over `payload` by the key whose thumbprint is `kid`. Both need no escapes in JSON."""
    covered = _signed_header(typ, kid) + b"." + encode(payload)
    return covered + b"." + encode(key.sign(covered))


def read_signed(token: bytes) -> Signed:
    """A JWS, not verified yet. Raises Malformed, or Unproven where another algorithm signed."""
    parts = token.split(b".", 3)
    if len(parts) != 3:
        raise Malformed("no three segments")
    payload, signature = decode(parts[1]), decode(parts[2])
    typ, kid = _named(parts[0])
    return Signed(typ, kid, payload, token[: -len(parts[2]) - 1], signature)


def seal(plaintext: bytes, to: X25519PublicKey) -> bytes:
    """The JWE that the private half of `to` opens. Raises ValueError for a `to` of low order."""
    ephemeral = X25519PrivateKey.generate()
    x = encode(ephemeral.public_key().public_bytes_raw())
    protected = encode(_BEFORE_X + x + _AFTER_X)
    iv = os.urandom(_IV_BYTES)
    sealed = AESGCM(derive(ephemeral.exchange(to))).encrypt(iv, plaintext, protected)
    ciphertext, tag = sealed[:-_TAG_BYTES], sealed[-_TAG_BYTES:]
    # The second segment is the encrypted key, and empty: the agreed key itself seals.
    return b".".join((protected, b"", encode(iv), encode(ciphertext), encode(tag)))


def open_sealed(token: bytes, key: X25519PrivateKey) -> bytes:
    """The plaintext of a JWE. Raises Malformed, or Unopened where it is not for `key` or was altered."""
    parts = token.split(b".", 5)
    if len(parts) != 5:
        raise Malformed("no five segments")
    x = _ephemeral(header(parts[0]))
    wrapped, iv, ciphertext, tag = map(decode, parts[1:])
    if wrapped:
        raise Unopened("there is an encrypted key")
    if len(iv) != _IV_BYTES or len(tag) != _TAG_BYTES:
        raise Unopened("the nonce must be 12 bytes and the tag 16")
    try:
        # `exchange` raises ValueError where a key of low order makes the secret zero.
        agreed = derive(key.exchange(X25519PublicKey.from_public_bytes(decode(x.encode()))))
        return AESGCM(agreed).decrypt(iv, ciphertext + tag, parts[0])
    except InvalidTag:
        raise Unopened("the tag does not hold") from None
    except ValueError as error:
        raise Unopened(f"no key can be agreed: {error}") from None


def derive(secret: bytes) -> bytes:
    """The A256GCM key that Concat KDF makes of an agreed secret."""
    return ConcatKDFHash(_SHA256, _KEY_BYTES, _OTHER_INFO).derive(secret)


def _ephemeral(protected: dict[str, Any]) -> str:
    epk = protected.pop("epk", None)
    if protected != _AGREEMENT or not isinstance(epk, dict):
        raise Malformed("no JWE with ECDH-ES and A256GCM, and no more than that")
    if epk.keys() != {"kty", "crv", "x"} or (epk["kty"], epk["crv"]) != ("OKP", "X25519"):
        raise Malformed("the ephemeral key is not X25519")
    if not isinstance(epk["x"], str):
        raise Unopened("the ephemeral key has no x")
    return epk["x"]


@lru_cache(maxsize=1024)
def _named(segment: bytes) -> tuple[Any, str]:
    """`typ` and `kid` of a JWS header. Cached: a signer's tokens of one type all begin with the same segment."""
    protected = header(segment)
    kid = protected.get("kid")
    if protected.keys() != {"alg", "typ", "kid"} or not isinstance(kid, str):
        raise Malformed("a JWS header holds alg, typ and kid, no more and no less")
    if protected["alg"] != ED25519:
        raise Unproven(f"signed by {protected['alg']!r}, not by {ED25519}")
    return protected["typ"], kid


@lru_cache(maxsize=256)
def _signed_header(typ: str, kid: str) -> bytes:
    return encode(b'{"alg":"%s","typ":"%s","kid":"%s"}' % (ED25519.encode(), typ.encode(), kid.encode()))
