"""`core.http` from its input to its result, against real servers: every case of `tests/cases/calls`."""

from __future__ import annotations

import json
import ssl
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

sys.path.insert(0, str(Path(__file__).parent))

from odd_server import OddServer, odd_server

from app.errors import InvalidInput
from app.services import call_input
from app.transport.addresses import Policy
from app.transport.fetch import fetch
from app.transport.wires import Failed

FOLDER = Path(__file__).parents[1] / "cases" / "calls"
CASES: list[dict[str, Any]] = yaml.safe_load((FOLDER / "http.yaml").read_text())
ADDRESSES: list[dict[str, Any]] = yaml.safe_load((FOLDER / "addresses.yaml").read_text())


@pytest.fixture(scope="module")
def server() -> Iterator[OddServer]:
    with odd_server("0.0.0.0") as running:
        yield running


def call(case: dict[str, Any], port: int) -> tuple[bool, dict[str, Any]]:
    """Whether the status was one that was expected, and the result."""
    limit = case.get("limit", 1000)
    given = json.loads(json.dumps(case["input"]).replace("{port}", str(port)))
    if "generate" in case:
        given["body"] = "x" * case["generate"]
    asked = call_input.read(given, seconds=case.get("seconds", 5.0), limit=limit)
    policy = Policy.read(case.get("private", False), case.get("allow", "127.0.0.1/32"))
    request = replace(asked.request, confidential=case.get("confidential", False))
    response = fetch(request, policy=policy, seconds=asked.seconds, limit=limit)
    return response.status in asked.expected, call_input.result_of(response)


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_a_call(server: OddServer, case: dict[str, Any]) -> None:
    server.asked.clear()
    began = time.monotonic()
    if "fails" in case:
        with pytest.raises((Failed, InvalidInput)) as raised:
            call(case, server.port)
        assert getattr(raised.value, "kind", "input") == case["fails"], raised.value.message
    else:
        good, result = call(case, server.port)
        assert good is case.get("good", True)
        for name, value in case.get("expect", {}).items():
            wanted = value.replace("{port}", str(server.port)) if isinstance(value, str) else value
            found = {key: result[name].get(key) for key in value} if name == "headers" else result[name]
            assert found == wanted
        assert len(result["body"]) <= case.get("limit", 1000)
        echo = case.get("echo", {})
        for name, value in echo.items():
            told = result["json"][name]
            assert ({key: told.get(key) for key in value} if name == "headers" else told) == value
    assert time.monotonic() - began < 60
    if "asked" in case:
        assert sorted(server.asked.elements()) == case["asked"]


@pytest.mark.parametrize("case", ADDRESSES, ids=lambda case: f"{case['also']}-{case['private']}")
def test_where_calls_may_go(case: dict[str, Any]) -> None:
    policy = Policy.read(case["private"], case["also"])
    assert {one: policy.allows(one) for one in case.get("yes", ())} == dict.fromkeys(
        case.get("yes", ()), True
    )
    assert {one: policy.allows(one) for one in case.get("no", ())} == dict.fromkeys(case.get("no", ()), False)


@pytest.mark.parametrize("also", ["localhost", "127.0.0.1/33", "10.0.0.1/8", "1.2.3.4;5.6.7.8"])
def test_networks_that_are_none(also: str) -> None:
    with pytest.raises(InvalidInput, match="MUSTER_HTTP_ALLOW"):
        Policy.read(False, also)


def test_a_proxy_of_the_environment_is_not_used(server: OddServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert call({"input": {"url": "http://127.0.0.1:{port}/plain"}}, server.port)[1]["body"] == "hello"


def test_a_message_tells_no_query(server: OddServer) -> None:
    case = {"input": {"url": "http://127.0.0.1:{port}/garbage?token=secret"}}
    with pytest.raises(Failed) as raised:
        call(case, server.port)
    assert "secret" not in raised.value.message


def test_a_certificate_that_nobody_signed_is_refused(tmp_path: Path) -> None:
    with odd_server() as running:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self_signed(tmp_path))
        running.socket = context.wrap_socket(running.socket, server_side=True)
        with pytest.raises(Failed, match="certificate") as raised:
            call({"input": {"url": "https://localhost:{port}/plain"}}, running.port)
        assert raised.value.kind == "connect"
        assert not running.asked


def self_signed(directory: Path) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    form = serialization.PrivateFormat.PKCS8
    path = directory / "server.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, form, plain)
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return path
