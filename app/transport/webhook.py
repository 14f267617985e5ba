"""A word to somebody's web server: one POST, signed, to an address that is checked, within bounded time."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from app.transport.addresses import Policy
from app.transport.fetch import Request, fetch
from app.transport.messages import canonical

_KEPT: Final = 1000
_NO_ANSWERS: Final = frozenset(range(300, 400))
"""Redirects are not followed: where it goes is what the setting says."""


class Undelivered(Exception):
    """It was not taken; the message says why, without any secret."""


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where to, and the secret that the receiver shares. `seconds` bound the whole of it."""

    url: str
    secret: str = field(repr=False)
    policy: Policy
    seconds: float

    def send(self, id_: str, body: Mapping[str, Any], now: float) -> None:
        """Hand over one JSON body. Raises Undelivered, and `wires.Failed`."""
        text = canonical(body)
        headers = {
            "Content-Type": "application/json",
            "Muster-Notification": id_,
            "Muster-Signature": signature(self.secret, int(now), text),
        }
        request = Request(self.url, "POST", headers, text, final=_NO_ANSWERS, confidential=True)
        answer = fetch(request, policy=self.policy, seconds=self.seconds, limit=_KEPT)
        if not 200 <= answer.status < 300:
            raise Undelivered(f"the webhook answers {answer.status}")


def signature(secret: str, at: int, body: bytes) -> str:
    """`t=…,v1=…`: HMAC-SHA256 over the second of its sending, a dot and the body, in hexadecimal digits."""
    signed = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256)
    return f"t={at},v1={signed.hexdigest()}"
