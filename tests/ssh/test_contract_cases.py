"""Every case of the node's own runner, over SSH: by each way to a far side the same."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from far_bench import FarBench

from app.node import jobdir
from app.node.executor import outcome_from
from app.transport.messages import Job

_FOLDER = Path(__file__).parents[1]
NODE = yaml.safe_load((_FOLDER / "node" / "cases.yaml").read_text())
OTHERWISE = yaml.safe_load((_FOLDER / "cases" / "ssh" / "otherwise.yaml").read_text())
CASES = [case for case in NODE if case["name"] not in OTHERWISE] + [
    {"name": name, **case} for name, case in OTHERWISE.items()
]


Ran = tuple[Job, dict[str, Any]]


@pytest.fixture(scope="module")
def ran(far: FarBench) -> dict[str, Ran]:
    """Each case's job and record, by name. They run several at a time: most of them wait most of the time."""
    runner = far.runner()
    jobs = {case["name"]: far.job(**case["job"]) for case in CASES}
    with ThreadPoolExecutor(12) as pool:
        records = list(pool.map(runner.run, jobs.values()))
    return {name: (job, record) for (name, job), record in zip(jobs.items(), records, strict=True)}


def test_what_is_otherwise_over_ssh_is_a_case_of_the_node() -> None:
    assert OTHERWISE.keys() <= {case["name"] for case in NODE}


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_case(far: FarBench, ran: dict[str, Ran], case: dict[str, Any]) -> None:
    job, record = ran[case["name"]]
    expected = dict(case["expect"])
    for stream in ("stdout", "stderr"):
        if stream in expected:
            assert far.text(job, stream).decode() == expected.pop(stream)
        assert record[stream]["sha256"] == hashlib.sha256(far.text(job, stream)).hexdigest()
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
    assert jobdir.exit_record(jobdir.path(far.root, job.id)) == record
    outcome = outcome_from(record, job, installation="i", node="web-1", epoch="e")
    assert (outcome.status, outcome.exit_code) == (record["status"], record["exit_code"])
