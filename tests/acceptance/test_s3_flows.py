"""Seed 003, flows: the rows S3.1 to S3.15 that are about them, and the 24 scenarios of its test design by their ids.

The story lists twenty scenarios; its review counts 24 and names the subjects of the other four (integrity of the state,
a second end-to-end one), which have the ids that were free: UNIT-008 to UNIT-010, E2E-002. What differs from the story:

- UNIT-001: `ParallelExecutor` is `app.flows.model.Executor`. There is no local executor: blocks of the strategies
  `thread` and `process` are the engine's own. What both kinds conform to is what a block is, so E2E-001 and E2E-002
  execute one workflow under all three strategies and compare what it comes to.
- UNIT-002, UNIT-003, UNIT-004: instead of `YAMLEngine` the loader and the compiler; what they read is `Plan.remote`.
- UNIT-005, INT-001: instead of a mocked `shutil.which` a PATH without it.
- INT-003, "SCP (mocked)": one tar over stdin to a real sshd.
- INT-010, "kills ssh": the host itself ends the flow.

A flow here runs a tool that tells what it was given; the end-to-end ones, in `test_s3_flows_fleet`, run `muster.pyz`.
"""

from __future__ import annotations

import inspect
import itertools
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from waiting import wait_until

sys.path.insert(0, str(Path(__file__).parents[1] / "flows"))

from site_of_flows import WORKFLOW, Door, Site, programs
from sshd import Sshd, make_key

from app.compiler.build import build
from app.flows import gnu_parallel, state
from app.flows.breakers import Breakers
from app.flows.far_side import command_of
from app.flows.gnu_parallel import GnuParallel
from app.flows.model import Executor, Flow, Result, Terms, Watch
from app.flows.over_ssh import OverSsh
from app.flows.remote import RemoteExecutor, connect_by
from app.flows.seats import Access
from app.language.parse import load, load_or_raise

HEAD = "settings: {{parallel: {{strategy: remote, {more}remote: {{hosts: [{hosts}]{remote}}}}}}}\n"
BLOCK = """
tasks:
  - name: many
    type: parallel
    on_success: fan_in
    tasks:
      - {name: a, action: core.echo, input: {message: a}}
      - {name: b, action: core.echo, input: {message: b}}
      - {name: c, action: core.echo, input: {message: c}}
  - {name: fan_in, action: core.noop}
"""


def plan_of(hosts: str = "ada@web-1, ada@web-2", remote: str = "", more: str = "") -> Any:
    return build(load_or_raise(HEAD.format(hosts=hosts, remote=remote, more=more) + BLOCK))


@pytest.fixture(scope="module")
def site(sshd_program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("site")
    with Sshd(directory, addresses=("127.0.0.2", "127.0.0.3")) as sshd:
        yield Site(directory, sshd)


@pytest.fixture(scope="module")
def cycle(site: Site) -> list[Result]:
    """Five flows that went through, the second of which failed there."""
    flows = [site.flow(number, **({"exit": 3, "say": "ouch"} if number == 1 else {})) for number in range(5)]
    return site.run("asyncssh", flows)


def seen(result: Result, number: int) -> dict[str, Any]:
    """What the tool told of itself."""
    assert result.state is not None, result.error
    found: dict[str, Any] = result.state["task"][f"t{number}"]["result"]
    return found


def over_ssh(site: Site, breakers: Breakers | None = None) -> OverSsh:
    connect = connect_by("asyncssh", str(site.config))
    return OverSsh(Access(connect, breakers or Breakers(), wait=0.01), 1_000_000)


def behind(site: Site, door: Door) -> str:
    """A host whose connections go through a door."""
    with site.sshd.known_hosts().open("a") as known:
        known.write(f"[127.0.0.1]:{door.port} {site.sshd.host_key}\n")
    return f"{site.sshd.user}@127.0.0.1:{door.port}"


# protocol and configuration


def test_001_3_UNIT_001_executors_implement_the_protocol() -> None:
    wanted = inspect.signature(Executor.execute)
    for one in (RemoteExecutor, OverSsh, GnuParallel):
        assert inspect.signature(one.execute) == wanted, one


def test_001_3_UNIT_002_what_is_required_is_read() -> None:
    plan = plan_of(remote=", basefile: ./tea, workdir: /tmp/x, cleanup: false, method: ssh")
    assert plan.remote == {
        "hosts": ["ada@web-1", "ada@web-2"],
        "basefile": "tea",
        "workdir": "/tmp/x",
        "cleanup": False,
        "method": "ssh",
        "text": plan.remote["text"],
    }


def test_001_3_UNIT_003_hosts_are_a_list() -> None:
    assert plan_of("a@b, c@d:22, e").remote["hosts"] == ["a@b", "c@d:22", "e"]


def test_001_3_UNIT_004_workdir_has_a_default() -> None:
    assert plan_of().remote["workdir"] == "/tmp/tea-jobs"


def test_S3_02_settings_and_no_hosts_is_an_error_with_its_place() -> None:
    plan = plan_of()
    assert (plan.remote["basefile"], plan.remote["cleanup"], plan.remote["method"]) == (
        "muster.pyz",
        True,
        "auto",
    )
    text = HEAD.format(hosts="", remote="", more="") + BLOCK
    (problem,) = load(text, "flows.yaml").problems
    assert (problem.code, f"{problem.file}:{problem.line}:{problem.column}") == (
        "out-of-range",
        "flows.yaml:1:57",
    )


# GNU Parallel and SSH


def test_001_3_UNIT_005_gnu_parallel_is_found_on_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", programs(tmp_path / "bin", parallel="", rsync=""))
    assert gnu_parallel.is_there()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not gnu_parallel.is_there()


def command(cleanup: bool = True, timeout: float | None = None) -> list[str]:
    flows = [Flow(n, f"X-t{n}-1", f"t{n}", "fan_in", f"ada@web-{n % 2}:2222", {}) for n in range(3)]
    terms = Terms("tasks: []\n", Path("muster.pyz"), "/tmp/tea-jobs", cleanup, timeout)
    return gnu_parallel.command(flows, terms, "/tmp/tea-jobs/X-t0-1.parallel")


def test_001_3_UNIT_006_the_command_of_gnu_parallel() -> None:
    words = command(timeout=30)
    named = dict(itertools.pairwise(words))
    logins = [one.split() for one in named["--sshlogin"].split(",")]
    assert [(one[0], one[-1]) for one in logins] == [("@h0/ssh", "ada@web-0"), ("@h1/ssh", "ada@web-1")]
    assert all("BatchMode=yes" in one and "StrictHostKeyChecking=yes" in one for one in logins)
    assert [words[at + 1] for at, word in enumerate(words) if word == "--basefile"] == [
        "muster.pyz",
        "workflow.yaml",
    ]
    assert (named["--transferfile"], named["--return"], named["--timeout"]) == (
        "{}",
        "{.}.result.json",
        "30",
    )
    assert words[words.index(":::") + 1 :] == [
        "X-t0-1/t0.json@h0",
        "X-t1-1/t1.json@h1",
        "X-t2-1/t2.json@h0",
    ]
    assert (
        "cd {//} && exec python3 ../muster.pyz run ../workflow.yaml --entry-point {/.} --exit-point fan_in "
        "--input {/} --output {/.}.result.json"
    ) in words


def test_S3_03_cleanup_and_timeout_only_where_they_are_wanted() -> None:
    assert "--cleanup" in command()
    assert "--cleanup" not in command(cleanup=False)
    assert "--timeout" not in command()


def test_001_3_INT_001_ssh_where_gnu_parallel_is_not(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", programs(tmp_path / "bin").partition(os.pathsep)[0])
    flows = [site.flow(number) for number in range(2)]
    assert all(result.state for result in site.run("auto", flows))


def test_001_3_INT_002_and_S3_04_the_method_is_logged(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "app.flows.remote")
    monkeypatch.setenv("PATH", str(tmp_path))
    site.run("auto", [site.flow(0, x=float("nan"))])
    assert "1 flows go by SSH: `parallel` and `rsync` are not both on the PATH" in caplog.text
    monkeypatch.setenv("PATH", programs(tmp_path / "bin", parallel="", rsync=""))
    site.run("auto", [site.flow(0, x=float("nan"))])
    assert "1 flows go by GNU Parallel: `parallel` is on the PATH" in caplog.text


# state, files, results


def test_001_3_UNIT_007_the_state_is_json() -> None:
    given = {"parameters": {"a": None}, "vars": {"ü": "☃", "deep": [[{"b": [1, 2.5, True]}]]}, "task": {}}
    assert json.loads(state.to_json("a", given)) == given


def test_001_3_UNIT_008_a_state_comes_back_as_it_went() -> None:
    given = {
        "parameters": {"quotes": "\"'\\", "control": "\x00\x1f\u2028", "emoji": "👩‍🔧", "big": 2**63},
        "vars": {"empty": {}, "list": [], "text": "", "null": None, "float": 1e-9},
        "task": {"t": {"status": "succeeded", "result": {"stdout": "a\nb"}, "error": None}},
        "status": "completed",
    }
    assert state.from_json(state.to_json("a", given), "t") == given


@pytest.mark.parametrize(
    ("value", "path"),
    [({1, 2}, "vars.x"), ([{"y": float("inf")}], "vars.x[0].y"), ({7: 1}, "vars.x"), ("\ud800", "vars.x")],
)
def test_001_3_UNIT_009_and_S3_06_what_is_not_json_names_the_flow_and_the_path(value: Any, path: str) -> None:
    with pytest.raises(state.NotJson) as caught:
        state.to_json("build", {"vars": {"x": value}})
    assert "flow build" in caught.value.message
    assert f" {path} " in caught.value.message


def test_001_3_UNIT_010_and_S3_05_the_hosts_take_turns() -> None:
    tasks = plan_of("h1, h2").tasks
    flows = [tasks[name].flow for name in ("a", "b", "c")]
    assert [one["host"] for one in flows] == ["h1", "h2", "h1"]
    assert {one["exit_point"] for one in flows} == {"fan_in"}
    assert [one["entry_point"] for one in flows] == ["a", "b", "c"]


def test_001_3_INT_003_the_files_are_there(cycle: list[Result], site: Site) -> None:
    first = seen(cycle[0], 0)
    assert first["mode"] == "0o700"
    assert first["cwd"] == f"{site.workdir}/01EXEC-t0-1"
    assert first["given"]["vars"] == {"n": 0}


def test_001_3_INT_004_and_S3_07_the_whole_workflow_goes(cycle: list[Result]) -> None:
    assert {seen(cycle[number], number)["workflow"] for number in (0, 2, 3, 4)} == {WORKFLOW}


def test_001_3_INT_005_and_S3_08_the_flags(cycle: list[Result]) -> None:
    wanted = "run workflow.yaml --entry-point t2 --exit-point after --input in.json --output out.json"
    assert " ".join(seen(cycle[2], 2)["words"]) == wanted
    last = Flow(0, "n", "t", "", "h", {})
    words = command_of(last, Terms("", Path("tea"), "/w"))
    assert (words[0], "--exit-point" in words) == ("./tea", False)


def test_001_3_INT_006_and_S3_09_results_are_read_and_a_bad_one_is_an_error_result(
    cycle: list[Result],
) -> None:
    assert [result.state is None for result in cycle] == [False, True, False, False, False]
    assert [seen(cycle[number], number)["given"]["vars"]["n"] for number in (0, 2, 3, 4)] == [0, 2, 3, 4]
    error = cycle[1].error or {}
    assert (error["type"], error["exit_code"], error["stderr"]) == ("remote", 3, "ouch")


# clean-up


def test_001_3_INT_007_and_S3_10_what_was_copied_is_removed(cycle: list[Result], site: Site) -> None:
    (site.workdir / "not ours").mkdir(exist_ok=True)
    site.run("asyncssh", [site.flow(0, exit=1), site.flow(1)])
    assert site.left() == ["not ours"], "on success and on failure, and nothing else"


def test_001_3_INT_008_cleanup_may_be_off(site: Site, tmp_path: Path) -> None:
    site.run("asyncssh", [site.flow(0)], cleanup=False, workdir=str(tmp_path / "kept"))
    assert {path.name for path in (tmp_path / "kept" / "01EXEC-t0-1").iterdir()} >= {
        "in.json",
        "out.json",
        "workflow.yaml",
    }


def test_001_3_INT_009_a_cleanup_that_fails_is_logged_only(
    sshd_program: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = programs(tmp_path / "bin", rm="exit 1")
    with Sshd(tmp_path, addresses=("127.0.0.2",), environment={"PATH": path}) as sshd:
        site = Site(tmp_path, sshd)
        (result,) = site.run("asyncssh", [site.flow(0)])
    assert result.state is not None
    assert "was not removed from" in caplog.text


# time, and what fails


def test_001_3_INT_010_and_S3_12_the_timeout_ends_it_there(site: Site) -> None:
    (result,) = site.run("asyncssh", [site.flow(0, sleep=100)], timeout=1)
    assert result.error == {"type": "timeout", "message": "timed out after 1s"}
    wait_until(lambda: not site.running(), "it is gone on its host")


def test_001_3_INT_011_a_network_that_fails_is_tried_again(site: Site) -> None:
    with Door((site.sshd.address, site.sshd.port), shut=2) as door:
        host = behind(site, door)
        (result,) = over_ssh(site).execute([site.flow(0, host)], site.terms(), Watch())
        assert (result.state is not None, door.came) == (True, 3)


def test_001_3_INT_012_and_S3_13_a_circuit_breaker_for_each_host(site: Site) -> None:
    breakers = Breakers(threshold=3, cooldown=30)
    with Door((site.sshd.address, site.sshd.port), shut=3) as door:
        executor, host = over_ssh(site, breakers), behind(site, door)
        for _ in range(2):
            dead, fine = executor.execute([site.flow(0, host), site.flow(1)], site.terms(), Watch())
            assert (dead.error or {})["type"] == "unreachable"
            assert fine.state is not None
        assert door.came == 3, "the second time nobody knocked"
    assert "circuit breaker is open" in (dead.error or {})["message"]


def test_S3_11_a_key_that_is_not_taken_fails_at_once_with_what_to_do(site: Site, tmp_path: Path) -> None:
    make_key(tmp_path / "stranger")
    known = site.sshd.known_hosts()
    with Door((site.sshd.address, site.sshd.port)) as door:
        host = behind(site, door)
        site.configure(known, tmp_path / "stranger")
        try:
            (result,) = over_ssh(site).execute([site.flow(0, host)], site.terms(), Watch())
        finally:
            site.configure(known)
        assert door.came == 1
    error = result.error or {}
    assert error["type"] == "ssh_auth"
    assert "ssh-copy-id" in error["hint"]


def test_S3_14_a_host_is_looked_at_before_anything_is_copied(
    sshd_program: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "app.flows")
    path = programs(tmp_path / "bin", df="echo head; echo /dev/sda 1000 990 10 99% /")
    with Sshd(tmp_path, addresses=("127.0.0.2",), environment={"PATH": path}) as sshd:
        site = Site(tmp_path, sshd)
        (result,) = site.run("asyncssh", [site.flow(0)])
        (site.directory / "bin" / "df").unlink()
        (fine,) = site.run("asyncssh", [site.flow(0)])
    assert (result.error or {})["type"] == "preflight"
    assert "10 kB are free" in (result.error or {})["message"]
    assert fine.state is not None
    assert "system Linux" in caplog.text
    assert "python 3." in caplog.text
