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

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey

from app.errors import Conflict, InvalidInput, NotAllowed, NotFound
from app.transport.messages import canonical


class _Signature(jws.JWSRegistry):
    # joserfc stops at 128 kB; the doors that use this look at the length first.
    max_payload_length = 2_000_000


SIGNATURE = _Signature(algorithms=["Ed25519"])
"""The one signature algorithm. joserfc refuses every other name, `none` and HS256 included."""

PROOF_TYPE = "proof+jws"
_PROOF_BYTES = 4096


@dataclass(frozen=True)
class Public:
    """The public half of a pair: whose signature to check, to whom to seal."""

    sign: OKPKey
    seal: OKPKey

    @cached_property
    def kid(self) -> str:
        """RFC 7638 thumbprint of the signing key."""
        return str(self.sign.thumbprint())

    @cached_property
    def fingerprint(self) -> str:
        """What a person compares and a node pins: `sha256:` and 64 hex digits over both keys."""
        return "sha256:" + hashlib.sha256(canonical(self.to_json())).hexdigest()

    def to_json(self) -> dict[str, Any]:
        return {"sign": _bare(self.sign, private=False), "seal": _bare(self.seal, private=False)}

    @classmethod
    def from_json(cls, data: Any) -> Public:
        """From {sign: jwk, seal: jwk}; raises InvalidInput for anything else, a private key included.

        Imported keys are cached: importing costs more than a signature check.
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
            halves.append((curve, jwk["x"]))
        try:
            return _imported(halves[0][1], halves[1][1])
        except (JoseError, ValueError, TypeError) as error:
            raise InvalidInput(f"a public key cannot be read: {error}", code="bad-public-key") from None


@dataclass(frozen=True)
class KeyPair:
    """Both private keys of control or of a node. Never leaves its machine."""

    sign: OKPKey
    seal: OKPKey

    @classmethod
    def generate(cls) -> KeyPair:
        return cls(OKPKey.generate_key("Ed25519"), OKPKey.generate_key("X25519"))

    @property
    def kid(self) -> str:
        return self._public.kid

    def public(self) -> dict[str, Any]:
        """{sign: jwk, seal: jwk}: what others may have."""
        return self._public.to_json()

    @cached_property
    def _public(self) -> Public:
        return _imported(_bare(self.sign, private=False)["x"], _bare(self.seal, private=False)["x"])

    @property
    def public_keys(self) -> Public:
        return self._public

    def save(self, path: Path) -> None:
        """Writes both keys, mode 0600, whole or not at all.

        Raises Conflict if the file is there: what was sealed to overwritten keys could not be opened again.
        """
        data = {"sign": _bare(self.sign, private=True), "seal": _bare(self.seal, private=True)}
        partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(canonical(data) + b"\n")
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
            return cls(_import_private(data["sign"], "Ed25519"), _import_private(data["seal"], "X25519"))
        except (JoseError, ValueError, TypeError, KeyError) as error:
            raise InvalidInput(f"{path} holds no key pair: {error}", code="bad-key-file") from None

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
        header = {"alg": "Ed25519", "typ": PROOF_TYPE, "kid": self.kid}
        return jws.serialize_compact(header, canonical(claims), self.sign, registry=SIGNATURE)


def check_proof(
    proof: str, *, installation: str, token: str, node: str, now: float, max_age: float = 300.0
) -> Public:
    """The public keys that `prove` vouches for. `now` in Unix seconds, `max_age` in seconds, either way.

    Raises NotAllowed, always with the same words to the outside: which part was wrong is in `detail`.
    """
    if not isinstance(proof, str) or len(proof) > _PROOF_BYTES or not proof.isascii():
        raise _no_proof("form")
    try:
        claims = json.loads(jws.extract_compact(proof.encode(), registry=SIGNATURE).payload)
        public = Public.from_json(claims["keys"])
        found = jws.deserialize_compact(proof, public.sign, registry=SIGNATURE)
        issued = float(claims["iat"])
        named = (str(claims["installation"]), str(claims["node"]), str(claims["token_sha256"]))
    except (JoseError, InvalidInput, ValueError, TypeError, KeyError, RecursionError) as error:
        raise _no_proof(type(error).__name__) from None
    if found.headers() != {"alg": "Ed25519", "typ": PROOF_TYPE, "kid": public.kid}:
        raise _no_proof("header")
    wanted = (installation, node, hashlib.sha256(token.encode()).hexdigest())
    if not all(hmac.compare_digest(a.encode(), b.encode()) for a, b in zip(named, wanted, strict=True)):
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
    return Public(
        OKPKey.import_key({"kty": "OKP", "crv": "Ed25519", "x": sign}),
        OKPKey.import_key({"kty": "OKP", "crv": "X25519", "x": seal}),
    )


def _import_private(jwk: Any, curve: str) -> OKPKey:
    key = OKPKey.import_key({name: jwk[name] for name in ("kty", "crv", "x", "d")})
    # An `x` that is not the public half of `d` would name the pair by a key that it does not sign with.
    if jwk["crv"] != curve or OKPKey.import_key(key.raw_value).as_dict(private=False)["x"] != jwk["x"]:
        raise ValueError(f"no {curve} key")
    return key


def _bare(key: OKPKey, *, private: bool) -> dict[str, Any]:
    names = ("kty", "crv", "x", "d") if private else ("kty", "crv", "x")
    data = key.as_dict(private=private)
    return {name: data[name] for name in names}
