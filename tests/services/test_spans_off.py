"""Without an endpoint nobody is told of spans; with one, and without the extra, the process does not start."""

from __future__ import annotations

import sys

import pytest

from app.services import spans
from app.settings import BadSetting, Settings


def test_without_an_endpoint_nobody_is_told() -> None:
    assert spans.exporter(Settings(), "control") is spans.nobody


def test_an_endpoint_needs_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "app.services.otel", None)
    with pytest.raises(BadSetting) as raised:
        spans.exporter(Settings(otel_endpoint="http://127.0.0.1:4318"), "control")
    assert "muster[otel]" in raised.value.hint
