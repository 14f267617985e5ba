"""The keys of control and of each node, and the proof that an enrolling node holds them.

A pair is two keys: Ed25519 signs, X25519 opens what was sealed to it. Both are OKP JWKs (RFC 8037); a key is
named by its RFC 7638 thumbprint, and `kid` of a pair is the name of the signing key.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from app.errors import Conflict, InvalidInput, NotAllowed, NotFound
from app.transport import jose
from app.transport.messages import canonical
from app.transport.segments import decode, encode

PROOF_TYPE = "proof+jws"
_PROOF_BYTES = 4096


@dataclass(frozen=True)
class Public:
    """The public half of a pair: whose signature to check, to whom to seal."""

    sign: Ed25519PublicKey
    seal: X25519PublicKey

    @cached_property
    def kid(self) -> str:
        """RFC 7638 thumbprint of the signing key."""
        return _text(hashlib.sha256(canonical(_jwk(self.sign))).digest())

    @cached_property
    def fingerprint(self) -> str:
        """What a person compares and a node pins: `sha256:` and 64 hex digits over both keys."""
        return "sha256:" + hashlib.sha256(canonical(self.to_json())).hexdigest()

    def to_json(self) -> dict[str, Any]:
        return {"sign": _jwk(self.sign), "seal": _jwk(self.seal)}

    @classmethod
    def from_json(cls, data: Any) -> Public:
        """From {sign: jwk, seal: jwk}; raises InvalidInput for anything else, a private key included.

        Keys are cached: each message needs them, and reading them costs as much as signing.
        """
        halves = []
        for name, curve in (("sign", "Ed25519"), ("seal", "X25519")):
            jwk = data.get(name) if isinstance(data, Mapping) and len(data) == 2 else None
            if (
                not isinstance(jwk, Mapping)
                or set(jwk) != {"kty", "crv", "x"}
                or (jwk["kty"], jwk["crv"]) != ("OKP", curve)
                or not isinstance(jwk["x"], str)
            ):
                raise InvalidInput(
                    f"a public key needs `{name}` with kty OKP, crv {curve} and x, and nothing else",
                    hint="send what `public()` of the key pair gives",
                    code="bad-public-key",
                )
            halves.append(jwk["x"])
        try:
            return _imported(*halves)
        except ValueError as error:
            raise InvalidInput(f"a public key cannot be read: {error}", code="bad-public-key") from None


@dataclass(frozen=True)
class KeyPair:
    """Both private keys of control or of a node. Never leaves its machine."""

    sign: Ed25519PrivateKey
    seal: X25519PrivateKey

    @classmethod
    def generate(cls) -> KeyPair:
        return cls(Ed25519PrivateKey.generate(), X25519PrivateKey.generate())

    @property
    def kid(self) -> str:
        return self._public.kid

    def public(self) -> dict[str, Any]:
        """{sign: jwk, seal: jwk}: what others may have."""
        return self._public.to_json()

    @cached_property
    def _public(self) -> Public:
        return Public(self.sign.public_key(), self.seal.public_key())

    @property
    def public_keys(self) -> Public:
        return self._public

    def _secret(self) -> dict[str, Any]:
        public = self.public()
        return {
            "sign": {**public["sign"], "d": _text(self.sign.private_bytes_raw())},
            "seal": {**public["seal"], "d": _text(self.seal.private_bytes_raw())},
        }

    def save(self, path: Path) -> None:
        """Writes both keys, mode 0600, whole or not at all.

        Raises Conflict if the file is there: what was sealed to overwritten keys could not be opened again.
        """
        partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(canonical(self._secret()) + b"\n")
                file.flush()
                os.fsync(file.fileno())
            # A hard link, unlike a rename, fails when the name is taken: two first starts cannot both win.
            os.link(partial, path)
        except FileExistsError:
            raise Conflict(
                f"{path} is there already",
                hint="load it, or move it away if a new identity is wanted",
                code="keys-exist",
            ) from None
        finally:
            partial.unlink()
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    @classmethod
    def load(cls, path: Path) -> KeyPair:
        """Raises NotFound, NotAllowed (others may read the file) or InvalidInput (it holds no key pair)."""
        try:
            with path.open("rb") as file:
                mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
                text = file.read(_PROOF_BYTES)
        except FileNotFoundError:
            raise NotFound(f"there is no key file {path}", hint="enrol this machine first") from None
        if mode & 0o077:
            raise NotAllowed(
                f"{path} can be read by others (mode {mode:04o})",
                hint=f"chmod 600 {path}",
                code="keys-exposed",
            )
        try:
            data = json.loads(text)
            pair = cls(
                Ed25519PrivateKey.from_private_bytes(decode(data["sign"]["d"].encode())),
                X25519PrivateKey.from_private_bytes(decode(data["seal"]["d"].encode())),
            )
            # An `x` that is not the public half of `d` would name the pair by a key that it does not sign with.
            if data != pair._secret():
                raise ValueError("the public halves are not those of the private ones")
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise InvalidInput(f"{path} holds no key pair: {error}", code="bad-key-file") from None
        return pair

    def prove(self, installation: str, token: str, node: str, *, now: float) -> str:
        """The proof of possession that enrolment asks for: a JWS over names, token digest and keys.

        `now` is Unix seconds. The token itself is not in it.
        """
        claims = {
            "installation": installation,
            "node": node,
            "token_sha256": hashlib.sha256(token.encode()).hexdigest(),
            "keys": self.public(),
            "iat": now,
        }
        return jose.sign(canonical(claims), PROOF_TYPE, self.kid, self.sign).decode()


def check_proof(
    proof: str, *, installation: str, token: str, node: str, now: float, max_age: float = 300.0
) -> Public:
    """The public keys that `prove` vouches for. `now` in Unix seconds, `max_age` in seconds, either way.

    Raises NotAllowed, always with the same words to the outside: which part was wrong is in `detail`.
    """
    if not isinstance(proof, str) or len(proof) > _PROOF_BYTES or not proof.isascii():
        raise _no_proof("form")
    try:
        found = jose.read_signed(proof.encode())
        claims = json.loads(found.payload.decode())
        public = Public.from_json(claims["keys"])
        found.verify(public.sign)
        issued = float(claims["iat"])
        named = [str(claims[name]).encode() for name in ("installation", "node", "token_sha256")]
    except (InvalidInput, ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise _no_proof(type(error).__name__) from None
    if (found.typ, found.kid) != (PROOF_TYPE, public.kid):
        raise _no_proof("header")
    wanted = (installation, node, hashlib.sha256(token.encode()).hexdigest())
    if not all(hmac.compare_digest(a, b.encode()) for a, b in zip(named, wanted, strict=True)):
        raise _no_proof("claims")
    # Written so that a NaN is refused too.
    if not abs(now - issued) <= max_age:
        raise _no_proof("time")
    return public


def _no_proof(part: str) -> NotAllowed:
    return NotAllowed(
        "the enrolment proof does not hold",
        hint="ask for a new enrolment token, check this machine's clock, and enrol again",
        code="bad-proof",
        part=part,
    )


@lru_cache(maxsize=4096)
def _imported(sign: str, seal: str) -> Public:
    public = Public(
        Ed25519PublicKey.from_public_bytes(decode(sign.encode())),
        X25519PublicKey.from_public_bytes(decode(seal.encode())),
    )
    # Raises ValueError for a point of low order, to which nothing can be sealed: now, not when an order is to go.
    X25519PrivateKey.generate().exchange(public.seal)
    return public


def _jwk(key: Ed25519PublicKey | X25519PublicKey) -> dict[str, Any]:
    curve = "Ed25519" if isinstance(key, Ed25519PublicKey) else "X25519"
    return {"kty": "OKP", "crv": curve, "x": _text(key.public_bytes_raw())}


def _text(raw: bytes) -> str:
    return encode(raw).decode()
