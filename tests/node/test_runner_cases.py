"""Every case of cases.yaml, run by one real runner."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from runner_bench import Bench, decoded

from app.node import jobdir
from app.node.executor import outcome_from
from app.node.runner_client import RunnerClient

CASES = yaml.safe_load((Path(__file__).parent / "cases.yaml").read_text())


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Bench, RunnerClient]]:
    # The runner's environment is not the script's.
    os.environ["HELD_BACK"] = "secret"
    bench = Bench(tmp_path_factory.mktemp("cases"))
    client = bench.client()
    del os.environ["HELD_BACK"]
    yield bench, client
    bench.close()


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_case(served: tuple[Bench, RunnerClient], case: dict[str, Any]) -> None:
    bench, client = served
    job = bench.job(**case["job"])
    record = bench.run(client, job)
    expected = dict(case["expect"])
    for stream in ("stdout", "stderr"):
        if stream in expected:
            assert decoded(record[stream]).decode() == expected.pop(stream)
            assert bench.text(job, stream) == decoded(record[stream])
        if record["started_at"] is not None:
            assert record[stream]["sha256"] == hashlib.sha256(bench.text(job, stream)).hexdigest()
    if "message" in expected:
        assert str(expected.pop("message")) in record["error"]["message"]
    error = expected.pop("error", None)
    if error is not None:
        assert error.items() <= record["error"].items()
    elif "error" in case["expect"]:
        assert record["error"] is None
    assert expected.items() <= record.items()
    assert record["digest"] == job.digest
    assert record["duration"] < 20
    assert jobdir.exit_record(jobdir.path(bench.root, job.id)) == record
    outcome = outcome_from(record, job, installation="i", node="web-1", epoch="e")
    assert (outcome.status, outcome.exit_code) == (record["status"], record["exit_code"])
