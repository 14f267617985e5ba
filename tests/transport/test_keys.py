"""Key files, public keys from outside, and the proof of possession."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from app.errors import Conflict, InvalidInput, NotAllowed, NotFound
from app.transport import jose
from app.transport.keys import KeyPair, Public, check_proof
from app.transport.queues import node_ctl_queue, node_of, node_queue
from app.transport.segments import decode

PAIR, OTHER = KeyPair.generate(), KeyPair.generate()


def test_a_pair_survives_its_file_which_others_cannot_read(tmp_path: Path) -> None:
    path = tmp_path / "node.json"
    PAIR.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [found.name for found in tmp_path.iterdir()] == ["node.json"]
    loaded = KeyPair.load(path)
    assert (loaded.kid, loaded.public()) == (PAIR.kid, PAIR.public())
    with pytest.raises(Conflict):
        OTHER.save(path)
    assert KeyPair.load(path).kid == PAIR.kid
    path.chmod(0o640)
    with pytest.raises(NotAllowed, match="read by others"):
        KeyPair.load(path)


def test_files_that_hold_no_pair(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        KeyPair.load(tmp_path / "none")
    path = tmp_path / "bad"
    PAIR.save(tmp_path / "good")
    OTHER.save(tmp_path / "other")
    good = json.loads((tmp_path / "good").read_text())
    other = json.loads((tmp_path / "other").read_text())
    mixed = {**good, "sign": {**good["sign"], "x": other["sign"]["x"]}}
    for text in (
        "",
        "{}",
        "[]",
        "x",
        json.dumps(PAIR.public()),
        json.dumps(mixed),
        json.dumps({**good, "seal": {**good["seal"], "d": good["sign"]["d"]}}),
        json.dumps({**good, "sign": {**good["sign"], "d": good["sign"]["d"] + "="}}),
        json.dumps({**good, "sign": {**good["sign"], "d": "AAAA"}}),
        "[" * 4000,
        json.dumps({"sign": good}),
    ):
        path.write_text(text)
        path.chmod(0o600)
        with pytest.raises(InvalidInput, match="no key pair"):
            KeyPair.load(path)


def test_public_keys_come_back_and_carry_no_secret() -> None:
    public = Public.from_json(json.loads(json.dumps(PAIR.public())))
    assert public.kid == PAIR.kid == PAIR.public_keys.kid
    assert public.fingerprint == PAIR.public_keys.fingerprint != OTHER.public_keys.fingerprint
    assert public.fingerprint.startswith("sha256:")
    assert '"d"' not in json.dumps(PAIR.public())


@pytest.mark.parametrize(
    "data",
    [
        None,
        {},
        [],
        {"sign": PAIR.public()["sign"]},
        {**PAIR.public(), "more": 1},
        {"sign": PAIR.public()["seal"], "seal": PAIR.public()["sign"]},
        {**PAIR.public(), "sign": {**PAIR.public()["sign"], "d": "AAAA"}},
        {**PAIR.public(), "sign": {**PAIR.public()["sign"], "x": "AAAA"}},
        {**PAIR.public(), "sign": {**PAIR.public()["sign"], "x": 5}},
        {**PAIR.public(), "seal": {"kty": "RSA", "n": "AQAB", "e": "AQAB"}},
        {**PAIR.public(), "seal": {"kty": "OKP", "crv": "X25519", "x": "A" * 43}},
        {**PAIR.public(), "seal": {"kty": "OKP", "crv": "X25519", "x": "AQ" + "A" * 41}},
        {**PAIR.public(), "sign": {**PAIR.public()["sign"], "x": PAIR.public()["sign"]["x"] + "="}},
        {**PAIR.public(), "sign": {**PAIR.public()["sign"], "x": PAIR.public()["sign"]["x"][:-1] + "B"}},
        {**PAIR.public(), "sign": {**PAIR.public()["sign"], "x": "\ud800" * 43}},
    ],
)
def test_public_keys_from_outside_are_checked(data: Any) -> None:
    with pytest.raises(InvalidInput):
        Public.from_json(data)


def test_the_proof_of_possession() -> None:
    asked: dict[str, Any] = {"installation": "inst", "token": "secret", "node": "web-1", "now": 1000.0}
    proof = PAIR.prove("inst", "secret", "web-1", now=990.0)
    assert "secret" not in proof
    assert check_proof(proof, **asked).kid == PAIR.kid
    head, body, signature = proof.split(".")

    def claimed(changed: dict[str, Any]) -> str:
        claims = json.dumps({**json.loads(decode(body.encode())), **changed})
        return jose.sign(claims.encode(), "proof+jws", PAIR.kid, PAIR.sign).decode()

    assert check_proof(claimed({}), **asked) == PAIR.public_keys
    theirs = OTHER.prove("inst", "secret", "web-1", now=990.0).split(".")
    wrong: list[tuple[Any, dict[str, Any]]] = [
        (proof, {**asked, "installation": "inst2"}),
        (proof, {**asked, "token": "other"}),
        (proof, {**asked, "node": "web-2"}),
        (proof, {**asked, "now": 1300.0}),
        (proof, {**asked, "now": 600.0}),
        (PAIR.prove("inst", "secret", "web-1", now=float("nan")), asked),
        (PAIR.prove("inst", "secret", "web-1", now=10**400), asked),
        (claimed({"installation": "\ud800"}), asked),
        (claimed({"iat": None}), asked),
        (claimed({"iat": "[" * 9}), asked),
        (claimed({"keys": OTHER.public()}), asked),
        (jose.sign(decode(body.encode()), "order+jws", PAIR.kid, PAIR.sign).decode(), asked),
        (jose.sign(decode(body.encode()), "proof+jws", OTHER.kid, PAIR.sign).decode(), asked),
        (jose.sign(b"[" * 3000, "proof+jws", PAIR.kid, PAIR.sign).decode(), asked),
        (f"{head}.{body}.{theirs[2]}", asked),
        (f"{head}.{theirs[1]}.{signature}", asked),
        (f"{theirs[0]}.{theirs[1]}.{signature}", asked),
        (f"{head}.{body}.", asked),
        ("", asked),
        ("a.b.c", asked),
        ("x" * 5000, asked),
        (None, asked),
        ("é.é.é", asked),
    ]
    for token, place in wrong:
        with pytest.raises(NotAllowed, match="does not hold"):
            check_proof(token, **place)


def test_queue_names() -> None:
    assert (node_queue("web-1"), node_ctl_queue("web-1")) == ("node.web-1", "node.web-1.ctl")
    assert (node_of("node.web-1"), node_of("node.web-1.ctl")) == (("web-1", False), ("web-1", True))
    assert [node_of(queue) for queue in ("results", "node.", "node.A", "node.a.b.ctl", "node.a\n")] == [
        None
    ] * 5
    for name in ("", "A", "a.b", "a\n", "a*", "../a", "a" * 64, "-a", None, "a.ctl"):
        with pytest.raises(InvalidInput, match="not a node's name"):
            node_queue(name)  # type: ignore[arg-type]
        with pytest.raises(InvalidInput):
            node_ctl_queue(name)  # type: ignore[arg-type]
