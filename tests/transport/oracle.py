"""Another implementation of what `app.transport.jose` writes and reads: joserfc, with our keys."""

from __future__ import annotations

import base64
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from joserfc import jwe, jws
from joserfc.jwk import OKPKey


class _Signatures(jws.JWSRegistry):
    max_payload_length = 2_000_000


class _Seals(jwe.JWERegistry):
    max_ciphertext_length = 2_000_000


SIGNATURES = _Signatures(algorithms=["Ed25519"])
SEALS = _Seals(algorithms=["ECDH-ES", "ECDH-ES+A128KW", "A256GCM", "A128GCM", "A128CBC-HS256", "DEF"])


def key(private: Ed25519PrivateKey | X25519PrivateKey) -> OKPKey:
    return OKPKey.import_key(
        {
            "kty": "OKP",
            "crv": "Ed25519" if isinstance(private, Ed25519PrivateKey) else "X25519",
            "x": b64(private.public_key().public_bytes_raw()),
            "d": b64(private.private_bytes_raw()),
        }
    )


def sign(payload: bytes, header: dict[str, Any], private: Ed25519PrivateKey) -> str:
    return jws.serialize_compact(header, payload, key(private), registry=SIGNATURES)


def verify(token: bytes, private: Ed25519PrivateKey) -> tuple[dict[str, Any], bytes]:
    found = jws.deserialize_compact(token, key(private), registry=SIGNATURES)
    return found.headers(), found.payload


def seal(plaintext: bytes | str, header: dict[str, Any], private: X25519PrivateKey) -> str:
    return jwe.encrypt_compact(header, plaintext, key(private), registry=SEALS)


def open_sealed(token: bytes, private: X25519PrivateKey) -> bytes | None:
    return jwe.decrypt_compact(token, key(private), registry=SEALS).plaintext


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
